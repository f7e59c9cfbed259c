/** Pending commits: the lost race, what stays consumed on acceptance, when secrets are wiped. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stateOf } from './group.ts';
import {
  acceptCommit,
  dropEpochsBefore,
  encodeGroup,
  mandatorySuite,
  restoreGroup,
  xwingSuite,
} from './index.ts';
import type { MlsGroup } from './index.ts';
import { TestWorld, groupOf, keyPackageOf, refused } from './test-members.ts';
import type { TestDevice } from './test-members.ts';

const none = new Uint8Array(0);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** Which (epoch, leaf, generation) each device has sealed with; a repetition fails the test. */
class Sealed {
  readonly #used = new Set<string>();

  async encrypt(
    device: TestDevice,
    group: MlsGroup,
  ): Promise<{ next: MlsGroup; ciphertext: Uint8Array }> {
    const sent = await device.mls.encrypt(group, text('hi'), none);
    const key = `${sent.epoch}/${group.ownLeafIndex}/${sent.generation}`;
    assert.ok(!this.#used.has(key), `sealed twice with ${key}`);
    this.#used.add(key);
    return sent;
  }
}

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`suite ${suite}: the loser of a race processes the winner and goes on`, async () => {
    const world = new TestWorld({ mayCommit: () => true });
    const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
    let [a, b, c] = await groupOf(suite, [alice, bob, carol]);
    assert.ok(b && c);
    const sealed = new Sealed();
    let sent = await sealed.encrypt(alice, a);
    a = sent.next;
    const losing = await alice.mls.removeMembers(a, [2]);
    // Between making and losing, the old epoch goes on, across a restart.
    const stored = encodeGroup(a);
    a = restoreGroup(stored);
    sent = await sealed.encrypt(alice, a);
    a = sent.next;
    const crossing = sent.ciphertext;

    const winning = await bob.mls.rekey(b);
    b = acceptCommit(b, winning.pending).next;
    const result = await alice.mls.process(a, winning.commit);
    assert.equal(result.kind, 'commit');
    result.wipe();
    a = result.next;
    c = (await carol.mls.process(c, winning.commit)).next;
    await assert.rejects(bob.mls.process(b, losing.commit), refused('STALE_COMMIT'));
    for (const [device, group] of [
      [bob, b],
      [carol, c],
    ] as const) {
      const late = await device.mls.process(group, crossing);
      assert.equal(late.kind, 'application');
      assert.deepEqual(group.epochAuthenticator, a.epochAuthenticator);
    }
    // Rebuilt on the winner, with a new pending state.
    const again = await alice.mls.removeMembers(a, [2]);
    a = acceptCommit(a, again.pending).next;
    b = (await bob.mls.process(b, again.commit)).next;
    assert.deepEqual(a.epochAuthenticator, b.epochAuthenticator);
    sent = await sealed.encrypt(alice, a);
    assert.equal((await bob.mls.process(b, sent.ciphertext)).kind, 'application');
  });
}

test('keys consumed while a commit was pending stay consumed after it', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const { pending, commit } = await alice.mls.rekey(a);
  const first = await bob.mls.encrypt(b, text('first'), none);
  const second = await bob.mls.encrypt(first.next, text('second'), none);
  a = (await alice.mls.process(a, first.ciphertext)).next;
  b = (await bob.mls.process(second.next, commit)).next;

  // The pending state alone still holds the key of `first`: what acceptCommit is for.
  assert.equal((await alice.mls.process(pending, first.ciphertext)).kind, 'application');
  const { next } = acceptCommit(a, pending);
  await assert.rejects(alice.mls.process(next, first.ciphertext), refused('DUPLICATE'));
  assert.equal((await alice.mls.process(next, second.ciphertext)).kind, 'application');
  assert.deepEqual(next.epochAuthenticator, b.epochAuthenticator);
});

test('a pending commit and its parent survive a restart, each from its own rows', async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [a] = await groupOf(xwingSuite, [alice, bob]);
  const row = await keyPackageOf(carol, xwingSuite);
  const made = await alice.mls.addMembers(a, [row.publicBytes]);
  const { next } = acceptCommit(
    restoreGroup(encodeGroup(a)),
    restoreGroup(encodeGroup(made.pending)),
  );
  assert.ok(made.welcome);
  const { group } = await carol.mls.joinFromWelcome(made.welcome, [row], carol.signatureKey);
  assert.deepEqual(group.epochAuthenticator, next.epochAuthenticator);
  assert.deepEqual(group.members(), next.members());
});

test('a pending commit of another group or epoch is not accepted', async () => {
  const world = new TestWorld();
  const alice = world.device('alice');
  const [a] = await groupOf(mandatorySuite, [alice]);
  const [other] = await groupOf(mandatorySuite, [alice]);
  const { pending } = await alice.mls.rekey(a);
  const next = acceptCommit(a, pending).next;
  assert.throws(() => acceptCommit(next, pending), refused('BAD_STATE'));
  assert.throws(() => acceptCommit(other, pending), refused('BAD_STATE'));
});

test('nothing is wiped before wipe(), and only spent secrets by it', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const isZero = (secret: Uint8Array): boolean => secret.every((byte) => byte === 0);

  const sent = await bob.mls.encrypt(b, text('one'), none);
  const received = await alice.mls.process(a, sent.ciphertext);
  assert.equal((await alice.mls.process(a, sent.ciphertext)).kind, 'application', 'a retry works');
  received.wipe();
  sent.wipe();
  await assert.rejects(alice.mls.process(received.next, sent.ciphertext), refused('DUPLICATE'));
  const old = received.next;
  const { pending, commit } = await alice.mls.rekey(old);
  const accepted = acceptCommit(old, pending);
  const { keySchedule } = stateOf(old);
  assert.ok(!isZero(keySchedule.initSecret));
  const applied = await bob.mls.process(sent.next, commit);
  accepted.wipe();
  applied.wipe();
  assert.ok(isZero(keySchedule.initSecret) && isZero(keySchedule.exporterSecret));
  a = accepted.next;
  b = applied.next;
  const late = await bob.mls.encrypt(sent.next, text('late'), none);
  assert.equal((await alice.mls.process(a, late.ciphertext)).kind, 'application');

  // An epoch that falls out of what is kept leaves memory too.
  const first = stateOf(a).historicalReceiverData.get(1n);
  assert.ok(first);
  const dropped = dropEpochsBefore(a, a.epoch);
  a = dropped.next;
  assert.ok(!isZero(first.senderDataSecret));
  dropped.wipe();
  assert.ok(isZero(first.senderDataSecret) && isZero(first.resumptionPsk));
  const last = await bob.mls.encrypt(b, text('still here'), none);
  assert.equal((await alice.mls.process(a, last.ciphertext)).kind, 'application');
});
