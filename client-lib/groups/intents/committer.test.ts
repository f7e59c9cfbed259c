/** What becomes of wishes for a group: at a hub that refuses, forgets, or lets others win, and over restarts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  hex,
  methods,
  parseEntry,
  PermissionDeniedError,
  ResourceExhaustedError,
  TransportError,
} from '@quicprochat/proto';
import { committerLimits } from './committer.ts';
import { rejectingEntry, sealCommit } from '../log/group-log.ts';
import { mandatorySuite, xwingSuite } from '../../mls/index.ts';
import { rekeyLimits } from './rekeys.ts';
import { company as companyOf, groupOf, HastyClock, type Company } from '../../test-company.ts';
import { exchange, type TestDevice } from '../../test-devices.ts';
import { testRuntime } from '../../test-runtime.ts';

/** bob owns the group too. */
async function company(suites = [xwingSuite, mandatorySuite]): Promise<Company> {
  const all = await companyOf(suites, new HastyClock());
  const { alice, bob, carol, id } = all;
  await alice.conversations.setRole(id, bob.userId, 'owner');
  await exchange(alice, bob, carol);
  return all;
}

async function assertOne(id: Uint8Array, ...devices: readonly TestDevice[]): Promise<void> {
  const heads = devices.map(({ store }) => hex(store.groupLog.head(id)?.hash ?? new Uint8Array(0)));
  assert.equal(new Set(heads).size, 1, heads.join(' '));
  const groups = await Promise.all(devices.map((device) => groupOf(device, id)));
  const authenticators = groups.map(({ epochAuthenticator }) => hex(epochAuthenticator));
  assert.equal(new Set(authenticators).size, 1);
  for (const { store } of devices) {
    // Who lost a race looks again a moment later.
    while (store.groupLog.openIntents(id).length > 0) await testRuntime.clock.sleep(1);
    assert.deepEqual(store.groupLog.openIntents(id), []);
    assert.deepEqual(store.groupLog.pendings(id), []);
    assert.deepEqual(store.inbox.parked(), []);
  }
}

const isOf = (device: TestDevice, rid: Uint8Array): boolean =>
  Buffer.compare(device.rid, rid) === 0;

describe('a wish for a group', () => {
  test('that the hub refuses for good ends with its reason, and the next one takes another key', async () => {
    const { directory, alice, bob, carol, id } = await company();
    const before = (await groupOf(alice, id)).epoch;
    directory.hub.beforeSubmit = async () => {
      throw new PermissionDeniedError('PEER_DENIED', 'not with them');
    };
    for (let refusals = 0; refusals < 2; refusals += 1) {
      await assert.rejects(alice.conversations.rotateKeys(id), { reason: 'PEER_DENIED' });
    }
    directory.hub.beforeSubmit = undefined;
    assert.equal((await groupOf(alice, id)).epoch, before);
    await alice.conversations.updateMetadata(id, { name: 'all the same' });
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    assert.equal(bob.store.groups.conversation(id)?.name, 'all the same');
    const told = alice.events.filter(({ type }) => type === 'groupChange');
    assert.deepEqual(
      told.slice(-3).map((event) => event.type === 'groupChange' && [event.outcome, event.reason]),
      [
        ['refused', 'PEER_DENIED'],
        ['refused', 'PEER_DENIED'],
        ['done', undefined],
      ],
    );
  });

  test('of which the hub does not say what became keeps its bytes, over a restart', async () => {
    const { directory, alice, bob, carol, id } = await company();
    const seen = new Set<string>();
    let isLost = true;
    directory.hub.beforeSubmit = async () => {
      for (const { commitHash, request } of alice.store.groupLog.pendings(id)) {
        seen.add(`${hex(commitHash)} ${hex(request)}`);
      }
      if (isLost) throw new TransportError('timeout', 'nobody answers');
    };
    const wish = alice.conversations.rotateKeys(id);
    wish.catch(() => undefined);
    while (seen.size === 0) await testRuntime.clock.sleep(1);
    alice.restart();
    await assert.rejects(wish, { reason: 'CLOSED' });
    isLost = false;
    alice.groups.committer.kick();
    await alice.settle();
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
    assert.equal(seen.size, 1, 'other bytes went to the hub');
    const [kept] = directory.hub.copyOf(id).slice(-1);
    assert.ok([...seen][0]?.startsWith(hex(kept?.parsed.entry.commitHash ?? new Uint8Array(0))));
  });

  test('that a hub puts off for weeks is brought to it again after five minutes', async () => {
    const { directory, clock, alice, id } = await company();
    let refusals = 0;
    directory.hub.beforeSubmit = async () => {
      refusals += 1;
      if (refusals > 1) return;
      throw new ResourceExhaustedError('RATE_LIMITED', 'later', { retryAfterMs: 2 ** 31 });
    };
    const beganMs = clock.now();
    await alice.conversations.rotateKeys(id);
    const waitedMs = clock.now() - beganMs;
    const { askedRestMaxMs } = committerLimits;
    assert.ok(waitedMs >= askedRestMaxMs && waitedMs < 2 * askedRestMaxMs, `${waitedMs} ms`);
    assert.equal(refusals, 2);
  });

  test('whose epoch others win again and again is refused after six', async () => {
    const { directory, alice, bob, carol, id } = await company();
    let races = 0;
    directory.hub.beforeSubmit = async (from) => {
      if (!isOf(alice, from)) return;
      races += 1;
      await bob.conversations.rotateKeys(id);
    };
    await assert.rejects(alice.conversations.rotateKeys(id), { reason: 'EPOCH_CONFLICT' });
    assert.equal(races, 6);
    directory.hub.beforeSubmit = undefined;
    await alice.conversations.rotateKeys(id);
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob, carol);
  });

  test('that nobody waits for is tried until it is done', async () => {
    const { directory, alice, bob, carol, id } = await company();
    let races = 0;
    directory.hub.beforeSubmit = async (from) => {
      if (!isOf(alice, from)) return;
      races += 1;
      if (races <= 7) await bob.conversations.rotateKeys(id);
    };
    const duty = { kind: 'remove', userIds: [carol.userId], isDuty: true } as const;
    const dutyId = await alice.groups.committer.add(id, duty);
    const state = (): string | undefined => alice.store.groupLog.intent(dutyId)?.state;
    while (state() === 'OPEN') await testRuntime.clock.sleep(1);
    assert.equal(state(), 'DONE');
    await exchange(alice, bob, carol);
    assert.equal(races, 8);
    assert.deepEqual(await bob.conversations.members(id), [alice.userId, bob.userId]);
  });

  test('that somebody else had too is superseded', async () => {
    const { directory, alice, bob, carol, id } = await company();
    directory.hub.beforeSubmit = async (from) => {
      if (isOf(alice, from)) await bob.conversations.removeMembers(id, [carol.userId]);
    };
    await alice.conversations.removeMembers(id, [carol.userId]);
    const told = alice.events.findLast(({ type }) => type === 'groupChange');
    assert(told?.type === 'groupChange');
    assert.equal(told.outcome, 'superseded');
    await exchange(alice, bob, carol);
    await assertOne(id, alice, bob);
    assert.equal(carol.store.groups.conversation(id)?.ended, 'REMOVED');
  });
});

describe('the log of a group', () => {
  test('comes back to a hub that forgot a part of it', async () => {
    const { directory, alice, bob, carol, id } = await company();
    const old = directory.hub.copyOf(id);
    await alice.conversations.rotateKeys(id);
    await alice.conversations.updateMetadata(id, { name: 'kept' });
    await exchange(alice, bob, carol);
    const whole = directory.hub.copyOf(id).map(({ parsed }) => hex(parsed.hash));
    directory.hub.restore(id, old);
    await bob.conversations.rotateKeys(id);
    await exchange(alice, bob, carol);
    const again = directory.hub.copyOf(id).map(({ parsed }) => hex(parsed.hash));
    assert.deepEqual(again.slice(0, whole.length), whole);
    assert.equal(again.length, whole.length + 1);
    await assertOne(id, alice, bob, carol);
  });

  test('goes on past an entry that nobody can apply', async () => {
    const { directory, alice, bob, carol, id } = await company();
    // bob names a key that his commit does not lead to.
    const group = await groupOf(bob, id);
    const [made, other] = [await bob.mls.rekey(group), await bob.mls.rekey(group)];
    const head = directory.hub.copyOf(id).at(-1)?.parsed;
    assert(head !== undefined);
    const facts = {
      commit: made.commit,
      pending: other.pending,
      isRemoval: false,
      joinPub: testRuntime.random.bytes(32),
    };
    const { envelope, entry } = await sealCommit(bob.mls, group, head, facts, testRuntime.random);
    await directory.callerOf(bob.rid).call(methods.submitCommit, {
      ...{ entry, commit: envelope, mid: testRuntime.random.bytes(16) },
      targets: [{ rid: carol.rid, domain: 'red.example' }],
    });
    await alice.conversations.rotateKeys(id);
    const last = directory.hub.copyOf(id).at(-1)?.parsed;
    assert(last !== undefined);
    assert.deepEqual(last.entry.rejects, [parseEntry(entry).hash]);
    for (const from of [bob, alice]) {
      for (const row of directory.hub.takeRows(from.rid, carol.rid)) await carol.receive(row);
    }
    assert.deepEqual(
      carol.store.inbox.undecryptable().map(({ reason }) => reason),
      ['INVALID_COMMIT'],
    );
    await assertOne(id, alice, carol);
    // The same commit, whatever it rejects.
    const again = await rejectingEntry(bob.mls, group, last, []);
    assert.deepEqual(parseEntry(again).entry.commitHash, last.entry.commitHash);
  });

  for (const suite of [xwingSuite, mandatorySuite]) {
    test(`is read at once when a message shows that a commit is missing (suite ${suite})`, async () => {
      const { directory, alice, bob, carol, id } = await company([suite]);
      await alice.conversations.rotateKeys(id);
      await alice.conversations.updateMetadata(id, { name: 'later' });
      directory.hub.takeRows(alice.rid, bob.rid);
      await alice.conversations.send(id, 'of an epoch that bob never heard of');
      await exchange(alice, bob, carol);
      assert.deepEqual(
        bob.history(id).map(({ text }) => text),
        ['of an epoch that bob never heard of'],
      );
      await assertOne(id, alice, bob, carol);
    });
  }
});

test('keys are renewed within a day, then weekly where one wrote, and after many messages', async () => {
  const { clock, alice, bob, carol, id } = await company();
  const { everyMs, spreadMs, firstMs } = rekeyLimits;
  const epochOf = async (): Promise<bigint> => (await groupOf(alice, id)).epoch;
  const look = async (): Promise<bigint> => {
    for (const one of [alice, bob, carol]) {
      // The logs of the test say nothing new for weeks.
      await one.contacts.resolve(one.userId, one.directory);
      one.groups.rekeys.run();
      await one.settle();
      await exchange(alice, bob, carol);
    }
    return epochOf();
  };
  let epoch = await epochOf();
  clock.advance(firstMs);
  // alice committed herself, which counts as one.
  assert.equal(await look(), epoch + 2n);
  epoch += 2n;
  clock.advance(everyMs + spreadMs);
  assert.equal(await look(), epoch, 'nobody wrote');
  await carol.conversations.send(id, 'somebody wrote');
  await exchange(alice, bob, carol);
  clock.advance(everyMs + spreadMs);
  assert.equal(await look(), epoch + 1n);
  epoch += 1n;
  const { messages } = rekeyLimits;
  const nowMs = clock.now();
  assert.equal(alice.groups.rekeys.noteMessage(id, messages - 1, nowMs), false);
  assert.equal(alice.groups.rekeys.noteMessage(id, messages, nowMs), true);
  assert.equal(alice.groups.rekeys.noteMessage(id, 2 * messages, nowMs), false, 'one is enough');
  alice.groups.committer.wake(id);
  await alice.settle();
  await exchange(alice, bob, carol);
  assert.equal(await epochOf(), epoch + 1n);
  await assertOne(id, alice, bob, carol);
});

test('who wants to leave is removed by one of those who may, and the last owner stays', async () => {
  const { alice, bob, carol, id } = await company();
  const leaving = carol.conversations.leave(id);
  await carol.settle();
  await exchange(alice, bob, carol);
  while (carol.store.groups.conversation(id)?.ended === undefined) {
    await testRuntime.clock.sleep(1);
    await exchange(alice, bob, carol);
  }
  await leaving;
  assert.equal(carol.store.groups.conversation(id)?.ended, 'LEFT');
  await exchange(alice, bob, carol);
  await assertOne(id, alice, bob);
  assert.deepEqual(await alice.conversations.members(id), [alice.userId, bob.userId]);
  await alice.conversations.setRole(id, bob.userId, 'member');
  await assert.rejects(alice.conversations.leave(id), { reason: 'LAST_OWNER' });
});
