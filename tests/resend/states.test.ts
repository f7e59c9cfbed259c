/** How far a message came, over two real nodes: accepted, relayed, delivered, read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rig } from '../client/rig.ts';
import { testRuntime } from '../cluster/local-node.ts';
import { JumpClock } from './jump-clock.ts';

test('a message is accepted, relayed, delivered and read, each when that is so', async () => {
  const clock = new JumpClock();
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example', clock);
  const bob = await rig.client('bob@blue.example', clock);
  const id = await alice.client.createConversation({ name: 'states', members: [bob.userId] });
  await bob.joined();
  await bob.close();
  const { id: message } = await alice.client.send(id, 'hello');
  const reached = async (
    wanted: 'accepted' | 'relayed' | 'delivered' | 'read',
  ): Promise<string> => {
    const waiting = alice.client.reached(id, message, wanted);
    let isOver = false;
    void waiting.finally(() => (isOver = true));
    for (let n = 0; n < 200 && !isOver; n += 1) {
      clock.jump(1_000);
      await testRuntime.clock.sleep(30);
    }
    return waiting;
  };
  const state = (): string | undefined => alice.client.history(id)[0]?.sendState;
  assert.equal(await alice.client.reached(id, message, 'accepted'), 'accepted');
  assert.equal(await reached('relayed'), 'relayed');
  await bob.open({ sendsReadReceipts: true });
  await bob.start();
  assert.equal(await reached('delivered'), 'delivered');
  assert.equal(state(), 'delivered');
  assert.deepEqual(await bob.texts(1), ['hello']);
  assert.equal(await reached('read'), 'read');
  const told = alice.events.all().map(({ type }) => type);
  const types = ['accepted', 'relayed', 'delivered', 'read'] as const;
  for (const type of types) assert(told.includes(type), type);
});

test('who waits for word that a message was passed on need not wait for the sparse question', async () => {
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example');
  const bob = await rig.client('bob@blue.example');
  const id = await alice.client.createConversation({ name: 'states', members: [bob.userId] });
  await bob.joined();
  await bob.close();
  const { id: message } = await alice.client.send(id, 'hello');
  // The node is asked by itself 30 s after the start at the earliest.
  const signal = AbortSignal.timeout(25_000);
  assert.equal(await alice.client.reached(id, message, 'relayed', signal), 'relayed');
});
