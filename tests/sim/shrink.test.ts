/** Shrinking leaves what a failure needs, and nothing else while it may still run. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shrink } from './shrink.ts';

const all = Array.from({ length: 100 }, (_, n) => `operation ${n + 1}`);
const failsWith =
  (...needed: readonly string[]) =>
  async (kept: ReadonlySet<string>): Promise<boolean> =>
    needed.every((one) => kept.has(one));

test('leaves exactly what the failure needs', async () => {
  const needed = ['operation 3', 'operation 4', 'operation 77'];
  const { kept } = await shrink(all, failsWith(...needed), 1_000);
  assert.deepEqual(kept, needed);
  assert.deepEqual((await shrink(all, failsWith(), 1_000)).kept, []);
  assert.deepEqual((await shrink([], failsWith(), 10)).kept, []);
});

test('ends after so many runs, with something that fails', async () => {
  const fails = failsWith('operation 50');
  const { kept, runs } = await shrink(all, fails, 4);
  assert.equal(runs, 4);
  assert(kept.length < all.length);
  assert(await fails(new Set(kept)));
});
