/** Contract of a NodeStore as the hub of groups: one history, and what follows from each commit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  groupChannelSeed,
  signChannelPost,
  signingKeyFromSeed,
  systemRandom,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  GroupLogResponseSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import type { AcceptedCommit, GroupTarget, OfferedCommit } from '../group-store.ts';
import type { NodeStore } from '../store.ts';
import { TestGroup } from './channel-group.ts';
import {
  addDevice,
  bigLimits,
  dayMs,
  hex,
  newRow,
  smallLimits,
  storeFixture,
  type OpenStore,
} from './fixture.ts';
import { TestCommitter } from './group-committer.ts';

const red = 'red.example';
const blue = 'blue.example';
const none = new Uint8Array(0);
const badField = { name: 'InvalidArgumentError', reason: 'BAD_FIELD' };
const badSignature = { name: 'InvalidArgumentError', reason: 'BAD_SIGNATURE' };

export function groupContract(open: OpenStore): void {
  test('a group begins once, with an entry that proves its key', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const group = new TestCommitter();
    const first = group.newGroup(alice);
    const made = await store.createGroup(first);
    assert.equal(made.isNew, true);
    assert.deepEqual(hashOf(made), first.certified.entry?.entry);
    assert.deepEqual(await store.createGroup(first), { ...made, isNew: false });
    const rival = { ...first, ...group.certify(group.sign(undefined, { removal: true })) };
    await assert.rejects(store.createGroup(rival), { reason: 'NAME_TAKEN' });
    const other = new TestCommitter();
    const stranger = signingKeyFromSeed(systemRandom.bytes(32));
    const forged = other.certify(other.sign(undefined, { key: stranger }));
    await assert.rejects(store.createGroup({ ...first, ...forged }), badSignature);
    const unknown = other.newGroup(systemRandom.bytes(32));
    await assert.rejects(store.createGroup(unknown), { reason: 'UNKNOWN_DEVICE' });
    await assert.rejects(store.createGroup({ ...other.newGroup(alice), hubs: [] }), badField);
    const nowhere = { name: 'NotFoundError', reason: 'UNKNOWN_GROUP' };
    await assert.rejects(store.groupLog(other.groupId, none, 9), nowhere);
    await assert.rejects(store.submitCommit(other.offer(first.parsed)), nowhere);
  });

  test('one commit wins an epoch; the loser gets what it has to apply', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, first } = await groupOf(store);
    const winner = group.offer(first);
    const loser = group.offer(first);
    const accepted = await store.submitCommit(winner);
    assert.equal(accepted.isNew, true);
    const details = await conflictOf(store.submitCommit(loser));
    assert.deepEqual(
      details.entries.map(({ commit }) => hex(commit)),
      [hex(winner.commit)],
    );
    assert.equal(details.hasMore, false);
    // The winner's answer was lost: it asks again with the same bytes, and once more much later.
    assert.deepEqual(await store.submitCommit(winner), { ...accepted, isNew: false });
    const second = group.offer(winner.parsed);
    await store.submitCommit(second);
    assert.deepEqual(await store.submitCommit(winner), { ...accepted, isNew: false });
    assert.equal((await conflictOf(store.submitCommit(loser))).entries.length, 2);
    const { controls, hasMore } = await store.groupLog(group.groupId, none, 9);
    assert.equal(hasMore, false);
    assert.deepEqual(
      controls.map((control) => hex(fromBinary(GroupControlSchema, control).commit)),
      ['', hex(winner.commit), hex(second.commit)],
    );
  });

  test('a commit without the right parent, epoch or key is refused', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, first } = await groupOf(store);
    const winner = group.offer(first);
    await store.submitCommit(winner);
    const tip = winner.parsed;
    const stranger = signingKeyFromSeed(systemRandom.bytes(32));
    const bad: readonly (readonly [OfferedCommit, object])[] = [
      [group.offer(tip, {}, { key: stranger }), badSignature],
      [group.offer(tip, {}, { key: group.keys(0).commit }), badSignature],
      [group.offer(tip, {}, { key: group.keys(2).commit }), badSignature],
      [group.offer(tip, {}, { epoch: 3n }), badField],
      [group.offer(tip, {}, { commitHash: systemRandom.bytes(32) }), badField],
      [group.offer(tip, { mid: new Uint8Array(15) }), badField],
      [group.offer(tip, { targets: [{ rid: new Uint8Array(31), token: none }] }), badField],
    ];
    for (const [offer, refusal] of bad) await assert.rejects(store.submitCommit(offer), refusal);
    const lost = group.offer(tip, {}, { parent: systemRandom.bytes(32) });
    assert.equal((await conflictOf(store.submitCommit(lost))).entries.length, 2, 'all there is');
    assert.equal((await store.groupLog(group.groupId, none, 9)).controls.length, 2);
    // An external commit is signed with the join key of its parent.
    const external = group.offer(tip, {}, { key: group.keys(1).join });
    assert.equal((await store.submitCommit(external)).isNew, true);
  });

  test('a child that nobody can apply is passed over by one that rejects it', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, first } = await groupOf(store);
    const rejects: Uint8Array[] = [];
    for (let index = 0; index < 5; index += 1) {
      const offer = group.offer(first, {}, { rejects: [...rejects] });
      await store.submitCommit(offer);
      rejects.push(offer.parsed.hash);
      await conflictOf(store.submitCommit(group.offer(first)));
      const some = group.offer(first, {}, { rejects: rejects.slice(1) });
      await conflictOf(store.submitCommit(some));
    }
    assert.equal((await store.groupLog(group.groupId, none, 9)).controls.length, 6);
  });

  test('who knows the key of an entry is shown its children, and nothing behind them', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, first } = await groupOf(store);
    const other = await groupOf(store);
    const { groupId } = group;
    const bad = group.offer(first);
    const good = group.offer(first, {}, { rejects: [bad.parsed.hash] });
    const next = group.offer(good.parsed);
    for (const offer of [bad, good, next]) await store.submitCommit(offer);
    const shown = async (parent: Uint8Array, after: Uint8Array, max: number) => {
      const { controls, hasMore } = await store.childEntries(groupId, parent, after, max);
      const commits = controls.map((one) => hex(fromBinary(GroupControlSchema, one).commit));
      return [commits, hasMore] as const;
    };
    const [ofBad, ofGood, ofNext] = [bad, good, next].map(({ commit }) => hex(commit));
    assert.deepEqual(await shown(first.hash, none, 9), [[ofBad, ofGood], false]);
    assert.deepEqual(await shown(first.hash, none, 1), [[ofBad], true]);
    assert.deepEqual(await shown(first.hash, bad.parsed.hash, 9), [[ofGood], false]);
    assert.deepEqual(await shown(bad.parsed.hash, none, 9), [[], false]);
    assert.deepEqual(await shown(good.parsed.hash, none, 9), [[ofNext], false]);
    assert.deepEqual(await store.entryKey(groupId, first.hash), {
      commitPub: group.keys(0).commit.publicKey,
      children: [bad.parsed.hash, good.parsed.hash],
    });
    assert.deepEqual((await store.entryKey(groupId, next.parsed.hash))?.children, []);
    assert.equal(await store.entryKey(groupId, other.first.hash), undefined);
    assert.equal(await store.entryKey(systemRandom.bytes(32), first.hash), undefined);
    const nowhere = store.childEntries(systemRandom.bytes(32), first.hash, none, 9);
    await assert.rejects(nowhere, { reason: 'UNKNOWN_GROUP' });
  });

  test('rows of the commit, Welcomes, updates and GroupInfo come with the acceptance, or not at all', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group, first, creator: alice } = await groupOf(store);
    const bob = await addDevice(store, 'bob');
    const carol = systemRandom.bytes(32);
    const channel = new TestGroup([red], 0, group.channelSeed);
    await store.createChannel(alice, channel.asNew());
    const { cid } = channel;
    const [commit, mid] = [systemRandom.bytes(300), systemRandom.bytes(16)];
    const signature = signChannelPost({ cid, epoch: 0, mid, payload: commit }, channel.writeKey(0));
    channel.epoch = 1;
    const groupInfo = systemRandom.bytes(500);
    const welcomeOf = (rid: Uint8Array, peer?: string) => ({
      target: { rid, token: none, ...(peer === undefined ? {} : { peer }) },
      mid: systemRandom.bytes(16),
      welcome: systemRandom.bytes(150),
    });
    const welcomes = [welcomeOf(bob), welcomeOf(carol, blue)];
    const add = [{ rid: bob, token: none }];
    const addCarol = [{ rid: carol, token: none }];
    const changes: Partial<OfferedCommit> = {
      ...{ commit, mid, welcomes, groupInfo, sender: alice },
      channelNonce: group.channelNonce,
      channel: { cid, epoch: 0, signature, peers: [blue], denied: ['evil.example'] },
      targets: [
        { rid: alice, token: none },
        { rid: systemRandom.bytes(32), token: none },
        { rid: carol, peer: blue, token: none },
        { rid: systemRandom.bytes(32), peer: blue, token: systemRandom.bytes(16) },
      ],
      updates: [
        { payload: channel.signed({ add }) },
        { peer: blue, payload: channel.signed({ add: addCarol }) },
      ],
    };
    const nothing = async (): Promise<void> => {
      assert.equal((await store.fetch(alice, 0, 9, 9_999)).head, 0);
      assert.equal((await store.fetch(bob, 0, 9, 9_999)).head, 0);
      assert.equal((await store.fetchChannel(alice, { cid, after: 0 }, 9, 9_999)).head, 0);
      assert.deepEqual(await store.readOutbox(blue, 'control', 0, 9, 9_999), []);
      assert.equal(await store.groupInfo(group.groupId), undefined);
      assert.equal((await store.channelMembers(alice, cid)).epoch, 0);
    };
    const { channel: post, updates = [] } = changes;
    assert.ok(post !== undefined);
    // Of another group of this hub, of nobody, and with the seed of this group under another's id.
    const foreign = new TestGroup([red], 1, groupChannelSeed(systemRandom.bytes(32), mid));
    const borrowed = { seed: channel.seed };
    const wrong: readonly (readonly [Partial<OfferedCommit>, object])[] = [
      [{ channel: { ...post, signature: systemRandom.bytes(64) } }, badSignature],
      [{ channel: { ...post, epoch: 1 } }, badField],
      [{ updates: [{ payload: foreign.signed() }] }, badField],
      [{ updates: [{ payload: foreign.signed() }], channelNonce: mid }, badField],
      [{ updates: [{ payload: foreign.signed(borrowed) }] }, badField],
      [{ channelNonce: none }, badField],
      [{ updates: [{ payload: channel.signed({ removal: true }) }] }, badField],
      [{ updates: [...updates, ...updates] }, badField],
      [{ updates: [{ payload: systemRandom.bytes(40) }] }, badField],
    ];
    for (const [change, refusal] of wrong) {
      const offer = group.offer(first, { ...changes, ...change });
      await assert.rejects(store.submitCommit(offer), refusal);
      await nothing();
    }
    // A conflict leaves no trace either: the Welcome of a loser is never seen.
    const heard = new Set<string>();
    using _listening = store.onRows((key) => heard.add(key));
    const offer = group.offer(first, changes);
    const { control } = await store.submitCommit(offer);
    const loser = group.offer(first, { ...changes, commit: systemRandom.bytes(300) });
    await conflictOf(store.submitCommit(loser));

    const { rows: inChannel } = await store.fetchChannel(alice, { cid, after: 0 }, 9, 9_999);
    assert.deepEqual(
      inChannel.map((row) => [row.kind, row.mid, row.payload]),
      [[2, mid, control]],
    );
    const { rows: ofAlice } = await store.fetch(alice, 0, 9, 9_999);
    // Its own copy, and bounces: the denied domain, and the target that is no device.
    assert.deepEqual(
      ofAlice.map(({ kind }) => kind),
      [4, 2, 4],
    );
    const { rows: ofBob } = await store.fetch(bob, 0, 9, 9_999);
    const welcomed = fromBinary(GroupControlSchema, ofBob[0]?.payload ?? none);
    assert.deepEqual([ofBob.length, welcomed.welcome], [1, welcomes[0]?.welcome]);
    assert.deepEqual(welcomed.entry?.entry?.entry, offer.parsed.signedBytes);
    assert.deepEqual((await store.channelMembers(bob, cid)).epoch, 1);
    assert.deepEqual((await store.fetchChannel(bob, { cid, after: 0 }, 9, 9_999)).rows, []);
    assert.deepEqual(await store.groupInfo(group.groupId), {
      entry: offer.parsed.hash,
      bytes: groupInfo,
    });
    assert.deepEqual([...heard].toSorted(), [hex(cid), hex(alice), hex(bob)].toSorted());

    const outbox = await store.readOutbox(blue, 'control', 0, 9, 99_999);
    assert.deepEqual(
      outbox.map(({ kind, rids, channel: mark }) => [kind, rids.map(hex), mark?.epoch]),
      [
        [2, [hex(cid)], 0],
        [3, [hex(cid)], 1],
        [2, (changes.targets ?? []).slice(2).map(({ rid }) => hex(rid)), undefined],
        [2, [hex(carol)], undefined],
      ],
    );
    // At blue: the update subscribes carol, the post is none of hers, the Welcome is.
    const blueSide = await storeFixture(open, bigLimits);
    await using _blue = blueSide.fixture;
    const [, update] = outbox;
    await assert.rejects(blueSide.store.applyChannelUpdate(red, update?.payload ?? none), {
      reason: 'UNKNOWN_CHANNEL',
    });
  });

  test('the commit in a channel row is what its writer signed; the hub adds its word', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const channel = new TestGroup([blue]);
    await store.applyChannelUpdate(blue, channel.advance({ add: [{ rid: alice, token: none }] }));
    const { cid, epoch } = channel;
    const committer = new TestCommitter(blue);
    const first = committer.newGroup(alice).parsed;
    const offer = committer.offer(first);
    const mid = systemRandom.bytes(16);
    const payload = offer.commit;
    const signature = signChannelPost({ cid, epoch, mid, payload }, channel.writeKey(epoch));
    const { certified } = offer;
    const control = (commit: Uint8Array): Uint8Array =>
      toBinary(GroupControlSchema, create(GroupControlSchema, { entry: certified, commit }));
    const relay = (bytes: Uint8Array, firstSeq: number, from = blue) =>
      store.applyRelay(from, {
        ...{ lane: 'control', streamId: new Uint8Array(16), acked: 0, firstSeq },
        items: [
          {
            ...{ kind: 2, mid, payload: bytes, rids: [cid], ttlMs: dayMs },
            channel: { epoch, signature },
          },
        ],
      });
    const reasons = async (applied: ReturnType<typeof relay>) =>
      (await applied).rejects.map(({ reason }) => reason);
    assert.deepEqual(await reasons(relay(control(systemRandom.bytes(9)), 1)), ['BAD_SIGNATURE']);
    assert.deepEqual(await reasons(relay(systemRandom.bytes(40), 2)), [
      'BAD_SIGNATURE',
      'BAD_FIELD',
    ]);
    // Whoever has read the post could make any number of such rows: only a hub's are taken.
    assert.deepEqual(await reasons(relay(control(offer.commit), 1, red)), ['PEER_DENIED']);
    await relay(control(offer.commit), 3);
    const { rows } = await store.fetchChannel(alice, { cid, after: 0 }, 9, 9_999);
    assert.deepEqual(
      rows.map(({ kind }) => kind),
      [2],
    );
  });

  test('a Welcome for several devices is one row for all of a node, with a key for each', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group, first } = await groupOf(store);
    const here = [await addDevice(store, 'bob'), await addDevice(store, 'carol')];
    const there = [systemRandom.bytes(32), systemRandom.bytes(32)];
    const mid = systemRandom.bytes(16);
    const targets: GroupTarget[] = [
      ...here.map((rid) => ({ rid, token: none })),
      ...there.map((rid) => ({ rid, token: none, peer: blue })),
    ];
    const sharedWelcome = systemRandom.bytes(400);
    const welcomes = targets.map((target) => ({ target, mid, welcome: systemRandom.bytes(50) }));
    await store.submitCommit(group.offer(first, { welcomes, sharedWelcome }));
    for (const rid of here) {
      const { rows } = await store.fetch(rid, 0, 9, 9_999);
      const control = fromBinary(GroupControlSchema, rows[0]?.payload ?? none);
      assert.deepEqual([rows.length, rows[0]?.mid, control.welcome], [1, mid, sharedWelcome]);
      assert.deepEqual(
        control.welcomeKeys,
        welcomes.map(({ welcome }) => welcome),
      );
    }
    const outbox = await store.readOutbox(blue, 'control', 0, 9, 9_999);
    assert.deepEqual(
      outbox.map(({ kind, mid: rowMid, rids }) => [kind, rowMid, rids.map(hex)]),
      [[2, mid, there.map(hex)]],
    );
  });

  test('members that cannot be reached do not keep a commit from being accepted', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const { group, first, creator: alice } = await groupOf(store);
    const bob = await addDevice(store, 'bob');
    for (let index = 0; index < smallLimits.inboxRows; index += 1) {
      await store.enqueue(newRow(bob));
      await store.enqueueRemote(blue, newRow(systemRandom.bytes(32)));
    }
    const targets: GroupTarget[] = [
      { rid: bob, token: none },
      { rid: systemRandom.bytes(32), peer: blue, token: none },
    ];
    const offer = group.offer(first, { targets, sender: alice });
    assert.equal((await store.submitCommit(offer)).isNew, true);
    const { rows } = await store.fetch(alice, 0, 9, 9_999);
    assert.deepEqual(
      rows.map(({ kind }) => kind),
      [4, 4],
      'its committer is told',
    );
  });

  test('the log is read in pages, and by a hash that is gone from its beginning', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const { group, first } = await groupOf(store);
    const entries = [first];
    for (let index = 0; index < 6; index += 1) {
      const offer = group.offer(entries.at(-1) ?? first, { commit: systemRandom.bytes(200_000) });
      await store.submitCommit(offer);
      entries.push(offer.parsed);
    }
    const page = async (after: Uint8Array, max: number) => {
      const { controls, hasMore } = await store.groupLog(group.groupId, after, max);
      return [controls.length, hasMore];
    };
    assert.deepEqual(await page(none, 2), [2, true]);
    assert.deepEqual(await page(none, 64), [3, true], 'as many as 512 KiB hold');
    assert.deepEqual(await page(entries[5]?.hash ?? none, 64), [1, false]);
    assert.deepEqual(await page(entries[6]?.hash ?? none, 64), [0, false]);
    assert.deepEqual(await page(systemRandom.bytes(32), 1), [1, true]);
    // What is older than 90 days goes, but for the newest.
    fixture.nowMs += 91 * dayMs;
    await store.sweep();
    assert.deepEqual(await page(none, 1), [1, true]);
    for (let index = 0; index < 5; index += 1) {
      const offer = group.offer(entries.at(-1) ?? first);
      await store.submitCommit(offer);
      entries.push(offer.parsed);
    }
    await store.sweep();
    const { controls } = await store.groupLog(group.groupId, none, 1);
    const oldest = fromBinary(GroupControlSchema, controls[0] ?? none);
    assert.deepEqual(oldest.entry?.entry?.entry, entries[4]?.signedBytes);
  });
}

async function groupOf(store: NodeStore) {
  const creator = await addDevice(store, `maker-${hex(systemRandom.bytes(4))}`);
  const group = new TestCommitter();
  const made = group.newGroup(creator);
  await store.createGroup(made);
  return { group, first: made.parsed, creator };
}

function hashOf({ control }: AcceptedCommit): Uint8Array | undefined {
  return fromBinary(GroupControlSchema, control).entry?.entry?.entry;
}

/** The entries that a refused committer is given. */
async function conflictOf(submitting: Promise<AcceptedCommit>) {
  const error = await submitting.then(
    () => assert.fail('expected EPOCH_CONFLICT'),
    (thrown: unknown) => thrown as Error & { reason?: string; details?: Uint8Array },
  );
  assert.equal(error.reason, 'EPOCH_CONFLICT', error.message);
  return fromBinary(GroupLogResponseSchema, error.details ?? none);
}
