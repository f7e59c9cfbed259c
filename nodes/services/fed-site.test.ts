/** A domain's own word over real HTTPS: what is taken, what is refused, and what may be asked at all. */
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { LookupFunction } from 'node:net';
import { after, before, suite, test } from 'node:test';
import assert from 'node:assert/strict';
import { hasReason, systemClock, systemRandom, type Timer } from '@quicprochat/proto';
import { makeIdentity, type NodeIdentity } from '@quicprochat/proto/transport';
import { httpsSite, isPrivateAddress, siteLimits } from './fed-site.ts';

/** The name in every self-made certificate of the project. */
const name = 'qpc';
/** Any name leads to this machine. */
const here: LookupFunction = (_name, options, callback) => {
  if (options.all === true) callback(null, [{ address: '127.0.0.1', family: 4 }]);
  else callback(null, '127.0.0.1', 4);
};

suite('a site', () => {
  let identity: NodeIdentity;
  let server: Server;
  let answer: RequestListener = () => {};
  let port = 0;
  before(async () => {
    identity = await makeIdentity(systemRandom);
    server = createServer(
      { cert: identity.certificatePem, key: identity.privateKeyPem },
      (request, response) => answer(request, response),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    port = typeof address === 'object' && address !== null ? address.port : 0;
  });
  const timers: Timer[] = [];
  after(() => {
    for (const timer of timers) timer.cancel();
    server.close();
  });
  function within(ms: number): AbortSignal {
    const limit = new AbortController();
    timers.push(systemClock.timer(ms, () => limit.abort()));
    return limit.signal;
  }

  const fetch = (domain = name, signal = within(5_000)): Promise<Uint8Array> =>
    httpsSite({ ca: identity.certificatePem, port, lookup: here }).fetch(domain, signal);
  const refused = (error: unknown): boolean => hasReason(error, 'PEER_UNREACHABLE');

  test('is asked for one path, and its bytes are given as they are', async () => {
    let path: string | undefined;
    answer = (request, response) => {
      path = request.url;
      response.end(Buffer.from([1, 2, 3]));
    };
    assert.deepEqual(await fetch(), new Uint8Array([1, 2, 3]));
    assert.equal(path, '/.well-known/qpc');
  });

  test('of another name, or proven by nobody that is trusted, is refused', async () => {
    answer = (_, response) => response.end('x');
    await assert.rejects(fetch('blue.example'), refused);
    const usual = httpsSite({ port, lookup: here });
    await assert.rejects(usual.fetch(name, within(5_000)), refused);
  });

  test('that sends elsewhere, has nothing, or sends too much, is refused', async () => {
    const answers: RequestListener[] = [
      (_, response) => response.writeHead(302, { location: 'https://qpc/' }).end(),
      (_, response) => response.writeHead(404).end(),
      (_, response) => response.end(Buffer.alloc(siteLimits.bytes + 1)),
      (request) => request.socket.destroy(),
    ];
    for (const one of answers) {
      answer = one;
      await assert.rejects(fetch(), refused);
    }
    answer = (_, response) => response.end(Buffer.alloc(siteLimits.bytes));
    assert.equal((await fetch()).length, siteLimits.bytes);
  });

  test('that never answers is given up by whoever asks', async () => {
    answer = () => {};
    await assert.rejects(fetch(name, within(100)), refused);
  });

  test('inside a private network is not asked, unless the operator says so', async () => {
    answer = (_, response) => response.end('inside');
    const signal = within(5_000);
    const usual = httpsSite({ ca: identity.certificatePem, port });
    await assert.rejects(usual.fetch('localhost', signal), /private/);
    // The name is not in its certificate, which is another reason, and comes later.
    const allowed = httpsSite({ ca: identity.certificatePem, port, allowsPrivate: true });
    await assert.rejects(allowed.fetch('localhost', signal), /ltnames|cert/i);
    const inside = ['10.1.2.3', '127.0.0.1', '192.168.0.1', '172.31.0.1', '169.254.1.1', '::1'];
    for (const address of [...inside, 'fd00::1', 'fe80::1', '::ffff:10.0.0.1', 'junk']) {
      assert.ok(isPrivateAddress(address), address);
    }
    for (const address of ['192.0.2.1', '2001:db8::1', '172.32.0.1']) {
      assert.ok(!isPrivateAddress(address), address);
    }
  });
});
