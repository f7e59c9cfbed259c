/**
 * A share of the simulator in every run of the tests: fresh seeds, printed, each with a mix that chance
 * chooses, and the proof that a seed is a whole run: the same one leaves the same trace, byte by byte.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { mixNamed, mixes } from './mixes.ts';
import { replayCommand } from './report.ts';
import { runSeed } from './run.ts';
import { makeWorld, type World } from './world.ts';

const freshSeeds = 3;
/** A night after a lost disk costs as much as three runs: those mixes are for longer runs, and so are dark ones. */
const shortMixes = mixes.filter(({ nights, swarm }) => nights === 0 && swarm === undefined);

describe('a simulated cluster', () => {
  let world: World;
  const hashes = new Set<string>();
  before(async () => {
    world = await makeWorld();
  });

  test('leaves the same trace for the same seed', async () => {
    const mix = { ...mixNamed('everything'), groups: 0.12 };
    const options = { world, mix, operations: 60 };
    const one = await runSeed({ ...options, seed: 7 });
    const again = await runSeed({ ...options, seed: 7 });
    assert.equal(again.hash, one.hash);
    assert.deepEqual(one.violations, []);
  });

  for (let n = 0; n < freshSeeds; n += 1) {
    const seed = randomInt(2 ** 31);
    test(`loses nothing and shows nothing twice with seed ${seed}`, async (t) => {
      const mix = shortMixes[seed % shortMixes.length] ?? mixNamed('everything');
      t.diagnostic(replayCommand({ seed, mix: mix.name }));
      const result = await runSeed({ world, mix, seed });
      assert.deepEqual(result.violations, []);
      assert(result.faults.size > 0, 'no fault fired');
      assert(result.work.operations >= 300);
      assert(result.history.some(({ kind }) => kind === 'stored'));
      assert(!hashes.has(result.hash), 'another seed left this trace');
      hashes.add(result.hash);
    });
  }
});

test('there are at least 20 fault mixes, and in each one call in twenty loses its reply', () => {
  assert(mixes.length >= 20);
  assert.equal(new Set(mixes.map(({ name }) => name)).size, mixes.length);
  for (const { calls } of mixes) assert(calls.replyLost >= 0.05);
});
