/**
 * A node whose database was replaced by an older copy of itself: the clients start over, get
 * everything that is still to come, and nothing twice (docs/protocol/delivery.md, "Faults").
 */
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { test } from 'node:test';
import { openNodeStore } from '@quicprochat/nodes';
import type { LocalNode } from '../cluster/local-node.ts';
import { testRuntime } from '../cluster/local-node.ts';
import { Rig, type RigClient } from './rig.ts';

/** Stops the node, lets `work` at its closed database, and starts it again. */
async function whileStopped(
  node: LocalNode,
  peers: readonly LocalNode[],
  work: (databasePath: string) => void,
): Promise<void> {
  const { databasePath: path, store: limits } = node.config;
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
  work(path);
  node.store = await openNodeStore({ path, key: node.key, limits, runtime: testRuntime });
  await node.start(peers);
}

/** Rows in the inbox of a device of this node. */
async function held({ store }: LocalNode, rid: Uint8Array): Promise<number> {
  assert(store !== undefined);
  return (await store.fetch(rid, 0, 16, 1_000_000)).rows.length;
}

/** Resolves when the node holds nothing more for the client: everything is acked. */
async function acked({ client, node }: RigClient): Promise<void> {
  const { identityPub } = client.whoami();
  while ((await held(node, identityPub)) > 0);
}

test('clients of a node that was restored from an old copy go on, and see nothing twice', async () => {
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example');
  const bob = await rig.client('bob@red.example');
  const id = await alice.client.createConversation({ name: 'backup', members: [bob.userId] });
  await bob.joined();
  await alice.client.send(id, 'before the copy');
  assert.deepEqual(await bob.texts(1), ['before the copy']);
  await acked(bob);
  await whileStopped(rig.red, [rig.blue], (path) => copyFileSync(path, `${path}.old`));
  await alice.client.send(id, 'after the copy');
  assert.deepEqual(await bob.texts(1), ['after the copy']);
  await whileStopped(rig.red, [rig.blue], (path) => copyFileSync(`${path}.old`, path));
  await alice.client.send(id, 'after the restore');
  assert.deepEqual(await bob.texts(1), ['after the restore']);
  assert.deepEqual(bob.client.undecryptable(), []);
});

test('an invitation that a hub elsewhere had brought comes again from its inviter on the same node', async () => {
  await using rig = await Rig.make();
  const bob = await rig.client('bob@blue.example');
  const alice = await rig.client('alice@red.example');
  const carol = await rig.client('carol@red.example');
  const id = await bob.client.createConversation({ name: 'hub of blue', members: [alice.userId] });
  await alice.joined();
  await bob.client.setRole(id, alice.userId, 'admin');
  await acked(carol);
  const { identityPub } = carol.client.whoami();
  await carol.close();
  await whileStopped(rig.red, [rig.blue], (path) => copyFileSync(path, `${path}.old`));
  await alice.client.addMembers(id, [carol.userId]);
  while ((await held(rig.red, identityPub)) === 0);
  await whileStopped(rig.red, [rig.blue], (path) => copyFileSync(`${path}.old`, path));
  await carol.open();
  await carol.start();
  await carol.joined();
});
