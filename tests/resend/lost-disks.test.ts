/**
 * Messages that a node had acknowledged survive the loss of its disk, and of the other node's, while the
 * sender's device lives (docs/protocol/delivery.md, "End-to-end re-send"). Real nodes, real clients; the
 * disk comes back as a backup from before the first message: whatever was acked since is gone.
 */
import assert from 'node:assert/strict';
import { copyFileSync, cpSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { openNodeStore } from '@quicprochat/nodes';
import { testRuntime, type LocalNode } from '../cluster/local-node.ts';
import { inTime, Rig, type RigClient } from '../client/rig.ts';
import { JumpClock } from './jump-clock.ts';

const secondMs = 1_000;
const hourMs = 3_600_000;

/** Stops the node, lets `work` at its directory, and starts it again unless told otherwise. */
async function stop(node: LocalNode): Promise<void> {
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
  node.node = undefined;
}
async function restart(node: LocalNode, peers: readonly LocalNode[]): Promise<void> {
  const { databasePath: path, store: limits } = node.config;
  const { key, runtime } = node;
  node.store = await openNodeStore({ path, key, limits, runtime });
  await node.start(peers);
}

/** A copy of the whole data directory, and what brings it back in place of the lost one. */
async function backUp(rig: Rig, node: LocalNode): Promise<() => Promise<void>> {
  const peers = [node === rig.red ? rig.blue : rig.red];
  const copy = `${node.directory}.backup`;
  await stop(node);
  cpSync(node.directory, copy, { recursive: true });
  await restart(node, peers);
  return async () => {
    rmSync(node.directory, { recursive: true });
    cpSync(copy, node.directory, { recursive: true });
    rmSync(copy, { recursive: true });
    await restart(node, peers);
  };
}

/** Resolves when red has nothing more for blue. */
async function relayed(rig: Rig): Promise<void> {
  const { store } = rig.red;
  assert(store !== undefined);
  const work = (async () => {
    while ((await store.outboxPeers()).some(({ rows }) => rows > 0))
      await testRuntime.clock.sleep(5);
  })();
  await inTime(work, 'red to relay everything');
}

/** Jumps on until something is so. */
async function whileJumping<T>(clock: JumpClock, stepMs: number, work: Promise<T>): Promise<T> {
  let isOver = false;
  const over = (): void => void (isOver = true);
  work.then(over, over);
  for (let n = 0; n < 200 && !isOver; n += 1) {
    clock.jump(stepMs);
    await testRuntime.clock.sleep(50);
  }
  return work;
}

const textsOf = (client: RigClient, id: Uint8Array): readonly string[] =>
  client.client.history(id).map(({ text }) => text);

async function delivered(client: RigClient, clock: JumpClock, id: Uint8Array): Promise<void> {
  const { deviceId } = client.client.whoami();
  for (const message of client.client.history(id)) {
    if (message.senderDevice !== deviceId) continue;
    const reached = client.client.reached(id, message.innerId, 'delivered');
    assert.equal(await whileJumping(clock, secondMs, reached), 'delivered', message.text);
  }
}

test('the disk of the recipient’s node is lost with messages that were relayed to it', async () => {
  const clock = new JumpClock();
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example', clock);
  const bob = await rig.client('bob@blue.example', clock);
  const id = await alice.client.createConversation({ name: 'disk', members: [bob.userId] });
  await bob.joined();
  await alice.client.send(id, 'before');
  assert.deepEqual(await bob.texts(1), ['before']);
  await delivered(alice, clock, id);
  await bob.close();
  const bringBack = await backUp(rig, rig.blue);
  for (const text of ['one', 'two', 'three']) await alice.client.send(id, text);
  await alice.client.flush();
  await relayed(rig);
  await stop(rig.blue);
  await bringBack();
  await bob.open();
  await bob.start();
  const lost = await whileJumping(clock, secondMs, bob.texts(3));
  assert.deepEqual([...lost].sort(), ['one', 'three', 'two']);
  assert.deepEqual(textsOf(bob, id), ['before', 'one', 'two', 'three']);
  await delivered(alice, clock, id);
  assert.deepEqual(bob.client.undecryptable(), []);
});

test('the disk of the sender’s node is lost with messages that wait there for a peer', async () => {
  const clock = new JumpClock();
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example', clock);
  const bob = await rig.client('bob@blue.example', clock);
  const id = await alice.client.createConversation({ name: 'disk', members: [bob.userId] });
  await bob.joined();
  const bringBack = await backUp(rig, rig.red);
  await stop(rig.blue);
  for (const text of ['one', 'two']) await alice.client.send(id, text);
  await alice.client.flush();
  await stop(rig.red);
  await bringBack();
  await restart(rig.blue, [rig.red]);
  const read = await whileJumping(clock, secondMs, bob.texts(2));
  assert.deepEqual(read, ['one', 'two']);
  await delivered(alice, clock, id);
});

test('an invitation and the first messages are lost, which nobody can miss: they come again after a day', async () => {
  const clock = new JumpClock();
  // A day passes for everybody: the nodes repeat within half of one what they passed on.
  await using rig = await Rig.make('', clock);
  const alice = await rig.client('alice@red.example', clock);
  const bob = await rig.client('bob@blue.example', clock);
  await bob.close();
  const bringBack = await backUp(rig, rig.blue);
  const id = await alice.client.createConversation({ name: 'disk', members: [bob.userId] });
  for (const text of ['one', 'two']) await alice.client.send(id, text);
  await alice.client.flush();
  await relayed(rig);
  await stop(rig.blue);
  await bringBack();
  await bob.open();
  await bob.start();
  assert.deepEqual(bob.client.conversations(), []);
  clock.jump(25 * hourMs);
  const read = await whileJumping(clock, secondMs, bob.texts(2));
  assert.deepEqual([...read].sort(), ['one', 'two']);
  assert.deepEqual(textsOf(bob, id), ['one', 'two']);
  await delivered(alice, clock, id);
});

test('a device whose store is an old copy gets what it misses, and writes with new keys', async () => {
  const clock = new JumpClock();
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example', clock);
  const bob = await rig.client('bob@red.example', clock);
  const id = await alice.client.createConversation({ name: 'copy', members: [bob.userId] });
  await bob.joined();
  await alice.client.send(id, 'one');
  assert.deepEqual(await bob.texts(1), ['one']);
  await bob.close();
  copyFileSync(bob.storePath, `${bob.storePath}.old`);
  await bob.open();
  await bob.start();
  await bob.client.send(id, 'mine');
  await alice.client.send(id, 'two');
  assert.deepEqual(await bob.texts(1), ['two']);
  await delivered(alice, clock, id);
  await bob.close();
  copyFileSync(`${bob.storePath}.old`, bob.storePath);
  const before = bob.events.count;
  await bob.open();
  await bob.start();
  await bob.events.first(({ type }) => type === 'storeRestored', 'storeRestored', before);
  // It takes a new leaf for its own: whatever the lost copy sealed with the old one, nothing is sealed twice.
  await bob.events.first(({ type }) => type === 'cameBack', 'cameBack', before);
  await bob.client.send(id, 'again');
  assert.deepEqual(await alice.texts(2), ['mine', 'again']);
  assert.deepEqual(await whileJumping(clock, secondMs, bob.texts(1)), ['two']);
  await alice.client.send(id, 'three');
  assert.deepEqual(await bob.texts(1), ['three']);
  assert.deepEqual(textsOf(bob, id).toSorted(), ['again', 'one', 'three', 'two']);
  // A new conversation has new keys.
  const next = await bob.client.createConversation({ name: 'new', members: [alice.userId] });
  await bob.client.send(next, 'here again');
  assert.deepEqual(await alice.texts(1), ['here again']);
});
