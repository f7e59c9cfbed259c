/** VRFs at the log: an entry proves nothing, the first search its ladder, once, and it is kept. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Evaluations, evaluationLimits } from './evaluations.ts';
import type { KtLog } from './log.ts';
import { searchResponse } from './operations.ts';
import { encode } from './presentation.ts';
import type { NewEvaluation } from './store.ts';
import { MemoryTreeStore } from './store.ts';
import { labelOf, testKeys, testLog } from './test-log.ts';
import { verifySearch } from './verify-search.ts';
import type { VrfEvaluation, VrfPlace } from './vrf.ts';

const alice = labelOf('alice');

/** A log whose prover says what it proves, and answers when it is let; and its store. */
async function watched({ store = new MemoryTreeStore() } = {}) {
  const { keys } = testKeys(40);
  const proved: string[] = [];
  const placed: number[] = [];
  let gate: Promise<void> = Promise.resolve();
  let failure: Error | undefined;
  const vrf = {
    publicKey: keys.vrf.publicKey,
    async places(label: Uint8Array, versions: readonly number[]): Promise<VrfPlace[]> {
      await gate;
      if (failure !== undefined) throw failure;
      return keys.vrf.places(label, versions);
    },
    async prove(
      label: Uint8Array,
      versions: readonly number[],
      places: readonly (VrfPlace | undefined)[],
    ): Promise<VrfEvaluation[]> {
      proved.push(`${new TextDecoder().decode(label)} ${versions.join(' ')}`);
      placed.push(...versions.filter((_, i) => places[i] !== undefined));
      await gate;
      if (failure !== undefined) throw failure;
      return keys.vrf.prove(label, versions, places);
    },
  };
  const made = await testLog({ store, keys: { ...keys, vrf } });
  return {
    ...made,
    store,
    /** Versions whose place was at hand, since the last call. */
    placed: () => placed.splice(0),
    /** What was proved since the last call. */
    proved: () => proved.splice(0),
    hold: (): (() => void) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      gate = promise;
      return resolve;
    },
    fail: (error: Error | undefined) => void (failure = error),
  };
}
const append = (log: KtLog, greatest: number, label = alice) =>
  log.append({ label, greatest, values: [labelOf('value')] });
/** Lets promises that wait for nothing but promises go on: memory store and prover have no I/O. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 100; turn++) await Promise.resolve();
}

test('an entry proves nothing, the first search its ladder', async () => {
  const { log, store, clock, verifier, proved } = await watched();
  await append(log, -1);
  await append(log, 0);
  assert.deepEqual(proved(), []);
  const answer = await log.search({ label: alice });
  assert.deepEqual(proved(), ['alice 0 1 3 2']);
  const bytes = encode(searchResponse(1, false), answer);
  const { found } = verifySearch(verifier, undefined, { label: alice }, bytes, clock.now());
  assert.equal(found.version, 1);
  await log.search({ label: alice });
  assert.deepEqual(proved(), [], 'it is at hand before it is stored');
  assert.deepEqual(await store.evaluations(alice, [3]), [undefined]);
  clock.advance(evaluationLimits.saveMs);
  await settled();
  const [kept] = await store.evaluations(alice, [3]);
  assert.equal(kept?.proof.length, 80);
  await append(log, 1);
  await append(log, 2);
  await log.search({ label: alice });
  assert.deepEqual(proved(), ['alice 7 5 4'], 'what somebody looked for is not proved again');
});

test('a proof goes on from the place that its entry was given, as long as that is at hand', async () => {
  const { log, store, clock, verifier, placed } = await watched();
  await append(log, -1);
  await append(log, 0);
  const answer = await log.search({ label: alice });
  assert.deepEqual(placed(), [0, 1], 'of the ladder 0 1 3 2');
  const bytes = encode(searchResponse(1, false), answer);
  verifySearch(verifier, undefined, { label: alice }, bytes, clock.now());
  await append(log, 1);
  const another = await watched({ store });
  await another.log.search({ label: alice });
  assert.deepEqual(another.placed(), [], 'after a restart it is not');
});

test('what is at hand of an erased label goes with it', async () => {
  const places: (VrfPlace | undefined)[][] = [];
  const { keys } = testKeys(40);
  const vrf = {
    publicKey: keys.vrf.publicKey,
    places: (label: Uint8Array, versions: readonly number[]) => keys.vrf.places(label, versions),
    prove(label: Uint8Array, versions: readonly number[], known: (VrfPlace | undefined)[] = []) {
      places.push(known);
      return keys.vrf.prove(label, versions, known);
    },
  };
  const { clock } = await watched();
  const evaluations = new Evaluations({ store: new MemoryTreeStore(), vrf, clock });
  await evaluations.place(alice, [0, 1, 2]);
  evaluations.forget(alice, 2);
  await evaluations.of(alice, [0, 1, 2], false);
  assert.deepEqual(
    places[0]?.map((place) => place !== undefined),
    [false, false, true],
  );
});

test('what two ask for at once is proved once', async () => {
  const { log, proved, hold } = await watched();
  await append(log, -1);
  proved();
  const letGo = hold();
  const both = [log.search({ label: alice }), log.search({ label: alice, version: 0 })];
  await settled();
  letGo();
  const [first, second] = await Promise.all(both);
  assert.deepEqual(proved(), ['alice 0 1']);
  assert.deepEqual(first?.binaryLadder[0], second?.binaryLadder[0]);
});

test('a proof that failed is tried again', async () => {
  const { log, proved, fail } = await watched();
  await append(log, -1);
  fail(new Error('no thread'));
  await assert.rejects(log.search({ label: alice }), /no thread/u);
  fail(undefined);
  await log.search({ label: alice });
  assert.deepEqual(proved(), ['alice 0 1', 'alice 0 1']);
});

test('closing stores what waits, and another log over the store proves nothing', async () => {
  const first = await watched();
  await append(first.log, -1);
  await first.log.search({ label: alice });
  await first.log[Symbol.asyncDispose]();
  const second = await watched({ store: first.store });
  await second.log.search({ label: alice });
  assert.deepEqual(second.proved(), []);
});

test('many are stored without waiting for the time', async () => {
  const sizes: number[] = [];
  class Counted extends MemoryTreeStore {
    override addEvaluations(evaluations: readonly NewEvaluation[]): Promise<void> {
      sizes.push(evaluations.length);
      return super.addEvaluations(evaluations);
    }
  }
  const { log } = await watched({ store: new Counted() });
  const labels = Array.from({ length: evaluationLimits.saveCount }, (_, i) => labelOf(`user-${i}`));
  await Promise.all(labels.map((label) => append(log, -1, label)));
  sizes.splice(0);
  for (const label of labels) await log.search({ label });
  await settled();
  // Two for each label.
  assert.deepEqual(sizes, [evaluationLimits.saveCount, evaluationLimits.saveCount]);
});

test('a store that does not take them costs only the work', async () => {
  class Full extends MemoryTreeStore {
    isFull = false;
    override addEvaluations(evaluations: readonly NewEvaluation[]): Promise<void> {
      return this.isFull ? Promise.reject(new Error('full')) : super.addEvaluations(evaluations);
    }
  }
  const store = new Full();
  const { log, clock, proved } = await watched({ store });
  await append(log, -1);
  store.isFull = true;
  await log.search({ label: alice });
  clock.advance(evaluationLimits.saveMs);
  await settled();
  store.isFull = false;
  proved();
  await log.search({ label: alice });
  await log[Symbol.asyncDispose]();
  assert.deepEqual(proved(), ['alice 0 1']);
  assert.notDeepEqual(await store.evaluations(alice, [1]), [undefined]);
});

test('nothing is kept for a name that the log does not have', async () => {
  const { log, store, clock, proved } = await watched();
  await append(log, -1);
  proved();
  const nobody = labelOf('nobody');
  await log.absence({ label: nobody });
  await log.absence({ label: nobody });
  assert.deepEqual(proved(), ['nobody 0', 'nobody 0']);
  clock.advance(evaluationLimits.saveMs);
  await settled();
  assert.deepEqual(await store.evaluations(nobody, [0]), [undefined]);
});
