/** The HTTP door over real sockets: what it serves, to the letter, and what it refuses. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { suite, test } from 'node:test';
import {
  auditState,
  decode,
  decodeEvidence,
  emptyAudit,
  encode,
  logVerifier,
  nativeSuite,
  openCheckpoint,
  applyAuditBundle,
  parseEntryBundle,
  rfc6962Hasher,
  searchRequest,
  verifySearch,
} from '@quicprochat/kt-log';
import { decodeSearchAnswer, httpLimits } from '@quicprochat/nodes/http';
import { silentLog, systemClock } from '@quicprochat/proto';
import { fromBinary, NodeRecordSchema, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import { domain, DoorRig } from './rig.ts';

const bytesOf = async (response: Response): Promise<Uint8Array> =>
  new Uint8Array(await response.arrayBuffer());

/** Sends raw text and returns all that comes back until the door closes or `until` has come. */
async function raw(port: number, text: string, until?: RegExp): Promise<string> {
  const socket: Socket = connect(port, '127.0.0.1');
  let received = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    received += chunk;
    if (until?.test(received) === true) socket.destroy();
  });
  // A reset is one way to refuse.
  socket.on('error', () => undefined);
  socket.write(text);
  await once(socket, 'close');
  return received;
}

suite('the HTTP door', () => {
  test('serves record, checkpoint, tiles and entries of the log', async () => {
    await using rig = await DoorRig.open();
    for (const name of ['alice', 'bob', 'carol']) await rig.register(name);

    const record = await bytesOf(await fetch(`${rig.url}/.well-known/qpc`));
    const signed = fromBinary(SignedNodeRecordSchema, record);
    assert.equal(fromBinary(NodeRecordSchema, signed.record).domain, domain);

    const reply = await fetch(`${rig.url}/kt/checkpoint`);
    assert.equal(reply.headers.get('cache-control'), 'no-cache');
    const { checkpoint } = openCheckpoint(nativeSuite, await bytesOf(reply), rig.identity);
    assert.equal(checkpoint.size, 3);

    const tile = await fetch(`${rig.url}/kt/tile/0/000.p/3`);
    assert.match(tile.headers.get('cache-control') ?? '', /immutable/);
    const hashes = await bytesOf(tile);
    const entries = parseEntryBundle(
      await bytesOf(await fetch(`${rig.url}/kt/tile/entries/000.p/3`)),
    );
    const hasher = rfc6962Hasher(nativeSuite.sha256);
    const leaves = (entries ?? []).map((entry) => Buffer.from(hasher.leaf(entry)));
    assert.deepEqual(Buffer.concat(leaves), Buffer.from(hashes));
    const [a, b, c] = leaves;
    assert.ok(a && b && c);
    const root = hasher.parent(hasher.parent(a, true, b, true), false, c, true);
    assert.deepEqual(Buffer.from(root), Buffer.from(checkpoint.root));
  });

  test('a full audit bundle replays, the next one is not there yet', async () => {
    await using rig = await DoorRig.open();
    const one = Promise.withResolvers<void>();
    rig.log.onHead(({ size }) => size === 257 && one.resolve());
    // One label each, and each in an entry of its own.
    for (let n = 0; n < 257; n++) await rig.put(`user${n}@${domain}`, new Uint8Array([n % 256]));
    await one.promise;
    const reply = await fetch(`${rig.url}/kt/audit/0`);
    assert.match(reply.headers.get('cache-control') ?? '', /immutable/);
    const { log, checkpoint } = applyAuditBundle(
      nativeSuite,
      { config: rig.config, identity: rig.identity },
      emptyAudit,
      await bytesOf(reply),
      systemClock.now(),
    );
    assert.equal(checkpoint.size, 256);
    assert.equal(decode(auditState, encode(auditState, log)).log.size, 256);
    assert.equal((await fetch(`${rig.url}/kt/audit/1`)).status, 404);
    assert.equal((await fetch(`${rig.url}/kt/audit/1.p/1`)).status, 200);
    assert.equal((await fetch(`${rig.url}/kt/audit/1.p/2`)).status, 404);
    assert.equal((await bytesOf(await fetch(`${rig.url}/kt/tile/0/000`))).length, 256 * 32);
    assert.equal((await bytesOf(await fetch(`${rig.url}/kt/tile/1/000.p/1`))).length, 32);
  });

  test('the page reads without script and escapes what others wrote', async () => {
    await using rig = await DoorRig.open({
      peers: {
        cosigners: () => [
          { name: 'blue.example/<b>', vkey: 'x', signed: { size: 1, atMs: systemClock.now() } },
        ],
        policyText: () => 'witness blue.example/<b> x\nquorum none\n',
        audits: async () => [
          { origin: 'blue.example', status: 'forked', size: 7, knownSize: 9 },
          { origin: 'green.example', status: 'ok', size: 5, knownSize: 5 },
        ],
      },
    });
    await rig.register('alice');
    const reply = await fetch(`${rig.url}/kt/`);
    const html = await reply.text();
    assert.match(reply.headers.get('content-type') ?? '', /text\/html/);
    assert.doesNotMatch(html, /<script/);
    assert.doesNotMatch(html, /<b>/);
    assert.match(html, /The log blue\.example is forked/);
    assert.match(html, /7 of 9/);
    assert.match(html, /1 \(newest\)/);
    assert.match(html, /No log that this node knows was ever caught/);
    assert.match(html, new RegExp(Buffer.from(rig.config.vrfPublicKey).toString('hex')));
  });

  test('evidence is listed and served byte for byte', async () => {
    await using rig = await DoorRig.open();
    const bytes = new TextEncoder().encode('qpc/kt-evidence/1\0 of a test');
    const hash = nativeSuite.sha256(bytes);
    await rig.audits.putEvidence(
      {
        origin: 'blue.example',
        kind: 'same-size',
        hash,
        bytes,
        foundMs: 1_700_000_000_000,
      },
      'forked',
    );
    const name = Buffer.from(hash).toString('hex');
    const list = await (await fetch(`${rig.url}/kt/evidence/`)).text();
    assert.equal(list, `${name} same-size blue.example 2023-11-14T22:13:20.000Z\n`);
    assert.deepEqual(await bytesOf(await fetch(`${rig.url}/kt/evidence/${name}`)), bytes);
    assert.throws(() => decodeEvidence(nativeSuite.sha256, bytes));
    const html = await (await fetch(`${rig.url}/kt/`)).text();
    assert.match(html, new RegExp(`href="/kt/evidence/${name}"`));
  });

  test('a search is answered with bytes that verify, and only where it is public', async () => {
    await using rig = await DoorRig.open({ publicSearch: true });
    await rig.register('alice');
    const label = new TextEncoder().encode(`alice@${domain}`);
    const body = encode(searchRequest, { last: undefined, label, version: undefined });
    const post = (path: string, bytes: Uint8Array): Promise<Response> =>
      fetch(`${rig.url}${path}`, { method: 'POST', body: Uint8Array.from(bytes) });

    const answer = decodeSearchAnswer(await bytesOf(await post('/kt/search', body)));
    assert.ok(answer);
    const verifier = logVerifier(rig.config, nativeSuite);
    const { found } = verifySearch(
      verifier,
      undefined,
      { label },
      answer.response,
      systemClock.now(),
    );
    assert.equal(found.version, 0);
    openCheckpoint(nativeSuite, answer.checkpoint, rig.identity);

    const nobody = encode(searchRequest, { last: undefined, label: label.slice(1), version: 0 });
    assert.equal((await post('/kt/search', nobody)).status, 404);
    assert.equal((await post('/kt/search', body.slice(1))).status, 400);
    assert.equal((await post('/kt/search', new Uint8Array())).status, 400);
    const big = await post('/kt/search', new Uint8Array(httpLimits.bodyBytes + 1));
    assert.equal(big.status, 413);
    assert.equal((await fetch(`${rig.url}/kt/search`)).status, 405);
    assert.equal((await post('/kt/checkpoint', body)).status, 405);

    await using closed = await DoorRig.open();
    const refused = await fetch(`${closed.url}/kt/search`, {
      method: 'POST',
      body: Uint8Array.from(body),
    });
    assert.equal(refused.status, 405);
  });

  test('HEAD has the headers of GET and no body', async () => {
    await using rig = await DoorRig.open();
    await rig.register('alice');
    const get = await fetch(`${rig.url}/kt/tile/0/000.p/1`);
    const head = await fetch(`${rig.url}/kt/tile/0/000.p/1`, { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal(head.headers.get('content-length'), get.headers.get('content-length'));
    assert.equal((await bytesOf(head)).length, 0);
  });

  test('any other path is 404, however it is spelled', async () => {
    await using rig = await DoorRig.open({ publicSearch: true });
    await rig.register('alice');
    const paths = [
      '/',
      '/kt',
      '/kt/../.well-known/qpc',
      '/kt/tile/0/../../../etc/passwd',
      '/kt/js/../../package.json',
      '/kt/js//etc/passwd',
      '/kt/tile/0/000',
      '/kt/tile/0/000.p/2',
      '/kt/tile/0/x000/000.p/1',
      '/kt/tile/64/000',
      '/kt/tile/entries/999.p/1',
      '/kt/audit/00',
      '/kt/audit/-1',
      '/kt/audit/9999999999999',
      '/kt/evidence/../checkpoint',
      `/kt/evidence/${'0'.repeat(64)}`,
      '/kt/%63heckpoint',
      `/kt/${'a'.repeat(600)}`,
      'http://elsewhere.example/kt/',
      '*',
      '/kt/checkpoint/',
      '//kt/checkpoint',
    ];
    for (const path of paths) {
      const text = await raw(
        rig.port,
        `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`,
      );
      assert.match(text, /^HTTP\/1\.1 404 /, path);
    }
    const ok = await raw(
      rig.port,
      'GET /kt/checkpoint?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n',
    );
    assert.match(ok, /^HTTP\/1\.1 200 /);
  });

  test('what is no HTTP, or too much of it, is refused and the next one served', async () => {
    await using rig = await DoorRig.open({ publicSearch: true });
    await rig.register('alice');
    assert.match(await raw(rig.port, 'hello there\r\n\r\n'), /^HTTP\/1\.1 400 /);
    assert.match(await raw(rig.port, '\x16\x03\x01\x02\x00\x01'), /^(?:HTTP\/1\.1 400 .*)?/s);
    const long = `GET /kt/ HTTP/1.1\r\nhost: x\r\nx: ${'a'.repeat(httpLimits.headerBytes)}\r\n\r\n`;
    assert.match(await raw(rig.port, long), /^(?:HTTP\/1\.1 4.*)?$/s);
    const smuggled =
      'POST /kt/search HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n';
    assert.match(await raw(rig.port, smuggled), /^HTTP\/1\.1 400 /);
    const unread = `POST /kt/checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\nabc`;
    assert.match(await raw(rig.port, unread), /^HTTP\/1\.1 405 /);
    assert.equal((await fetch(`${rig.url}/kt/checkpoint`)).status, 200);
  });

  test('above its rate an address waits, and another one behind a proxy does not', async () => {
    await using rig = await DoorRig.open({ perSecond: 2 });
    await rig.register('alice');
    const from = (address: string): Promise<Response> =>
      fetch(`${rig.url}/kt/checkpoint`, { headers: { 'x-forwarded-for': `spoofed, ${address}` } });
    assert.equal((await from('192.0.2.1')).status, 200);
    assert.equal((await from('192.0.2.1')).status, 200);
    const limited = await from('192.0.2.1');
    assert.equal(limited.status, 429);
    assert.equal(limited.headers.get('retry-after'), '1');
    assert.equal((await from('192.0.2.2')).status, 200);
    // One customer has 2^64 addresses of IPv6: they count as one.
    const statuses = await Promise.all(
      ['1', '2', '3'].map(async (end) => (await from(`2001:db8::${end}`)).status),
    );
    assert.deepEqual(
      statuses.toSorted((a, b) => a - b),
      [200, 200, 429],
    );
  });

  test('a reader that never reads loses its connection, not the door', async () => {
    await using rig = await DoorRig.open();
    await rig.register('alice');
    const sockets = Array.from({ length: 40 }, () => connect(rig.port, '127.0.0.1'));
    for (const socket of sockets) {
      socket.on('error', () => undefined);
      socket.pause();
      socket.write('GET /kt/ HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(50));
    }
    assert.equal((await fetch(`${rig.url}/kt/checkpoint`)).status, 200);
    for (const socket of sockets) socket.destroy();
  });

  test('whoever drips headers or body, or says nothing, is cut off in time', async () => {
    const errors: string[] = [];
    const log = { ...silentLog, error: (event: string) => void errors.push(event) };
    const limits = { headersMs: 200, requestMs: 400, idleMs: 400, checkMs: 50 };
    await using rig = await DoorRig.open({ publicSearch: true, limits, log });
    await rig.register('alice');
    const openings = [
      'GET /kt/ HTTP/1.1\r\n',
      'POST /kt/search HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n',
      '',
      'GET /kt/page.css HTTP/1.1\r\nhost: x\r\n\r\n',
    ];
    const beganMs = systemClock.monotonic();
    await Promise.all(
      openings.map(async (opening) => {
        const socket = connect(rig.port, '127.0.0.1').resume();
        socket.on('error', () => undefined);
        socket.write(opening);
        const isDripping = opening !== '' && !opening.includes('page.css');
        const drip = setInterval(() => isDripping && socket.writable && socket.write('x'), 50);
        await once(socket, 'close');
        clearInterval(drip);
      }),
    );
    const tookMs = systemClock.monotonic() - beganMs;
    assert.ok(tookMs < 5_000, `took ${tookMs} ms`);
    assert.deepEqual(errors, [], 'what strangers do is no fault of ours');
    assert.equal((await fetch(`${rig.url}/kt/checkpoint`)).status, 200);
  });

  test('an empty log has a page and nothing else', async () => {
    await using rig = await DoorRig.open();
    assert.equal((await fetch(`${rig.url}/kt/checkpoint`)).status, 404);
    assert.equal((await fetch(`${rig.url}/kt/tile/0/000.p/1`)).status, 404);
    assert.match(await (await fetch(`${rig.url}/kt/`)).text(), /The log is empty/);
  });
});
