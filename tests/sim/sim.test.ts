/**
 * A share of the simulator in every run of the tests: fresh seeds, printed, each with a mix that chance
 * chooses, and the proof that a seed is a whole run: the same one leaves the same trace, byte by byte.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { mixNamed, mixes, mixOfSeed, type Mix } from './mixes.ts';
import { replayCommand } from './report.ts';
import { runSeed } from './run.ts';
import { makeWorld, type World } from './world.ts';

const freshSeeds = 3;
/** Seeds in which both ways past nodes have to be taken once. */
const waysSeedsMax = 8;
/** A night after lost disks costs as much as a run or two: one seed of those mixes, and the others of the rest. */
const shares: readonly { readonly mixes: readonly Mix[]; readonly seeds: number }[] = [
  { mixes: mixes.filter(({ nights }) => nights === 0), seeds: freshSeeds },
  { mixes: mixes.filter(({ nights }) => nights > 0), seeds: 1 },
];
/** With a swarm an operation costs twice as much; where half of them change groups, many lose to each other in 60. */
const operationsOf = ({ swarm, groups }: Mix): number => {
  if (groups >= 0.5) return 60;
  return swarm === undefined ? 300 : 150;
};

describe('a simulated cluster', () => {
  let world: World;
  const hashes = new Set<string>();
  before(async () => {
    world = await makeWorld();
  });

  test('leaves the same trace for the same seed, and takes all ways past nodes', async () => {
    const { calls, crashes, clockMs, clockDrift } = mixNamed('everything');
    const mix: Mix = {
      ...{ ...mixNamed('relays'), calls, crashes, clockMs, clockDrift, groups: 0.12 },
      // Two nodes are away for most of it.
      events: { killNode: 12_000, killClient: 30_000, breakSwarm: 20_000, stepClock: 30_000 },
      downMs: [25_000, 50_000],
      thinkMs: 1_500,
    };
    const runOf = (seed: number) => runSeed({ world, mix, operations: 50, seed });
    const one = await runOf(1);
    assert.equal((await runOf(1)).hash, one.hash);
    const ways = { direct: 0, relay: 0 };
    // Two seeds in three take both ways; which ones changes with the program.
    for (let seed = 1; seed <= waysSeedsMax && (ways.direct === 0 || ways.relay === 0); seed += 1) {
      const { violations, pastNodes } = seed === 1 ? one : await runOf(seed);
      assert.deepEqual(violations, []);
      ways.direct += pastNodes.direct;
      ways.relay += pastNodes.relay;
    }
    assert(ways.direct > 0, 'no device delivered to another one');
    assert(ways.relay > 0, 'nothing went over a relay');
  });

  const fresh = shares.flatMap(({ mixes: of, seeds }) =>
    Array.from({ length: seeds }, () => {
      const seed = randomInt(2 ** 31);
      return { seed, mix: of[seed % of.length] ?? mixNamed('everything') };
    }),
  );
  for (const { seed, mix } of fresh) {
    test(`loses nothing and shows nothing twice with seed ${seed}`, async (t) => {
      const operations = operationsOf(mix);
      t.diagnostic(`${replayCommand({ seed, mix: mix.name })} --operations ${operations}`);
      const result = await runSeed({ world, mix, seed, operations });
      assert.deepEqual(result.violations, []);
      assert(result.faults.size > 0, 'no fault fired');
      assert(result.work.operations >= operations);
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

test('a seed chooses its mix among all for long runs, or among those that begin as asked', () => {
  const chosenOf = (name?: string): readonly string[] =>
    Array.from({ length: mixes.length }, (_, seed) => mixOfSeed(seed, name).name);
  assert(new Set(chosenOf()).size >= 50);
  assert(!chosenOf().some((name) => name.startsWith('committers')));
  assert.equal(new Set(chosenOf('committers*')).size, 7);
  assert.deepEqual([...new Set(chosenOf('storm'))], ['storm']);
  assert.throws(() => mixOfSeed(1, 'nothing*'), /no mix begins with nothing/);
});
