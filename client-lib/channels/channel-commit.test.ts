/**
 * What commits tell nodes of a channel: a model of one node follows the updates alone, and has the members and
 * the write key of each epoch, from the first one to the last.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  hex,
  isOfItsChannel,
  parseChannelUpdate,
  systemRandom,
  verifyChannelPost,
  verifyChannelUpdate,
} from '@quicprochat/proto';
import { routeOf, type CommitRoute } from './channel-commit.ts';
import { channelOf, channelWriteKey } from './channel.ts';
import { acceptCommit, mandatorySuite, type Change, type MlsGroup } from '../mls/index.ts';
import { groupOf, keyPackageOf, TestWorld } from '../mls/test-members.ts';

/** What the node of red.example knows of one channel. */
class ModelNode {
  readonly rids = new Set<string>();
  cid: Uint8Array = new Uint8Array(0);
  epoch = 0;
  writePub: Uint8Array = new Uint8Array(0);

  take({ updates = [] }: CommitRoute): void {
    assert.deepEqual(
      updates.map(({ domain }) => domain),
      ['red.example'],
    );
    const parsed = parseChannelUpdate(updates[0]?.update ?? new Uint8Array(0));
    const { cid, writePub, add, remove } = parsed.update;
    if (hex(cid) === hex(this.cid)) {
      assert.equal(parsed.epoch, this.epoch + 1);
      assert.ok(verifyChannelUpdate(parsed, this.writePub), 'signed by the epoch before');
    } else {
      assert.ok(isOfItsChannel(parsed.update));
      this.rids.clear();
    }
    Object.assign(this, { cid, epoch: parsed.epoch, writePub });
    for (const { rid } of add) this.rids.add(hex(rid));
    for (const rid of remove) this.rids.delete(hex(rid));
  }
}

test('updates of a channel lead a node from epoch to epoch, and to its end', async () => {
  const world = new TestWorld();
  const alice = world.device('alice');
  const { mls } = alice;
  let [group] = await groupOf(mandatorySuite, [alice, world.device('bob'), world.device('carol')]);
  const node = new ModelNode();

  async function commit(change: Change): Promise<{ route: CommitRoute; before: MlsGroup }> {
    const before = group;
    const made = await mls.commit(before, change);
    const envelope = systemRandom.bytes(100);
    const mid = systemRandom.bytes(16);
    const isRemoval = made.removed.length > 0;
    const way = { mid, envelope, isRemoval };
    const route = await routeOf(mls, before, made.pending, way, () => undefined);
    group = acceptCommit(before, made.pending).next;
    const { channel } = route;
    if (channel !== undefined) {
      const { cid = new Uint8Array(0), epoch = 0n, signature = new Uint8Array(0) } = channel;
      const key = await channelWriteKey(mls, before, cid);
      const post = { cid, epoch: Number(epoch), mid, payload: envelope };
      assert.ok(verifyChannelPost(post, signature, key.publicKey));
    }
    return { route, before };
  }
  const inChannel = async (): Promise<void> => {
    const own = channelOf(group);
    assert.ok(own !== undefined);
    assert.deepEqual(node.cid, own.cid);
    assert.equal(node.epoch, Number(group.epoch));
    assert.deepEqual(node.writePub, (await channelWriteKey(mls, group, own.cid)).publicKey);
    const members = group.members().map(({ identityPub }) => hex(identityPub));
    assert.deepEqual([...node.rids].toSorted(), members.toSorted());
  };
  const withNonce = (nonce: Uint8Array | undefined): Change => ({
    context: { info: { ...group.info, channelNonce: nonce } },
  });

  assert.deepEqual((await commit({})).route, { isDirect: true });
  await commit({ context: { info: { ...group.info, directDevices: 2 } } });
  // The first one goes to everybody: nobody reads the channel yet.
  const first = await commit(withNonce(systemRandom.bytes(32)));
  assert.deepEqual([first.route.isDirect, first.route.channel], [true, undefined]);
  node.take(first.route);
  await inChannel();
  const dave = world.device('dave');
  for (const change of [
    {},
    { add: [(await keyPackageOf(dave, mandatorySuite)).publicBytes] },
    { remove: [1] },
  ]) {
    const { route } = await commit(change);
    assert.deepEqual([route.isDirect, route.channel === undefined], [false, false]);
    node.take(route);
    await inChannel();
  }
  // Another one in its place begins as the first did.
  const fresh = await commit(withNonce(systemRandom.bytes(32)));
  assert.deepEqual([fresh.route.isDirect, fresh.route.channel], [true, undefined]);
  node.take(fresh.route);
  await inChannel();

  await commit({ context: { info: { ...group.info, directDevices: 32 } } }).then(({ route }) =>
    node.take(route),
  );
  const last = await commit(withNonce(undefined));
  assert.deepEqual([last.route.isDirect, last.route.channel === undefined], [true, false]);
  node.take(last.route);
  assert.deepEqual([node.rids.size, node.writePub.length], [0, 0]);
  assert.deepEqual((await commit({})).route, { isDirect: true });
});
