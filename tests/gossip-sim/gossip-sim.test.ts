/**
 * A share of the gossip simulation in every run of the tests: fresh seeds, printed. Without a lie nobody
 * is ever convicted; with one that was told to two, every honest node ends with evidence.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { rememberCrypto } from '../sim/memo.ts';
import { runSeed, type RunResult } from './run.ts';

const freshSeeds = 12;

describe('gossip about key logs, simulated', () => {
  before(() => rememberCrypto());
  const first = randomInt(2 ** 31 - freshSeeds);

  test(`convicts liars and nobody else, seeds ${first}..${first + freshSeeds - 1}`, async (t) => {
    t.diagnostic(`npm run sim:gossip -- --seeds ${first}..${first + freshSeeds - 1}`);
    const results: RunResult[] = [];
    for (let n = 0; n < freshSeeds; n += 1) results.push(await runSeed(first + n));
    const failed = results.filter(({ violations }) => violations.length > 0);
    assert.deepEqual(
      failed.map(({ seed, violations }) => ({ seed, violations })),
      [],
    );
  });

  test('is the same for the same seed', async () => {
    const [one, again] = [await runSeed(2), await runSeed(2)];
    assert.equal(one.kind, 'lie');
    assert(one.kinds.length > 0, 'the lie was not found');
    assert.deepEqual(
      [again.counts, again.healedMs, again.kinds],
      [one.counts, one.healedMs, one.kinds],
    );
  });
});
