/**
 * The store of a simulated node: the core of production over a real file, behind a channel that takes
 * time, commits what waits together, and at whose named points the process can die.
 */
import { UnavailableError } from '@quicprochat/proto';
import {
  pack,
  readOperations,
  RowListeners,
  StoreCore,
  type BatchOutcome,
  type OperationArgs,
  type OperationName,
  type OperationRequest,
  type OperationResult,
  type StoreChannel,
  type StoreReads,
} from '@quicprochat/nodes/store/simulation';
import type { NodeConfig } from '@quicprochat/nodes';
import { never, type Process, type SimRandom } from './process.ts';
import type { Scheduler } from './scheduler.ts';

/** Where a node can die, in the order in which a call passes them. */
export const nodeCrashPoints = [
  'node:before-commit',
  'node:after-commit-before-reply',
  'node:after-reply',
  'node:after-checkpoint',
] as const;
export type NodeCrashPoint = (typeof nodeCrashPoints)[number];

interface PendingCall {
  readonly request: OperationRequest;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface SimChannelParts {
  readonly path: string;
  readonly key: Uint8Array;
  readonly limits: NodeConfig['store'];
  readonly scheduler: Scheduler;
  readonly process: Process;
  readonly random: SimRandom;
  /** Time that a commit takes (ms), asked for each. */
  readonly commitMs: () => number;
  /** Whether the process dies at this point, now. Killing it is the answerer's business. */
  readonly dies: (point: NodeCrashPoint) => boolean;
  /** Whether this run has deaths at this point at all. */
  readonly mayDie?: (point: NodeCrashPoint) => boolean;
  /** What is asked instead of what a caller asks. */
  readonly changed?: (request: OperationRequest) => OperationRequest;
  /** A transaction is on disk. */
  readonly onCommit: (requests: readonly OperationRequest[], outcome: BatchOutcome) => void;
  /** Its callers were told. */
  readonly onReply: (requests: readonly OperationRequest[], outcome: BatchOutcome) => void;
}

export class SimChannel implements StoreChannel {
  readonly failed: Promise<Error> = never();
  readonly #parts: SimChannelParts;
  readonly #core: StoreCore;
  readonly #listeners: RowListeners;
  #waiting: PendingCall[] = [];
  #isFlushPlanned = false;
  #isClosed = false;
  /** Replies leave in the order of their commits. */
  #replyAtMs = 0;

  /** Throws StoreOpenError. */
  constructor(parts: SimChannelParts) {
    const { path, key, limits, process } = parts;
    this.#parts = parts;
    this.#core = new StoreCore({ path, key, limits, random: process.runtime.random });
    this.#listeners = new RowListeners(process.runtime.log);
  }

  get storeId(): Uint8Array {
    return this.#core.storeId;
  }

  call<N extends OperationName>(name: N, ...args: OperationArgs<N>): Promise<OperationResult<N>> {
    if (this.#parts.process.isDead) return never();
    if (this.#isClosed) {
      return Promise.reject(new UnavailableError('DRAINING', 'the store is closed'));
    }
    // The signature of `call` pairs name and arguments; they are copied as on the way to a thread.
    const asked = { name, args: pack(args).value } as unknown as OperationRequest;
    const request = this.#parts.changed?.(asked) ?? asked;
    return new Promise((resolve, reject) => {
      this.#waiting.push({
        request,
        // The operation of this name returned it.
        resolve: (value) => resolve(value as OperationResult<N>),
        reject,
      });
      this.#planFlush();
    });
  }

  read<T>(query: (reads: StoreReads) => T): T {
    if (this.#isClosed && !this.#parts.process.isDead) {
      throw new UnavailableError('DRAINING', 'the store is closed');
    }
    return this.#core.read(query);
  }

  onRows(listener: (ridHex: string) => void): Disposable {
    return this.#listeners.add(listener);
  }

  /** What was called is committed and answered first. */
  async close(): Promise<void> {
    if (this.#parts.process.isDead) return never();
    if (this.#isClosed) return undefined;
    this.#isClosed = true;
    const waiting = this.#waiting.splice(0);
    if (waiting.length > 0) this.#commit(waiting);
    this.#core[Symbol.dispose]();
    return undefined;
  }

  /** Frees the file of a process that is dead. */
  abandon(): void {
    this.#core[Symbol.dispose]();
  }

  #planFlush(): void {
    if (this.#isFlushPlanned) return;
    this.#isFlushPlanned = true;
    this.#parts.scheduler.after(this.#parts.commitMs(), () => {
      this.#isFlushPlanned = false;
      if (this.#parts.process.isDead || this.#isClosed) return;
      if (this.#parts.dies('node:before-commit')) return;
      const waiting = this.#waiting.splice(0);
      if (waiting.length > 0) this.#commit(waiting);
    });
  }

  #commit(calls: readonly PendingCall[]): void {
    const { scheduler, process, commitMs, dies, mayDie, onCommit, onReply } = this.#parts;
    const requests = calls.map(({ request }) => request);
    const isReading = requests.every(({ name }) => readOperations.has(name));
    const outcome = this.#core.run(process.runtime.clock.now(), requests);
    onCommit(requests, outcome);
    if (!isReading && dies('node:after-commit-before-reply')) return;
    const reply = (): void => {
      if (process.isDead) return;
      onReply(requests, outcome);
      for (const [index, call] of calls.entries()) {
        const one = outcome.outcomes[index];
        if (one?.isOk === true) call.resolve(pack(one.value).value);
        else call.reject(one?.error ?? new Error('no outcome'));
      }
      this.#listeners.tell(outcome.woken);
      // Once what the answers set in motion has gone as far as it goes without time.
      if (!isReading && mayDie?.('node:after-reply') !== false)
        scheduler.after(0, () => void (process.isDead || dies('node:after-reply')));
    };
    if (this.#isClosed) {
      reply();
      return;
    }
    this.#replyAtMs = Math.max(this.#replyAtMs, scheduler.nowMs + commitMs() / 4);
    const checkpoint = (): void => {
      if (process.isDead || this.#isClosed) return;
      this.#core.checkpointIfDue();
      dies('node:after-checkpoint');
    };
    // Where nobody dies at it, it needs no moment of its own.
    const isOwnStep = !isReading && mayDie?.('node:after-checkpoint') !== false;
    scheduler.after(this.#replyAtMs - scheduler.nowMs, () => {
      reply();
      if (!isReading && !isOwnStep) checkpoint();
    });
    if (isOwnStep) scheduler.after(commitMs() / 2, checkpoint);
  }
}
