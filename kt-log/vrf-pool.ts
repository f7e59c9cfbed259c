/**
 * VRF proving in worker threads, so that the thread of the log answers meanwhile. Jobs of one turn
 * travel together; an output that came alone is computed in the calling thread, because
 * the way to another one and back costs as much. A thread that dies fails the jobs it had, and the
 * next job gets a new one.
 */
import {
  InternalError,
  InvalidArgumentError,
  ResourceExhaustedError,
  UnavailableError,
} from '@quicprochat/proto/status';
import type { KeyObject } from 'node:crypto';
import { createSecretKey } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { hashBytes, vrfProofBytes } from './hash.ts';
import { nativeVrf, nativeVrfProver } from './native-vrf.ts';
import type { ImmediateVrfProver, VrfEvaluation, VrfPlace, VrfProver } from './vrf.ts';

/** Most threads of a pool, and evaluations that may wait in it. */
export const vrfPoolLimits = { threadsMax: 64, waitingMax: 65_536 } as const;

/** Evaluations of one message: few enough that all threads get their part of a batch. */
const evaluationsPerMessage = 32;

/** What a worker starts with. The key is one of OpenSSL's memory, not of a JavaScript heap. */
export interface VrfWorkerStart {
  readonly seed: KeyObject;
}
export interface VrfJob {
  readonly wanted: 'proofs' | 'places';
  readonly label: Uint8Array;
  readonly versions: readonly number[];
  /** For proofs: what the calling side has of them. */
  readonly places: readonly (VrfPlace | undefined)[];
}
export interface VrfRequest {
  readonly id: number;
  readonly jobs: readonly VrfJob[];
}
export interface VrfReply {
  readonly id: number;
  /** Of each job, in their order. */
  readonly packed: readonly Uint8Array[];
}

const evaluationBytes = hashBytes + vrfProofBytes;
const placeBytes = 3 * hashBytes;

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

export function packPlaces(places: readonly VrfPlace[]): Uint8Array<ArrayBuffer> {
  const packed = new Uint8Array(places.length * placeBytes);
  places.forEach(({ output, points }, i) => {
    packed.set(output, i * placeBytes);
    packed.set(points, i * placeBytes + hashBytes);
  });
  return packed;
}
function unpackPlaces(packed: Uint8Array): VrfPlace[] {
  return Array.from({ length: packed.length / placeBytes }, (_, i) => {
    const at = i * placeBytes;
    return {
      output: packed.slice(at, at + hashBytes),
      points: packed.slice(at + hashBytes, at + placeBytes),
    };
  });
}

/** A job and who waits for it. */
interface Waiting {
  readonly job: VrfJob;
  readonly resolve: (packed: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** One thread and the jobs that it has. */
class Prover {
  readonly #worker: Worker;
  readonly #requests = new Map<number, readonly Waiting[]>();
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

  do(waiting: readonly Waiting[]): void {
    const request: VrfRequest = { id: this.#nextId++, jobs: waiting.map(({ job }) => job) };
    this.#requests.set(request.id, waiting);
    this.#evaluations += evaluationsOf(waiting);
    this.#worker.postMessage(request);
  }

  #receive({ id, packed }: VrfReply): void {
    const waiting = this.#requests.get(id);
    if (waiting === undefined) return;
    this.#requests.delete(id);
    this.#evaluations -= evaluationsOf(waiting);
    for (const [i, { resolve, reject }] of waiting.entries()) {
      const made = packed[i];
      if (made === undefined) reject(new InternalError('vrf worker: left out a job'));
      else resolve(made);
    }
  }

  #die(error: Error): void {
    this.#isDead = true;
    for (const waiting of this.#requests.values()) for (const { reject } of waiting) reject(error);
    this.#requests.clear();
    this.#evaluations = 0;
  }

  async end(): Promise<void> {
    this.#die(new UnavailableError('DRAINING', 'vrf pool: closing'));
    await this.#worker.terminate();
  }
}

function evaluationsOf(waiting: readonly Waiting[]): number {
  return waiting.reduce((sum, { job }) => sum + job.versions.length, 0);
}

/** Whether the way to another thread would be the larger part. */
function isShort({ wanted, versions }: VrfJob): boolean {
  return wanted === 'places' && versions.length === 1 && nativeVrf.name === 'wasm';
}

class VrfPool implements VrfProver, AsyncDisposable {
  readonly publicKey: Uint8Array;
  readonly #seed: KeyObject;
  readonly #provers: Prover[];
  /** For an output that is alone in its turn. */
  readonly #own: ImmediateVrfProver;
  /** Jobs of this turn. */
  #waiting: Waiting[] = [];
  #isClosed = false;

  constructor(seed: Uint8Array, threads: number) {
    this.#own = nativeVrfProver(seed);
    this.publicKey = this.#own.publicKey;
    this.#seed = createSecretKey(seed);
    this.#provers = Array.from({ length: threads }, () => new Prover(this.#seed));
  }

  async prove(
    label: Uint8Array,
    versions: readonly number[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): Promise<readonly VrfEvaluation[]> {
    return unpackEvaluations(await this.#do({ wanted: 'proofs', label, versions, places }));
  }
  async places(label: Uint8Array, versions: readonly number[]): Promise<readonly VrfPlace[]> {
    return unpackPlaces(await this.#do({ wanted: 'places', label, versions, places: [] }));
  }

  async #do(job: VrfJob): Promise<Uint8Array> {
    const { label, versions } = job;
    if (versions.length === 0) return new Uint8Array();
    if (this.#isClosed) throw new UnavailableError('DRAINING', 'vrf pool: closing');
    const before = this.#provers.reduce((sum, prover) => sum + prover.waiting, 0);
    const waiting = before + evaluationsOf(this.#waiting);
    if (waiting + versions.length > vrfPoolLimits.waitingMax) {
      const message = `vrf pool: ${vrfPoolLimits.waitingMax} evaluations wait`;
      throw new ResourceExhaustedError('QUEUE_FULL', message);
    }
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    if (this.#waiting.length === 0) queueMicrotask(() => this.#start());
    // Copied: the caller may use its buffer again before the turn is over.
    this.#waiting.push({ job: { ...job, label: label.slice() }, resolve, reject });
    return promise;
  }

  /** Hands out the jobs of a turn. */
  #start(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    const [first] = waiting;
    if (first === undefined) return;
    if (waiting.length === 1 && isShort(first.job)) {
      const { job, resolve, reject } = first;
      try {
        resolve(packPlaces(this.#own.places(job.label, job.versions)));
      } catch (error) {
        reject(error);
      }
      return;
    }
    let message: Waiting[] = [];
    for (const one of waiting) {
      message.push(one);
      if (evaluationsOf(message) < evaluationsPerMessage) continue;
      this.#idlest().do(message);
      message = [];
    }
    if (message.length > 0) this.#idlest().do(message);
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
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new UnavailableError('DRAINING', 'vrf pool: closing'));
    }
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
