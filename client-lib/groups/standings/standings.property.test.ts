/** The rule by which members decide over a commit that not all can judge, in every order of what they say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decide } from './standing-rules.ts';
import { explore, type Bounds } from './test-standing-model.ts';

/** Every way to divide so many honest members into those who can apply the commit and those who cannot. */
function* bounds(rule: Bounds['rule'], sizes: readonly (readonly [number, number])[]) {
  for (const [honest, liars] of sizes) {
    for (let able = 0; able <= honest; able += 1) {
      const canApply = Array.from({ length: honest }, (_, index) => index < able);
      yield { canApply, liars, rule };
    }
  }
}

/** Honest members, and others. */
const sizes = [
  [1, 0],
  [1, 1],
  [2, 0],
  [2, 1],
  [3, 0],
] as const;

test('no order of reading and telling parts the honest members, or holds them up when they are more', (context) => {
  const states = [...bounds(decide, sizes)].map(explore);
  const all = states.reduce((sum, count) => sum + count, 0);
  context.diagnostic(`${all} states`);
  // Another number is another rule: docs/protocol/group-log.md names it.
  assert.equal(all, 4_073);
});

const mutants: Readonly<Record<string, typeof decide>> = {
  'one refusal is enough': (row, votes, nowMs) =>
    votes.some(({ isApplied }) => !isApplied) ? 'rejected' : decide(row, votes, nowMs),
  'half of them is enough': ({ voters, ...row }, votes, nowMs) => {
    const refusing = new Set(votes.filter((one) => !one.isApplied).map(({ userId }) => userId));
    const isHalf = 2 * refusing.size >= voters.length;
    return isHalf ? 'rejected' : decide({ voters, ...row }, votes, nowMs);
  },
  'who says both is not counted': (row, votes, nowMs) =>
    decide(
      row,
      votes.filter(({ userId, isApplied }) =>
        votes.every((one) => one.userId !== userId || one.isApplied === isApplied),
      ),
      nowMs,
    ),
  'who applied it is not waited for': (row, votes) => decide(row, votes, 0),
  'what was applied stands': (row, votes, nowMs) =>
    votes.some(({ isApplied }) => isApplied) ? 'taken' : decide(row, votes, nowMs),
};

for (const [name, rule] of Object.entries(mutants)) {
  test(`a wrong rule is found: ${name}`, () => {
    assert.throws(() => [...bounds(rule, sizes)].map(explore), Error);
  });
}
