/** The thread of vrf-pool.ts: proves what it is asked to, one job after the other. */
import { parentPort, workerData } from 'node:worker_threads';
import { nativeVrfProver } from './native-vrf.ts';
import type { VrfReply, VrfRequest, VrfWorkerStart } from './vrf-pool.ts';
import { packEvaluations, packPlaces } from './vrf-pool.ts';

if (parentPort === null) throw new Error('vrf worker: runs in a worker thread only');
const port = parentPort;
// Only vrfPool starts this file.
const { seed: key } = workerData as VrfWorkerStart;
const seed = key.export();
const prover = nativeVrfProver(seed);
seed.fill(0);

port.on('message', ({ id, jobs }: VrfRequest) => {
  const packed = jobs.map(({ wanted, label, versions, places }) =>
    wanted === 'proofs'
      ? packEvaluations(prover.prove(label, versions, places))
      : packPlaces(prover.places(label, versions)),
  );
  const buffers = packed.map(({ buffer }) => buffer);
  port.postMessage({ id, packed } satisfies VrfReply, buffers);
});
