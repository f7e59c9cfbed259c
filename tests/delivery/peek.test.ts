/** Peek (203): what waits in an inbox, without taking it. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { call, maxPeekRows, methods, systemRandom } from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { Rig } from '../client/rig.ts';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

suite('Peek', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let alice: TestDevice;
  let bob: TestDevice;

  before(async () => {
    red = await LocalNode.create(network, 'red.example');
    await red.start();
    alice = await TestDevice.register(red, 'alice@red.example');
    bob = await TestDevice.register(red, 'bob@red.example');
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    await bob[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
  });

  test('tells seq, mid, kind, size and age, and takes nothing', async () => {
    const sent = [200, 70_000, 3].map((size) => ({ mid: bytes(16), payload: bytes(size) }));
    for (const row of sent) {
      await call(bob.connection, methods.enqueue, { rid: alice.rid, domain: red.domain, ...row });
    }
    const { storeId } = await call(alice.connection, methods.fetch, { log: {} });
    for (let turn = 0; turn < 2; turn += 1) {
      const peeked = await call(alice.connection, methods.peek, { log: {} });
      assert.deepEqual(
        peeked.rows.map(({ seq, mid, kind, size }) => ({ seq, mid, kind, size })),
        sent.map(({ mid, payload }, index) => ({
          seq: BigInt(index + 1),
          mid,
          kind: 1,
          size: payload.length,
        })),
      );
      assert.ok(peeked.rows.every(({ ageMs }) => ageMs < 60_000n));
      assert.deepEqual([peeked.floor, peeked.head, peeked.gap], [1n, 3n, undefined]);
      assert.deepEqual(peeked.storeId, storeId);
    }
    const behind = await call(alice.connection, methods.peek, { log: {}, after: 1n, maxRows: 1 });
    assert.deepEqual(
      behind.rows.map(({ seq }) => seq),
      [2n],
    );
    // Only the own inbox is answered.
    assert.equal((await call(bob.connection, methods.peek, { log: {} })).rows.length, 0);
  });

  test('refuses a cursor beyond the head, too many rows and an unknown channel', async () => {
    const peek = (request: object) => call(alice.connection, methods.peek, request);
    await refused(peek({ log: {}, after: 4n }), 'BAD_CURSOR');
    await refused(peek({ log: {}, after: 2n ** 53n }), 'BAD_FIELD');
    await refused(peek({ log: {}, maxRows: maxPeekRows + 1 }), 'BAD_FIELD');
    await refused(peek({ log: { cid: bytes(31) } }), 'BAD_FIELD');
    await refused(peek({ log: { cid: bytes(32) } }), 'UNKNOWN_CHANNEL');
    await using stranger = await TestDevice.dial(red, 'nobody@red.example');
    await refused(call(stranger.connection, methods.peek, { log: {} }), 'NOT_LOGGED_IN');
  });
});

test('a client counts what waits for it while it is not started', async () => {
  await using rig = await Rig.make();
  const [alice, bob] = [await rig.client('alice@red.example'), await rig.client('bob@red.example')];
  const id = await alice.client.createConversation({ name: 'two', members: [bob.userId] });
  await alice.client.flush();
  await bob.joined();
  await bob.close();
  await bob.open();
  for (const text of ['one', 'two']) await alice.client.send(id, text);
  await alice.client.flush();
  const waiting = await bob.client.waiting();
  assert.ok(waiting.rows >= 2 && !waiting.hasMore);
  assert.ok(waiting.bytes > 0 && waiting.oldestMs < 60_000);
  await bob.start();
  assert.deepEqual(await bob.texts(2), ['one', 'two']);
});
