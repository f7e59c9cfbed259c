/**
 * VRF proving in worker threads, so that the thread of the log answers meanwhile. A thread that dies
 * fails the jobs it had, and the next job gets a new one.
 */
import { signingKeyFromSeed } from '@quicprochat/proto';
import {
  InternalError,
  InvalidArgumentError,
  ResourceExhaustedError,
  UnavailableError,
} from '@quicprochat/proto/status';
import type { KeyObject } from 'node:crypto';
import { createSecretKey } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import type { Hash } from './hash.ts';
import { hashBytes, vrfProofBytes } from './hash.ts';
import type { VrfEvaluation, VrfProver } from './vrf.ts';

/** Most threads of a pool, and evaluations that may wait in it. */
export const vrfPoolLimits = { threadsMax: 64, waitingMax: 65_536 } as const;

/** What a worker starts with. The key is one of OpenSSL's memory, not of a JavaScript heap. */
export interface VrfWorkerStart {
  readonly seed: KeyObject;
}
export interface VrfJob {
  readonly id: number;
  readonly wanted: 'proofs' | 'outputs';
  readonly label: Uint8Array;
  readonly versions: readonly number[];
}
export interface VrfReply {
  readonly id: number;
  readonly packed: Uint8Array;
}

const evaluationBytes = hashBytes + vrfProofBytes;

/** Outputs and proofs side by side, in memory that can be handed to another thread. */
export function packEvaluations(evaluations: readonly VrfEvaluation[]): Uint8Array<ArrayBuffer> {
  const packed = new Uint8Array(evaluations.length * evaluationBytes);
  evaluations.forEach(({ output, proof }, i) => {
    packed.set(output, i * evaluationBytes);
    packed.set(proof, i * evaluationBytes + hashBytes);
  });
  return packed;
}
function unpackEvaluations(packed: Uint8Array): VrfEvaluation[] {
  return Array.from({ length: packed.length / evaluationBytes }, (_, i) => {
    const at = i * evaluationBytes;
    return {
      output: packed.slice(at, at + hashBytes),
      proof: packed.slice(at + hashBytes, at + evaluationBytes),
    };
  });
}

export function packOutputs(outputs: readonly Hash[]): Uint8Array<ArrayBuffer> {
  const packed = new Uint8Array(outputs.length * hashBytes);
  outputs.forEach((output, i) => packed.set(output, i * hashBytes));
  return packed;
}
function unpackOutputs(packed: Uint8Array): Hash[] {
  return Array.from({ length: packed.length / hashBytes }, (_, i) =>
    packed.slice(i * hashBytes, (i + 1) * hashBytes),
  );
}

interface Waiting {
  readonly count: number;
  resolve(packed: Uint8Array): void;
  reject(error: Error): void;
}

/** One thread and the jobs that it has. */
class Prover {
  readonly #worker: Worker;
  readonly #jobs = new Map<number, Waiting>();
  #evaluations = 0;
  #nextId = 0;
  #isDead = false;

  constructor(seed: KeyObject) {
    // The extension is not rewritten inside a URL when this file is emitted as JavaScript.
    const file = import.meta.url.endsWith('.ts') ? './vrf-worker.ts' : './vrf-worker.js';
    const workerData: VrfWorkerStart = { seed };
    this.#worker = new Worker(new URL(file, import.meta.url), {
      name: 'kt-vrf',
      workerData,
      env: {},
    });
    this.#worker.on('message', (reply: VrfReply) => this.#receive(reply));
    this.#worker.on('error', (error) =>
      this.#die(new InternalError('vrf worker: failed', { cause: error })),
    );
    this.#worker.on('exit', () => this.#die(new InternalError('vrf worker: ended')));
  }

  get isDead(): boolean {
    return this.#isDead;
  }
  /** Evaluations that it still has to prove. */
  get waiting(): number {
    return this.#evaluations;
  }

  do(
    wanted: VrfJob['wanted'],
    label: Uint8Array,
    versions: readonly number[],
  ): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    const job: VrfJob = { id: this.#nextId++, wanted, label: label.slice(), versions };
    this.#jobs.set(job.id, { count: versions.length, resolve, reject });
    this.#evaluations += versions.length;
    this.#worker.postMessage(job);
    return promise;
  }

  #receive(reply: VrfReply): void {
    const job = this.#jobs.get(reply.id);
    if (job === undefined) return;
    this.#jobs.delete(reply.id);
    this.#evaluations -= job.count;
    job.resolve(reply.packed);
  }

  #die(error: Error): void {
    this.#isDead = true;
    for (const job of this.#jobs.values()) job.reject(error);
    this.#jobs.clear();
    this.#evaluations = 0;
  }

  async end(): Promise<void> {
    this.#die(new UnavailableError('DRAINING', 'vrf pool: closing'));
    await this.#worker.terminate();
  }
}

class VrfPool implements VrfProver, AsyncDisposable {
  readonly publicKey: Uint8Array;
  readonly #seed: KeyObject;
  readonly #provers: Prover[];
  #isClosed = false;

  constructor(seed: Uint8Array, threads: number) {
    this.publicKey = signingKeyFromSeed(seed).publicKey;
    this.#seed = createSecretKey(seed);
    this.#provers = Array.from({ length: threads }, () => new Prover(this.#seed));
  }

  async prove(label: Uint8Array, versions: readonly number[]): Promise<readonly VrfEvaluation[]> {
    return unpackEvaluations(await this.#do('proofs', label, versions));
  }
  async outputs(label: Uint8Array, versions: readonly number[]): Promise<readonly Hash[]> {
    return unpackOutputs(await this.#do('outputs', label, versions));
  }

  async #do(
    wanted: VrfJob['wanted'],
    label: Uint8Array,
    versions: readonly number[],
  ): Promise<Uint8Array> {
    if (versions.length === 0) return new Uint8Array();
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'vrf pool: closing');
    const waiting = this.#provers.reduce((sum, prover) => sum + prover.waiting, 0);
    if (waiting + versions.length > vrfPoolLimits.waitingMax) {
      const message = `vrf pool: ${vrfPoolLimits.waitingMax} evaluations wait`;
      throw new ResourceExhaustedError('QUEUE_FULL', message);
    }
    return this.#idlest().do(wanted, label, versions);
  }

  /** The living thread with the least to do; dead ones are replaced on the way. */
  #idlest(): Prover {
    for (const [i, prover] of this.#provers.entries()) {
      if (prover.isDead) this.#provers[i] = new Prover(this.#seed);
    }
    return this.#provers.reduce((best, prover) => (prover.waiting < best.waiting ? prover : best));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#provers.map((prover) => prover.end()));
  }
}

/**
 * Proves in `threads` worker threads (1 to 64). `seed` is an Ed25519 seed (32 bytes) used for nothing
 * else; the caller wipes it. Jobs throw InternalError when their thread died, UnavailableError
 * DRAINING after the pool was closed, ResourceExhaustedError QUEUE_FULL. Throws InvalidArgumentError.
 */
export function vrfPool(seed: Uint8Array, threads: number): VrfProver & AsyncDisposable {
  const isCount = Number.isInteger(threads) && threads >= 1 && threads <= vrfPoolLimits.threadsMax;
  if (!isCount || seed.length !== 32) {
    const message = `vrf pool: 1 to ${vrfPoolLimits.threadsMax} threads, a seed of 32 bytes`;
    throw new InvalidArgumentError('BAD_FIELD', message);
  }
  return new VrfPool(seed, threads);
}
