/**
 * A hub whose node took new keys: what it certified with those before counts as ever
 * (docs/protocol/group-log.md, "Entries"; docs/operator/federation.md, "New keys for your node").
 */
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { test } from 'node:test';
import { openStore } from '@quicprochat/client-lib/store';
import { finishRotation, loadSecrets, prepareRotation, type NodeStore } from '@quicprochat/nodes';
import { hex, systemRandom } from '@quicprochat/proto';
import { fromBinary, NodeRecordSchema, SignedNodeRecordSchema } from '@quicprochat/proto/messages';
import { testRuntime, type LocalNode } from '../cluster/local-node.ts';
import { Rig, type RigClient } from './rig.ts';

/** Whether a record names the keys of a node's own, and no other ones. */
function isNewest(record: Uint8Array | undefined, { secrets }: LocalNode): boolean {
  assert(secrets !== undefined);
  if (record === undefined) return false;
  const { record: bytes } = fromBinary(SignedNodeRecordSchema, record);
  const shown = fromBinary(NodeRecordSchema, bytes).keys.map((key) => hex(key.spkiSha256));
  return shown.join() === secrets.recordKeys.map((key) => hex(key.spkiSha256)).join();
}

/** Whether a closed client has the newest record of a node. */
function hasRecord({ storePath, storeKey }: RigClient, node: LocalNode): boolean {
  using store = openStore(storePath, storeKey);
  return isNewest(store.logs.pinned(node.domain)?.record, node);
}

/** Comes online until it has that record. */
async function learn(one: RigClient, node: LocalNode): Promise<void> {
  await one.close();
  for (let tries = 0; !hasRecord(one, node); tries += 1) {
    assert.ok(tries < 20, `${one.userId} knows ${node.domain} by older keys`);
    await one.open();
    await one.start();
    await testRuntime.clock.sleep(500);
    await one.close();
  }
  await one.open();
  await one.start();
}

/** One step of a rotation; the peer has the record of it afterwards. */
async function take(
  node: LocalNode,
  peer: LocalNode,
  step: (store: NodeStore) => Promise<unknown>,
): Promise<void> {
  const { store } = node;
  assert(store !== undefined);
  await node.node?.stop();
  await step(store);
  node.secrets = await loadSecrets(store, systemRandom);
  await node.start([peer]);
  const isKnown = async (): Promise<boolean> => {
    const records = (await peer.store?.peerRecords()) ?? [];
    return isNewest(records.find(({ domain }) => domain === node.domain)?.record, node);
  };
  for (let tries = 1; !(await isKnown()); tries += 1) {
    assert.ok(tries < 200, `${node.domain} is known by older keys`);
    await testRuntime.clock.sleep(50);
    // A record that was in no log yet when the peer asked is asked for ten minutes later, or over another link.
    if (tries % 40 === 0) {
      await node.node?.stop();
      await node.start([peer]);
    }
  }
}

test('a device that lost its place comes back behind an entry of the old keys', async () => {
  await using rig = await Rig.make();
  const { red, blue } = rig;
  const nowMs = testRuntime.clock.now();
  const alice = await rig.client('alice@red.example');
  const bob = await rig.client('bob@blue.example');
  const id = await alice.client.createConversation({ name: 'hub of red', members: [bob.userId] });
  await bob.joined();
  await take(red, blue, (store) => prepareRotation(store, systemRandom, nowMs));
  await learn(alice, red);
  await take(red, blue, (store) => finishRotation(store, nowMs, true));
  // The hub's word for this one has bob ask for its record: the old key is one that was given up there.
  const { count } = bob.events;
  await alice.client.createConversation({ name: 'of the new keys', members: [bob.userId] });
  await bob.events.first(({ type }) => type === 'joined', 'bob to join the second one', count);
  await bob.close();
  assert.ok(hasRecord(bob, red));

  copyFileSync(bob.storePath, `${bob.storePath}.old`);
  await bob.open();
  await bob.start();
  await bob.client.send(id, 'in no copy of the store');
  await alice.client.send(id, 'nor this');
  assert.deepEqual(await alice.texts(1), ['in no copy of the store']);
  assert.deepEqual(await bob.texts(1), ['nor this']);
  // What the node let go tells a copy that it is one.
  const { identityPub } = bob.client.whoami();
  while (((await blue.store?.fetch(identityPub, 0, 1, 1_000_000))?.rows.length ?? 0) > 0);
  await bob.close();
  copyFileSync(`${bob.storePath}.old`, bob.storePath);
  await bob.open();
  await bob.start();
  await bob.events.first(
    (event) => event.type === 'cameBack' && hex(event.conversationId) === hex(id),
    'bob to come back',
  );
  await bob.client.send(id, 'back again');
  assert.deepEqual(await alice.texts(1), ['back again']);
});
