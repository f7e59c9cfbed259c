/** Production hubs, three or one, under random faults keep the invariants of the model (docs/reference/hub-model.md). */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { mixOf } from './mixes.ts';
import { makeStarts } from './cluster.ts';
import { runForgetful } from './forgetful.ts';
import { runHubs } from './run.ts';
import { runSingle } from './single.ts';

test('hubs of three fork nothing and lose nothing while they die, duel and forget', async (context) => {
  const starts = await makeStarts();
  const any = randomInt(2 ** 40);
  let entries = 0;
  for (const seed of [3, any, any + 1, any + 2]) {
    const report = await runHubs(starts, seed, mixOf(seed));
    context.diagnostic(JSON.stringify(report));
    assert.deepEqual(
      report.violations,
      [],
      `seed ${seed}: node tests/hub-sim/main.ts --seed ${seed}`,
    );
    entries += report.entries;
  }
  assert.ok(entries > 10, `${entries} entries`);
});

test('hubs of three of which two and more lose their disks go on with what members and the others have', async (context) => {
  const starts = await makeStarts();
  const any = randomInt(2 ** 40);
  const sum = { losses: 0, brought: 0, entries: 0 };
  // Of the first one it is known that members bring something back.
  for (const seed of [1, any, any + 1, any + 2]) {
    const { violations, counts, entries } = await runForgetful(starts, seed, mixOf(seed));
    const again = `seed ${seed}: node tests/hub-sim/main.ts --forget --seed ${seed} --runs 1`;
    assert.deepEqual(violations, [], again);
    sum.losses += counts.learned;
    sum.brought += counts.brought;
    sum.entries += entries;
  }
  context.diagnostic(JSON.stringify(sum));
  assert.ok(sum.losses >= 8 && sum.brought > 0 && sum.entries > 8, JSON.stringify(sum));
});

test('a hub of one forks nothing and loses nothing while it dies, and while it takes back what it forgot', async (context) => {
  const starts = await makeStarts();
  // Its disk becomes an older one.
  const mix = { lengthMs: 40_000, crashes: 0.01, lost: 0.1, twice: 0, restores: true };
  const seed = randomInt(2 ** 40);
  const report = await runSingle(starts, seed, mix);
  context.diagnostic(JSON.stringify(report));
  assert.deepEqual(report.violations, [], `seed ${seed}`);
  assert.equal(report.counts.learned, 1);
  assert.ok(report.entries > 1, `${report.entries} entries`);
});
