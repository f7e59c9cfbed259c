/** The pool proves what the prover proves, and outlives its threads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import { nativeVrfProver } from './native-vrf.ts';
import { labelOf, testKeys, testLog } from './test-log.ts';
import { vrfPool, vrfPoolLimits } from './vrf-pool.ts';
import type { VrfProver } from './vrf.ts';

const seed = new Uint8Array(32).fill(9);
const alice = labelOf('alice@red.example');

const proveWith = async (pool: VrfProver, versions: readonly number[]) =>
  pool.prove(alice, versions);
/** Threads that were started so far; Node tells of them in the next tick. */
const workers: Worker[] = [];
process.on('worker', (worker) => void workers.push(worker));

test('a pool gives the evaluations of its key, each job in order', async () => {
  await using pool = vrfPool(seed, 2);
  const prover = nativeVrfProver(seed);
  assert.deepEqual(pool.publicKey, prover.publicKey);
  const labels = ['a', 'b', 'c', 'd', 'e'].map(labelOf);
  const all = await Promise.all(labels.map(async (label) => pool.prove(label, [7, 0, 1])));
  assert.deepEqual(
    all,
    labels.map((label) => prover.prove(label, [7, 0, 1])),
  );
  assert.deepEqual(await pool.prove(alice, []), []);
  assert.deepEqual(await pool.places(alice, [7, 0]), prover.places(alice, [7, 0]));
  assert.deepEqual(await pool.places(alice, []), []);
  const alone = await pool.places(alice, [3]);
  assert.deepEqual(alone, prover.places(alice, [3]), 'by the calling thread');
  assert.deepEqual(
    await pool.prove(alice, [2, 3], [undefined, ...alone]),
    prover.prove(alice, [2, 3]),
  );
});

test('the jobs of a dead thread fail, the next ones get a new thread', async () => {
  await using pool = vrfPool(seed, 1);
  await pool.prove(alice, [0]);
  const worker = workers.at(-1);
  const jobs = [0, 1, 2].map(() =>
    proveWith(
      pool,
      Array.from({ length: 200 }, (_, i) => i),
    ),
  );
  const failed = jobs.map((job) => assert.rejects(job, { name: 'InternalError' }));
  await worker?.terminate();
  await Promise.all(failed);
  assert.deepEqual(await pool.prove(alice, [0]), nativeVrfProver(seed).prove(alice, [0]));
  assert.notEqual(workers.at(-1), worker);
});

test('bounds and closing are typed errors', async () => {
  for (const threads of [0, 1.5, 65]) {
    assert.throws(() => vrfPool(seed, threads), { name: 'InvalidArgumentError' });
  }
  assert.throws(() => vrfPool(seed.subarray(1), 1), { name: 'InvalidArgumentError' });
  await using pool = vrfPool(seed, 1);
  const tooMany = Array.from({ length: vrfPoolLimits.waitingMax + 1 }, () => 0);
  await assert.rejects(proveWith(pool, tooMany), { reason: 'QUEUE_FULL' });
  const waiting = assert.rejects(proveWith(pool, [0, 1, 2]), { reason: 'DRAINING' });
  await pool[Symbol.asyncDispose]();
  await waiting;
  await assert.rejects(proveWith(pool, [0]), { name: 'UnavailableError', reason: 'DRAINING' });
});

test('a log runs on a pool: updates that come together are proved before their batch closes', async () => {
  const { keys } = testKeys(40);
  await using pool = vrfPool(new Uint8Array(32).fill(42), 2);
  assert.deepEqual(pool.publicKey, keys.vrf.publicKey);
  const { log } = await testLog({ keys: { ...keys, vrf: pool } });
  const names = ['a', 'b', 'c', 'd'].map(labelOf);
  await Promise.all(names.map((label) => log.update({ label, values: [label] })));
  for (const label of names) assert.equal((await log.search({ label })).version, 0);
});
