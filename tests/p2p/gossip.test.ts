/** Nodes gossip about key logs: heads spread, partitions heal by pulls, a log with two faces is convicted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkEvidence, nativeSuite } from '@quicprochat/kt-log';
import { systemClock } from '@quicprochat/proto';
import { until } from './devices.ts';
import {
  asPeer,
  connect,
  isConvictedAt,
  logKeys,
  openLog,
  origin,
  startNode,
  type TestNode,
} from '../cluster/gossip-nodes.ts';

test('a fork is convicted by both nodes that saw one branch each, as soon as they meet', async () => {
  const made = logKeys();
  await using one = await openLog(made);
  await using other = await openLog(made);
  await one.append(5);
  await other.append(3);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  assert.equal((await anna.follower.pull(one.source)).status, 'ok');
  assert.equal((await bert.follower.pull(other.source)).status, 'ok');
  const startMs = performance.now();
  await connect(anna, bert);
  while (!(await isConvictedAt(anna)) || !(await isConvictedAt(bert))) {
    assert.ok(performance.now() - startMs < 20_000, 'not convicted');
    await systemClock.sleep(10);
  }
  for (const { store } of [anna, bert]) {
    const [record] = await store.evidence(origin);
    assert(record !== undefined);
    assert.equal(checkEvidence(nativeSuite, record.bytes).origin, origin);
  }
});

test('an honest log: heads of the one make the other pull, and nobody is accused', async () => {
  const made = logKeys();
  await using log = await openLog(made);
  await log.append(2);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  await bert.follower.pull(log.source);
  await connect(anna, bert);
  await until(() => anna.gossip.up.size === 1 && bert.gossip.up.size === 1);
  await until(() => anna.wanted.includes(origin));
  await anna.follower.pull(log.source);
  // While both are connected a new head travels as gossip.
  await log.append(2);
  await bert.follower.pull(log.source);
  anna.wanted.length = 0;
  // Meshes form at gossipsub's heartbeat; publications flood, but only to who is known to listen.
  await until(() => {
    if (anna.wanted.length === 0) void bert.gossip.publishHead();
    return anna.wanted.length > 0;
  });
  for (const node of [anna, bert]) assert.deepEqual(await node.store.evidence(), []);
});

test('evidence reaches a node that was away when it was found, and junk does not', async () => {
  const made = logKeys();
  await using one = await openLog(made);
  await using other = await openLog(made);
  await one.append(4);
  await other.append(4);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  await anna.follower.pull(one.source);
  const note = await other.source.checkpoint();
  assert.equal((await anna.follower.observe({ type: 'note', note })).type, 'conflict');
  await connect(anna, bert);
  await until(() => bert.gossip.up.size === 1);
  const deadlineMs = performance.now() + 20_000;
  while (!(await isConvictedAt(bert))) {
    assert.ok(performance.now() < deadlineMs);
    await systemClock.sleep(10);
  }
  const [record] = await bert.store.evidence(origin);
  assert(record !== undefined);
  const { evidenceShown } = nodeOf(bert);
  const from = anna.key.peerId;
  assert.equal(await evidenceShown(from, record.bytes), 'ignore');
  assert.equal(await evidenceShown(from, record.bytes.subarray(1)), 'reject');
});

test('only listed peers gossip and pull', async () => {
  const made = logKeys();
  await using anna = await startNode(made);
  await using mallory = await startNode(made);
  // Mallory knows Anna; Anna does not list her.
  await mallory.swarm.setPeers([asPeer(anna)]);
  await until(() => mallory.gossip.up.size === 1);
  const pull = mallory.swarm.pull(anna.key.peerId, 916, new Uint8Array());
  await assert.rejects(pull, { reason: 'DISCONNECTED' });
  assert.equal(await mallory.swarm.publish('qpc/kt/1', new Uint8Array(10)), 0);
  assert.equal(anna.gossip.up.size, 0);
  await assert.rejects(mallory.swarm.publish('qpc/kt/1', new Uint8Array(8 * 1024 + 1)), {
    reason: 'TOO_LARGE',
  });
});

function nodeOf(node: TestNode) {
  return {
    evidenceShown: (from: string, bytes: Uint8Array) =>
      node.gossip.events.onGossip('qpc/kt-evidence/1', from, bytes),
  };
}
