/** Production hubs, three or one, under random faults keep the invariants of the model (docs/reference/hub-model.md). */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { mixOf } from './mixes.ts';
import { makeStarts } from './cluster.ts';
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
