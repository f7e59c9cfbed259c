/** Which epochs a member can still open messages of: by number, by size of the group, and by time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { acceptCommit, dropEpochsBefore, mandatorySuite, oldestKept } from './index.ts';
import { pastEpochLimits } from './past-epochs.ts';
import { epochsHeld, limits } from './suite.ts';
import { groupOf, refused, TestWorld } from './test-members.ts';

const none = new Uint8Array(0);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const { keptMs, olderKeptMs } = pastEpochLimits;

test('a busy small group holds 256 epochs, a larger one as many as have 4096 leaves, at least eight', () => {
  assert.deepEqual([1, 2, 16].map(epochsHeld), [256, 256, 256]);
  assert.deepEqual([17, 20, 64].map(epochsHeld), [240, 204, 64]);
  assert.deepEqual([65, 128, 256, 512, 513, 4096].map(epochsHeld), [63, 32, 16, 8, 8, 8]);
});

test('the newest eight stay for a week, older ones for an hour', () => {
  const at = (count: number, endedMs: number): { epoch: bigint; endedMs: number }[] =>
    Array.from({ length: count }, (_, n) => ({ epoch: BigInt(n + 10), endedMs }));
  assert.equal(oldestKept([], 0), undefined);
  assert.equal(oldestKept(at(20, 0), olderKeptMs), 10n);
  assert.equal(oldestKept(at(20, 0), olderKeptMs + 1), 22n);
  assert.equal(oldestKept(at(3, 0), olderKeptMs + 1), 10n);
  assert.equal(oldestKept(at(20, 0), keptMs), 22n);
  assert.equal(oldestKept(at(20, 0), keptMs + 1), undefined);
});

test('a message 255 epochs late opens; what falls out of the window or is dropped is gone, and wiped', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert(b !== undefined);
  const lost = await bob.mls.encrypt(b, text('in epoch 1'), none);
  const first = await bob.mls.encrypt(lost.next, text('in epoch 1 too'), none);
  b = first.next;
  const start = a.epoch;
  const secondOf: { bytes: Uint8Array } = { bytes: none };
  for (let n = 0; n < limits.epochsHeldMax; n += 1) {
    const { pending, commit } = await alice.mls.rekey(a);
    const step = acceptCommit(a, pending);
    a = step.next;
    step.wipe();
    b = (await bob.mls.process(b, commit)).next;
    if (n === 0) {
      const second = await bob.mls.encrypt(b, text('in epoch 2'), none);
      b = second.next;
      secondOf.bytes = second.ciphertext;
    }
  }
  assert.deepEqual([a.pastEpochs().length, a.pastEpochs()[0]], [limits.epochsHeldMax, start]);
  const opened = await alice.mls.process(a, lost.ciphertext);
  assert.equal(opened.kind, 'application');
  // One more epoch, and the first one is out.
  const { pending } = await alice.mls.rekey(opened.next);
  const later = acceptCommit(opened.next, pending).next;
  assert.deepEqual(
    [later.pastEpochs().length, later.pastEpochs()[0]],
    [limits.epochsHeldMax, start + 1n],
  );
  await assert.rejects(alice.mls.process(later, first.ciphertext), refused('EPOCH_GONE'));
  assert.equal((await alice.mls.process(later, secondOf.bytes)).kind, 'application');
  const { next, wipe } = dropEpochsBefore(later, start + 2n);
  assert.equal(next.pastEpochs()[0], start + 2n);
  // Until the new state is durable, the old one is the one to fall back to.
  assert.equal((await alice.mls.process(later, secondOf.bytes)).kind, 'application');
  wipe();
  await assert.rejects(alice.mls.process(later, secondOf.bytes), refused('DECRYPT_FAILED'));
  await assert.rejects(alice.mls.process(next, secondOf.bytes), refused('EPOCH_GONE'));
});
