/** Three production hubs under random faults keep the invariants of the model (docs/reference/hub-model.md). */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { mixOf } from './mixes.ts';
import { makeStarts } from './cluster.ts';
import { runHubs } from './run.ts';

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
