/**
 * How much of a node one device, or one peer, may take up with channels and groups: at each bound the next is
 * refused and leaves nothing behind, what is there goes on, and others have room.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { TestGroup } from './contract/channel-group.ts';
import { addDevice, bigLimits, StoreFixture } from './contract/fixture.ts';
import { TestCommitter } from './contract/group-committer.ts';
import { openDatabase } from './database.ts';
import { openNodeStoreInThread } from './open.ts';
import { channelBounds } from './queries/channels-members.ts';
import { groupBounds } from './queries/groups-log.ts';

const quota = { name: 'ResourceExhaustedError', reason: 'QUOTA' };
const [own, blue, green] = ['red.example', 'blue.example', 'green.example'];

/** A store with two devices, and so many rows as the statements make of the first device's number. */
async function crowded(...statements: readonly string[]) {
  const fixture = new StoreFixture();
  await fixture.create();
  const before = await fixture.open(openNodeStoreInThread, bigLimits);
  const [alice, bob] = [await addDevice(before, 'alice'), await addDevice(before, 'bob')];
  await before[Symbol.asyncDispose]();
  const db = openDatabase(fixture.path, fixture.key, {});
  try {
    const sql = 'SELECT id FROM device WHERE identity_pub = ?';
    const device = db.prepare<[Uint8Array], number>(sql).pluck().get(alice);
    for (const statement of statements) db.prepare(statement).run({ device });
  } finally {
    db.close();
  }
  const store = await fixture.open(openNodeStoreInThread, bigLimits);
  return { fixture, store, alice, bob };
}

/** `rows`: a table n with that many numbers, from a million on. */
const numbers = (rows: number): string =>
  `WITH RECURSIVE n (n) AS (SELECT 1000000 UNION ALL SELECT n + 1 FROM n WHERE n < ${1_000_000 + rows - 1})`;

test('one device subscribes to a number of channels; a hub that adds it to more adds only the others', async () => {
  const { fixture, store, alice, bob } = await crowded(
    `${numbers(channelBounds.perDevice - 1)} INSERT INTO channel_cursor
       (log, device, joined, acked, lease_until_ms, is_live) SELECT n, :device, 0, 0, 1e15, 1 FROM n`,
  );
  await using _ = fixture;
  const last = new TestGroup();
  assert.deepEqual(await store.createChannel(alice, last.asNew()), { wasNew: true });
  const above = new TestGroup();
  await assert.rejects(store.createChannel(alice, above.asNew()), quota);
  assert.deepEqual(await store.createChannel(alice, last.asNew()), { wasNew: false });
  assert.deepEqual(await store.createChannel(bob, above.asNew()), { wasNew: true });
  const remote = new TestGroup([blue], 3);
  const add = [alice, bob].map((rid) => ({ rid, token: new Uint8Array(0) }));
  await store.applyChannelUpdate(blue, remote.advance({ add }));
  assert.deepEqual((await store.channelMembers(bob, remote.cid)).rids, [bob]);

  // Where it is the only one, posts pass as in a channel that everybody left, and nobody waits for an update.
  const lone = new TestGroup([blue], 3);
  await store.applyChannelUpdate(blue, lone.advance({ add: add.slice(0, 1) }));
  await store.applyChannelUpdate(blue, lone.advance());
  assert.equal((await store.postToChannel(lone.post())).outcome, 'stored');
  const start = { cid: lone.cid, after: 0 };
  await assert.rejects(store.fetchChannel(alice, start, 9, 1e6), { ...quota, details: lone.cid });
  const stranger = new TestGroup([blue], 3);
  const unknown = [{ rid: randomBytes(32), token: new Uint8Array(0) }];
  await assert.rejects(store.applyChannelUpdate(blue, stranger.advance({ add: unknown })), {
    reason: 'UNKNOWN_CHANNEL',
  });
});

test('one peer begins a number of channels here', async () => {
  const { fixture, store, bob } = await crowded(
    `${numbers(channelBounds.perMaker)} INSERT INTO channel (log, hubs, epoch, made_by)
       SELECT n, '${blue}', 0, '${blue}' FROM n`,
  );
  await using _ = fixture;
  const add = [{ rid: bob, token: new Uint8Array(0) }];
  const above = new TestGroup([blue], 3);
  await assert.rejects(store.applyChannelUpdate(blue, above.advance({ add })), quota);
  await assert.rejects(store.channelMembers(bob, above.cid), { reason: 'UNKNOWN_CHANNEL' });
  const others = new TestGroup([green], 3);
  await store.applyChannelUpdate(green, others.advance({ add }));
  assert.deepEqual((await store.channelMembers(bob, others.cid)).rids, [bob]);
});

test('one device begins a number of groups', async () => {
  const { fixture, store, alice, bob } = await crowded(
    `${numbers(groupBounds.perCreator - 1)} INSERT INTO hub_group (group_id, hubs, creator)
       SELECT randomblob(32), '${own}', :device FROM n`,
  );
  await using _ = fixture;
  const last = new TestCommitter().newGroup(alice);
  assert.equal((await store.createGroup(last)).isNew, true);
  const above = new TestCommitter();
  await assert.rejects(store.createGroup(above.newGroup(alice)), quota);
  await assert.rejects(store.groupLog(above.groupId, new Uint8Array(0), 1), {
    reason: 'UNKNOWN_GROUP',
  });
  assert.equal((await store.createGroup(last)).isNew, false);
  assert.equal((await store.createGroup(above.newGroup(bob))).isNew, true);
});

test('one peer brings a number of groups that it leads', async () => {
  const { fixture, store } = await crowded(
    `${numbers(groupBounds.perPeer)} INSERT INTO hub_group (group_id, hubs, made_by)
       SELECT randomblob(32), '${blue} ${green} ${own}', '${blue}' FROM n`,
  );
  await using _ = fixture;
  const hubs = [blue, green, own];
  const install = (from: string) => {
    const group = new TestCommitter(from);
    const { parsed, certified } = group.certify(group.sign(undefined));
    const none = new Uint8Array(0);
    const entries = [{ parsed, certified, commit: none }];
    const info = { groupInfo: none, groupInfoEntry: none };
    const fields = { hubs, from, position: 1, entries, isRepair: true, ...info };
    return store.installEntries({ group: group.groupId, ...fields });
  };
  await assert.rejects(install(blue), quota);
  assert.equal((await install(green)).position, 1);
});
