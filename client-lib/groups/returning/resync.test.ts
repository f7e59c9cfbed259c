/** Devices that lost their place in a group come back by themselves, and nobody else comes in that way. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { hex, methods, sameBytes, TransportError } from '@quicprochat/proto';
import {
  fromBinary,
  SubmitCommitRequestSchema,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { epochJoinKeys, openJoinState, sealJoinState } from './group-info.ts';
import { sealCommit } from '../log/group-log.ts';
import { MlsGroup as MlsGroupValue, stateOf } from '../../mls/group.ts';
import { createMls, encodeCold, encodeHot, mandatorySuite } from '../../mls/index.ts';
import { returnRequest } from './resync-request.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import type { ResyncRow, SentReturn } from '../../store/resync-rows.ts';
import { company as companyOf, groupOf, type Company } from '../../test-company.ts';
import { assertHas, exchange, TestDevice, testStoreId } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { testRuntime } from '../../test-runtime.ts';

const company = (): Promise<Company> => companyOf([mandatorySuite]);

async function assertOne(id: Uint8Array, ...devices: readonly TestDevice[]): Promise<void> {
  const groups = await Promise.all(devices.map((device) => groupOf(device, id)));
  assert.equal(new Set(groups.map(({ epochAuthenticator }) => hex(epochAuthenticator))).size, 1);
  for (const { store } of devices) {
    assert.equal(store.groups.conversation(id)?.ended, undefined);
    assert.deepEqual(store.groupLog.pendings(id), []);
  }
}

/** A commit that bob never hears of, and that the hub keeps no entry of any more. */
async function lose(
  { directory, bob, id }: Company,
  by: TestDevice,
  commit: () => Promise<void> = () => by.conversations.rotateKeys(id),
): Promise<void> {
  await commit();
  await commit();
  directory.hub.takeRows(by.rid, bob.rid);
  directory.hub.restore(id, directory.hub.copyOf(id).slice(-1));
  await bob.groups.pull.pull(id);
}

/** One try, now; what waits in the store. */
async function tryBack(
  { clock, id }: Pick<Company, 'clock' | 'id'>,
  device: TestDevice,
): Promise<ResyncRow | undefined> {
  clock.advance(3_600_000);
  await device.groups.resyncs.run();
  await device.settle();
  return device.store.resync.get(id);
}

function flipped(bytes: Uint8Array): Uint8Array {
  const out = bytes.slice();
  out[out.length - 1] = (out.at(-1) ?? 0) ^ 1;
  return out;
}

const told = (device: TestDevice, type: 'leftBehind' | 'cameBack' | 'stillBehind') =>
  device.events.flatMap((event) => {
    if (event.type !== type) return [];
    return [event.type === 'stillBehind' ? event.reason : event.cause];
  });

/** Its way back as far as the store: nobody answers when it is sent. */
async function writtenDown(
  them: Company,
  device: TestDevice,
): Promise<{ readonly sent: SentReturn; readonly submit: SubmitCommitRequest }> {
  const { hub } = them.directory;
  hub.beforeSubmit = async () => {
    throw new TransportError('timeout', 'nobody answers');
  };
  const { sent } = (await tryBack(them, device)) ?? {};
  assert(sent !== undefined);
  hub.beforeSubmit = undefined;
  return { sent, submit: fromBinary(SubmitCommitRequestSchema, sent.request) };
}

describe('a device that the hub keeps no commits for', () => {
  test('says so, writes nothing, comes back, and goes on', async () => {
    const them = await company();
    const { alice, bob, carol, id } = them;
    await lose(them, alice);
    assert.deepEqual(told(bob, 'leftBehind'), ['GAP']);
    assert.equal(bob.store.groups.conversation(id)?.ended, 'BEHIND');
    await assert.rejects(bob.conversations.send(id, 'lost'), { reason: 'CONVERSATION_ENDED' });
    await alice.conversations.send(id, 'while away');
    assert.equal((await tryBack(them, bob))?.isDone, true);
    assert.deepEqual(told(bob, 'cameBack'), ['GAP']);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    await bob.conversations.send(id, 'back');
    await alice.conversations.send(id, 'welcome');
    await bob.conversations.rotateKeys(id);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    assertHas(carol, id, ['while away', 'back', 'welcome']);
    // The next time within an hour waits for its end, unless the clock was wrong when that was written down.
    await lose(them, alice);
    const row = bob.store.resync.get(id);
    assert(row !== undefined && !row.isDone);
    await bob.groups.resyncs.run();
    assert.equal(bob.store.resync.get(id)?.tries, 0);
    bob.store.resync.put({ ...row, dueMs: them.clock.now() + 60 * 24 * 3_600_000 });
    await bob.groups.resyncs.run();
    assert.equal(bob.store.resync.get(id)?.isDone, true);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
  });

  test('is kept out by a hub that lies, and by that only', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    const { hub } = directory;
    await alice.conversations.rotateKeys(id);
    const old = hub.infoOf(id);
    await lose(them, alice);
    const good = hub.infoOf(id);
    const lies: readonly (readonly [string, typeof good])[] = [
      ['NO_GROUP_INFO', old],
      ['NO_GROUP_INFO', { ...good, bytes: new Uint8Array(0) }],
      // Of an older entry, under the name of the newest.
      ['FORGED_GROUP_INFO', { ...good, bytes: old.bytes }],
      ['FORGED_GROUP_INFO', { ...good, bytes: testRuntime.random.bytes(400) }],
      ['FORGED_GROUP_INFO', { ...good, bytes: flipped(good.bytes) }],
    ];
    for (const [reason, lie] of lies) {
      hub.putInfo(id, lie);
      const row = await tryBack(them, bob);
      assert.deepEqual([row?.reason, row?.sent, row?.isDone], [reason, undefined, false]);
    }
    assert.deepEqual(told(bob, 'stillBehind'), ['NO_GROUP_INFO', 'FORGED_GROUP_INFO']);
    hub.putInfo(id, good);
    assert.equal((await tryBack(them, bob))?.isDone, true);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
  });

  test('believes a member what the rules let that member change, and no more', async () => {
    const them = await company();
    const { directory, clock, alice, bob, carol, id } = them;
    const dave = new TestDevice('dave@red.example', directory, { clock, suites: [mandatorySuite] });
    await alice.conversations.addMembers(id, [dave.userId]);
    for (const row of directory.hub.takeRows(alice.rid, carol.rid)) await carol.receive(row);
    // A newcomer is there, and it is carol who says so.
    await lose(them, carol);
    directory.hub.takeRows(alice.rid, bob.rid);
    assert.equal((await tryBack(them, bob))?.reason, 'UNVOUCHED');
    for (const row of directory.hub.takeRows(carol.rid, alice.rid)) await alice.receive(row);
    await alice.conversations.rotateKeys(id);
    assert.equal((await tryBack(them, bob))?.isDone, true);
    await exchange(alice, bob, carol, dave);
    await assertOne(id, alice, bob, carol, dave);
  });

  test('looks up whom no log knows less and less often', async () => {
    const them = await company();
    const { directory, clock, alice, bob, carol, id } = them;
    await lose(them, alice);
    for (const row of directory.hub.takeRows(alice.rid, carol.rid)) await carol.receive(row);
    const ghost = new TestDevice('ghost@unheard.example', new TestDirectory(), { clock });
    const { userId, deviceId, signatureKey, rid: identityPub } = ghost;
    const identity = { userId, deviceId };
    const made = await ghost.mls.makeKeyPackage({ suite: mandatorySuite, identity, signatureKey });
    const { lookup } = carol.contacts;
    const mls = createMls({
      ...testRuntime,
      manifests: (user) =>
        user === userId ? { devices: [{ deviceId, identityPub }], revoked: [] } : lookup(user),
      mayCommit: () => true,
    });
    const group = await groupOf(carol, id);
    const tip = directory.hub.copyOf(id).at(-1)?.parsed;
    assert(tip !== undefined);
    const added = await mls.addMembers(group, [made.publicBytes]);
    const joinPub = (await epochJoinKeys(mls, added.pending)).signing.publicKey;
    const facts = { ...added, isRemoval: false, joinPub };
    const own = await sealCommit(mls, group, tip, facts, testRuntime.random);
    const key = carol.store.resync.joinKey(id);
    await directory.callerOf(carol.rid).call(methods.submitCommit, {
      entry: own.entry,
      commit: own.envelope,
      mid: testRuntime.random.bytes(16),
      groupInfo: await sealJoinState(mls, added.pending, key, testRuntime.random),
    });
    const { tries = 0 } = bob.store.resync.get(id) ?? {};
    const row = await tryBack(them, bob);
    assert.deepEqual([row?.reason, row?.tries], ['UNVOUCHED', tries + 1]);
    await alice.conversations.rotateKeys(id);
    assert.equal((await tryBack(them, bob))?.isDone, true);
    await exchange(alice, bob);
    await assertOne(id, alice, bob);
  });

  test('is invited anew where somebody was removed since', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    await lose(them, alice, async () => {
      await alice.conversations.removeMembers(id, [carol.userId]);
      await alice.conversations.rotateKeys(id);
    });
    assert.equal((await tryBack(them, bob))?.reason, 'NO_JOIN_KEY');
    await alice.conversations.removeMembers(id, [`${bob.userId}/${bob.deviceId}`]);
    await alice.conversations.addMembers(id, [bob.userId]);
    for (const row of directory.hub.takeRows(alice.rid, bob.rid)) await bob.receive(row);
    await assertOne(id, alice, bob);
    assert.equal(bob.store.resync.get(id), undefined);
    // And knows the new key.
    const key = bob.store.resync.joinKey(id);
    assert(key !== undefined && sameBytes(key, alice.store.resync.joinKey(id) ?? key.slice(1)));
  });
});

test('a device whose keys do not open a commit hears that the others went on, and comes back', async () => {
  const them = await company();
  const { alice, bob, carol, id } = them;
  // Whatever did that to its store.
  const state = stateOf(await groupOf(bob, id));
  const privateKeys = Object.fromEntries(
    Object.entries(state.privatePath.privateKeys).map(([index, key]) => [
      index,
      testRuntime.random.bytes(key.length),
    ]),
  );
  const broken = new MlsGroupValue({
    ...state,
    privatePath: { ...state.privatePath, privateKeys },
  });
  bob.store.groups.putCold(id, broken.epoch, encodeCold(broken));
  bob.store.groups.putHot(id, encodeHot(broken));
  bob.restart();
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  await exchange(alice, bob, carol);
  await bob.groups.pull.pull(id);
  await exchange(alice, bob, carol);
  assert.deepEqual(told(bob, 'leftBehind'), ['BEHIND']);
  assert.equal((await tryBack(them, bob))?.isDone, true);
  await exchange(alice, bob, carol);
  await assertOne(id, alice, bob, carol);
  await bob.conversations.send(id, 'with other keys');
  await exchange(alice, bob, carol);
  assertHas(carol, id, ['with other keys']);
});

describe('the commit of a device that comes back', () => {
  test('is the same over a crash before it leaves, and after it was taken', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    for (const isTaken of [false, true]) {
      await lose(them, alice);
      const { sent, submit } = await writtenDown(them, bob);
      if (isTaken) await directory.callerOf(bob.rid).call(methods.submitCommit, submit);
      bob.restart();
      assert.deepEqual(bob.store.resync.get(id)?.sent, sent);
      assert.equal((await tryBack(them, bob))?.isDone, true);
      const [last] = directory.hub.copyOf(id).slice(-1);
      assert.deepEqual(last?.control.commit, submit.commit);
      await exchange(alice, bob, carol);
      await assertOne(id, alice, bob, carol);
    }
  });

  test('is taken up where others committed behind it before the device heard that it is in', async () => {
    for (const cause of ['BEHIND', 'STALE'] as const) {
      const them = await company();
      const { directory, alice, bob, carol, id } = them;
      if (cause === 'BEHIND') await lose(them, alice);
      else {
        bob.store.groups.markStale(them.clock.now());
        bob.store.resync.want(id, cause, them.clock.now());
      }
      const { sent, submit } = await writtenDown(them, bob);
      await directory.callerOf(bob.rid).call(methods.submitCommit, submit);
      await exchange(alice, carol);
      for (const row of directory.hub.takeRows(bob.rid, alice.rid)) await alice.receive(row);
      for (const row of directory.hub.takeRows(bob.rid, carol.rid)) await carol.receive(row);
      await alice.conversations.rotateKeys(id);
      await alice.conversations.send(id, 'to the new leaf');
      await alice.conversations.rotateKeys(id);
      bob.restart();
      // All of it comes before he asks what became of his commit, and so does the log.
      await exchange(alice, bob, carol);
      await bob.groups.pull.pull(id);
      assert.deepEqual(bob.store.resync.get(id)?.sent, sent);
      assert.equal((await tryBack(them, bob))?.isDone, true);
      await exchange(alice, bob, carol);
      await assertOne(id, alice, bob, carol);
      assertHas(bob, id, ['to the new leaf']);
    }
  });

  test('is made anew on what won its epoch, and frees a restored store', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    await lose(them, alice);
    let races = 0;
    directory.hub.beforeSubmit = async (from) => {
      if (!sameBytes(from, bob.rid) || races >= 2) return;
      races += 1;
      await alice.conversations.rotateKeys(id);
    };
    while ((await tryBack(them, bob))?.isDone !== true) assert.ok(races <= 2);
    assert.equal(races, 2);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    // A restored store gets new keys in the epoch that it stands in.
    bob.store.groups.markStale(them.clock.now());
    bob.store.resync.want(id, 'STALE', them.clock.now());
    await alice.conversations.rotateKeys(id);
    await exchange(alice, bob, carol);
    // Its lost copy may have been in this epoch too.
    await assert.rejects(bob.conversations.send(id, 'old keys'), { reason: 'STALE_KEYS' });
    assert.equal((await tryBack(them, bob))?.isDone, true);
    await bob.conversations.send(id, 'new keys');
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    assertHas(alice, id, ['new keys']);
  });

  test('alone frees a store that is restored while the device is behind', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    const { hub } = directory;
    await alice.conversations.rotateKeys(id);
    await alice.conversations.rotateKeys(id);
    hub.takeRows(alice.rid, bob.rid);
    const whole = hub.copyOf(id);
    hub.restore(id, whole.slice(-1));
    await bob.groups.pull.pull(id);
    assert.equal(bob.store.resync.get(id)?.cause, 'GAP');
    await bob.receiver.passLost(1_000, testStoreId);
    // The hub has back what it lost: bob follows, to where his lost copy may have been.
    hub.restore(id, whole);
    await bob.groups.pull.pull(id);
    assert.equal(bob.store.groups.conversation(id)?.ended, undefined);
    await assert.rejects(bob.conversations.send(id, 'old keys'), { reason: 'STALE_KEYS' });
    assert.equal((await tryBack(them, bob))?.isDone, true);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    await bob.conversations.send(id, 'new keys');
  });

  test('is made anew where the one that was sent may be that of a lost copy', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    await lose(them, alice);
    const { submit } = await writtenDown(them, bob);
    // It was accepted, and the lost copy may have written with its keys.
    await directory.callerOf(bob.rid).call(methods.submitCommit, submit);
    await bob.receiver.passLost(1_000, testStoreId);
    assert.equal((await tryBack(them, bob))?.isDone, true);
    const [last] = directory.hub.copyOf(id).slice(-1);
    assert.notDeepEqual(last?.control.commit, submit.commit);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
  });

  test('is nothing in the name of another, whoever signs its entry', async () => {
    const them = await company();
    const { directory, alice, bob, carol, id } = them;
    await alice.conversations.rotateKeys(id);
    await exchange(alice, bob, carol);
    const tip = directory.hub.copyOf(id).at(-1)?.parsed;
    const key = carol.store.resync.joinKey(id);
    assert(tip !== undefined && key !== undefined);
    const group = await groupOf(carol, id);
    const { groupInfo } = openJoinState(directory.hub.infoOf(id).bytes, key);
    const keys = await epochJoinKeys(carol.mls, group);
    const identity = { userId: bob.userId, deviceId: bob.deviceId };
    const posing = { identity, signatureKey: carol.signatureKey };
    const posed = await carol.mls.comeBack(groupInfo, group, posing);
    const { keyId: channelKeyId } = await envelopeKeyOf(carol.mls, group);
    const place = {
      ...{ hub: 'red.example', tip, groupInfo, keys, key, channelKeyId },
      writeKey: undefined,
    };
    const parts = { store: carol.store, mls: carol.mls, random: testRuntime.random };
    const { request } = await returnRequest(parts, place, posed);
    const submit = fromBinary(SubmitCommitRequestSchema, request);
    await directory.callerOf(carol.rid).call(methods.submitCommit, submit);
    const before = (await groupOf(bob, id)).epoch;
    await exchange(alice, bob, carol);
    assert.equal((await groupOf(bob, id)).epoch, before);
    await alice.conversations.rotateKeys(id);
    assert.equal(directory.hub.copyOf(id).at(-1)?.parsed.entry.rejects.length, 1);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    // Nobody who is no member opens what the hub keeps, or signs an entry for it.
    const sealed = directory.hub.infoOf(id).bytes;
    assert.throws(() => openJoinState(sealed, testRuntime.random.bytes(32)), {
      reason: 'UNKNOWN_KEY',
    });
    const stranger = await returnRequest(
      parts,
      { ...place, keys: { ...keys, signing: carol.identityKey } },
      posed,
    );
    await assert.rejects(
      directory
        .callerOf(carol.rid)
        .call(methods.submitCommit, fromBinary(SubmitCommitRequestSchema, stranger.request)),
      { reason: 'BAD_SIGNATURE' },
    );
  });
});
