/** Methods that a peer calls beside the stream: look-ups at their limits, typing, blobs that are not kept. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { call, hasReason, methods, systemRandom } from '@quicprochat/proto';
import { Lane } from '@quicprochat/proto/messages';
import { makeIdentity, memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { LocalNode, TestDevice, testRuntime } from '../cluster/local-node.ts';
import { makePair } from './pair.ts';

const config =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\n[rates.auth]\nper_second = 1000\nburst = 1000\n';
const refused = (reason: string) => (error: unknown) => hasReason(error, reason);
const requester = (byte: number): Uint8Array => new Uint8Array(16).fill(byte);

suite('what a peer may ask', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let blue: LocalNode;
  let bob: TestDevice;
  let peer: Connection;
  before(async () => {
    red = await LocalNode.create(network, 'red.example', config);
    const limits =
      '[limits]\nlookups_per_peer_user_per_minute = 3\n[rates.send]\nper_second = 0.01\nburst = 3\n';
    blue = await LocalNode.create(network, 'blue.example', `${config}${limits}`);
    await blue.start([red]);
    await red.start([blue]);
    bob = await TestDevice.register(blue, 'bob@blue.example');
    peer = await blue.dial(red.identity, 'red.example');
    await call(peer, methods.fedHello, { domain: 'red.example', versionMin: 1, versionMax: 1 });
  });
  after(async () => {
    for (const one of [bob, red, blue]) await one[Symbol.asyncDispose]();
  });

  const resolve = (userId: string, by: Uint8Array) =>
    call(peer, methods.proxyResolveUser, { resolve: { userId }, requester: by });

  test('each of its users has a number of look-ups a minute, whether they find somebody or not', async () => {
    const { resolved } = await resolve('bob@blue.example', requester(1));
    assert.ok(resolved?.manifest !== undefined);
    for (const name of ['nobody', 'no-one']) {
      await assert.rejects(resolve(`${name}@blue.example`, requester(1)), refused('UNKNOWN_USER'));
    }
    for (const name of ['bob', 'nobody']) {
      const asked = resolve(`${name}@blue.example`, requester(1));
      await assert.rejects(asked, (error) => {
        return hasReason(error, 'RATE_LIMITED') && (error.retryAfterMs ?? 0) > 0;
      });
    }
    // Prekeys count too; another user, and another domain's, are told apart.
    const fetch = { userId: 'bob@blue.example' };
    const prekeys = call(peer, methods.proxyFetchHybridKey, { fetch, requester: requester(1) });
    await assert.rejects(prekeys, refused('RATE_LIMITED'));
    await resolve('bob@blue.example', requester(2));
    await assert.rejects(resolve('eve@red.example', requester(2)), refused('PEER_DENIED'));
  });

  test('keys of its own users it gives, and of nobody else', async () => {
    const asking = { requester: requester(3) };
    const keys = (userId: string) =>
      call(peer, methods.proxyFetchHybridKey, { ...asking, fetch: { userId } });
    assert.ok((await keys('bob@blue.example')).fetched?.manifest !== undefined);
    await assert.rejects(keys('nobody@blue.example'), refused('UNKNOWN_USER'));
    await assert.rejects(keys('eve@red.example'), refused('PEER_DENIED'));
    const claim = (userId: string) => {
      const fetch = { userId, claimId: systemRandom.bytes(16), suites: [1] };
      return call(peer, methods.proxyFetchKeyPackage, { ...asking, fetch });
    };
    await assert.rejects(claim('bob@blue.example'), refused('NO_KEY_PACKAGE'));
    await assert.rejects(claim('nobody@blue.example'), refused('UNKNOWN_USER'));
    await assert.rejects(claim('eve@red.example'), refused('PEER_DENIED'));
  });

  test('a hello without a common version is refused, and so is a batch whose predecessor never comes', async () => {
    const hello = { domain: 'red.example', versionMin: 2, versionMax: 3 };
    await assert.rejects(call(peer, methods.fedHello, hello), refused('VERSION'));
    const item = { kind: 1, mid: requester(4), payload: requester(5), rids: [bob.rid], ttlS: 60 };
    const batch = { streamId: requester(6), firstSeq: 5n, items: [item] };
    const gaps = [
      call(peer, methods.fedRelay, { ...batch, lane: Lane.BULK }),
      call(peer, methods.fedRelayBatch, { ...batch, lane: Lane.CONTROL }),
    ];
    await Promise.all(gaps.map((gap) => assert.rejects(gap, refused('STREAM_GAP'))));
  });

  test('one user does not use up what a node may ask of the hubs of a peer', async () => {
    const ask = (hub: string) =>
      call(bob.connection, methods.groupLog, { hub, group: new Uint8Array(32) });
    for (let asked = 0; asked < 3; asked += 1) {
      await assert.rejects(ask('red.example'), refused('UNKNOWN_GROUP'));
    }
    await assert.rejects(ask('red.example'), refused('RATE_LIMITED'));
    await assert.rejects(ask(''), refused('UNKNOWN_GROUP'));
  });

  test('a blob is refused by a reason of its own, after its fields were checked', async () => {
    const hash = new Uint8Array(32);
    const ask = (fields: object) => call(peer, methods.fedBlob, { hash, length: 1, ...fields });
    await assert.rejects(ask({}), refused('FEATURE_OFF'));
    for (const wrong of [{ hash: new Uint8Array(31) }, { length: 0 }, { length: 256 * 1024 + 1 }]) {
      await assert.rejects(ask(wrong), refused('BAD_FIELD'));
    }
  });

  test('typing has bounds, says nothing of devices, and is for peers only', async () => {
    const rids = [new Uint8Array(32)];
    const send = (item: object, times = 1) =>
      call(peer, methods.fedEphemeral, {
        items: Array.from({ length: times }, () => ({ rids, payload: new Uint8Array(9), ...item })),
      });
    await send({});
    await send({}, 256);
    const wrong = [
      send({}, 257),
      send({ rids: [] }),
      send({ rids: Array.from({ length: 65 }, () => rids[0]) }),
      send({ rids: [new Uint8Array(31)] }),
      send({ payload: new Uint8Array(0) }),
      send({ payload: new Uint8Array(513) }),
    ];
    for (const one of wrong) await assert.rejects(one, refused('BAD_FIELD'));
    const items = [{ rids, payload: new Uint8Array(9) }];
    const stranger = await blue.dial(await makeIdentity(systemRandom), 'somewhere');
    const asked = call(stranger, methods.fedEphemeral, { items });
    await assert.rejects(asked, refused('CALLER_CLASS'));
    await stranger.close(0, 'done');
  });
});

test('what users of a peer ask is held back by itself: its messages pass', async () => {
  const network = memoryNetwork(testRuntime);
  const bound = '[rates.peer_users]\nper_second = 0.01\nburst = 4\n';
  await using red = await LocalNode.create(network, 'red.example', config);
  await using blue = await LocalNode.create(network, 'blue.example', `${config}${bound}`);
  await blue.start([red]);
  const peer = await blue.dial(red.identity, 'red.example');
  await call(peer, methods.fedHello, { domain: 'red.example', versionMin: 1, versionMax: 1 });
  const log = { group: new Uint8Array(32) };
  for (let asked = 0; asked < 3; asked += 1) {
    await assert.rejects(call(peer, methods.fedHubLog, { log }), refused('UNKNOWN_GROUP'));
  }
  const resolve = { userId: 'nobody@blue.example' };
  const asking = { resolve, requester: requester(1) };
  await assert.rejects(call(peer, methods.proxyResolveUser, asking), refused('UNKNOWN_USER'));
  const isLimited = (error: unknown): boolean =>
    hasReason(error, 'RATE_LIMITED') && (error.retryAfterMs ?? 0) > 0;
  await assert.rejects(call(peer, methods.proxyResolveUser, asking), isLimited);
  await assert.rejects(call(peer, methods.fedHubLog, { log }), isLimited);
  const item = { kind: 1, mid: requester(3), payload: requester(3), rids: [log.group], ttlS: 60 };
  const batch = { lane: Lane.BULK, streamId: requester(2), firstSeq: 1n, items: [item] };
  assert.equal((await call(peer, methods.fedRelay, batch)).cursor, 1n);
  await peer.close(0, 'done');
});

test('typing travels in batches over a link that is up, and is lost without one', async () => {
  const batches: number[] = [];
  await using pair = await makePair({
    intercept: (method, request) => {
      if (method !== 'fedEphemeral') return;
      batches.push((request as { readonly items: readonly unknown[] }).items.length);
    },
  });
  const { red, blue, clock, network } = pair;
  const item = { rids: [blue.rid], payload: new Uint8Array(20) };
  const offer = (): boolean => red.federation.sendEphemeral('blue.example', item);
  for (let key = 0; key < 10; key += 1) assert.ok(offer());
  await clock.advance(1_000);
  for (let key = 0; key < 300; key += 1) assert.equal(offer(), key < 256);
  await clock.advance(1_000);
  assert.deepEqual(batches, [10, 256]);
  // Without an answer, the next batch goes after two seconds; without a link, nothing does.
  network.breakConnections('red.example', 'blue.example');
  await clock.advance(1_000);
  assert.equal(offer(), false);
  assert.equal(red.federation.sendEphemeral('green.example', item), false);
});
