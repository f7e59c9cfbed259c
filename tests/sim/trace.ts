/**
 * What happened in one run, in order: a hash over all of it, the faults that fired, the history for the
 * checkers, and the lines themselves where somebody wants to read them.
 */
import { createHash } from 'node:crypto';
import type { HistoryLine } from '../checkers/index.ts';
import type { Scheduler } from './scheduler.ts';

export class Trace {
  readonly history: HistoryLine[] = [];
  /** How often each fault fired; crash points count as `crash:<point>`. */
  readonly faults = new Map<string, number>();
  /** Commits that hubs accepted, and how often one lost its epoch to another. */
  readonly commits = { accepted: 0, lost: 0 };
  readonly #scheduler: Scheduler;
  readonly #onLine: ((line: string) => void) | undefined;
  readonly #hash = createHash('sha256');
  readonly #labels = new Map<string, string>();

  constructor(scheduler: Scheduler, onLine?: (line: string) => void) {
    this.#scheduler = scheduler;
    this.#onLine = onLine;
  }

  /**
   * A name for bytes that differ from run to run, since WebCrypto and MLS draw some of their own: equal for
   * equal bytes, and by the order in which they come up.
   */
  label(what: string, bytes: Uint8Array): string {
    const key = `${what} ${Buffer.from(bytes).toString('hex')}`;
    const known = this.#labels.get(key) ?? `${what}${this.#labels.size + 1}`;
    this.#labels.set(key, known);
    return known;
  }

  /** Something that happened, for the hash and the reader. */
  note(process: string, what: string, detail: string): void {
    this.#line(`${process} ${what} ${detail}`);
  }

  /** A fault that really fired. */
  fault(name: string, target: string, detail?: string): void {
    this.faults.set(name, (this.faults.get(name) ?? 0) + 1);
    this.#line(`FAULT ${name} ${target} ${detail ?? ''}`);
    const atMs = this.#scheduler.nowMs;
    this.history.push({
      kind: 'fault',
      atMs,
      name,
      target,
      ...(detail === undefined ? {} : { detail }),
    });
  }

  /** A line of the history. */
  tell(line: HistoryLine): void {
    this.history.push(line);
    this.#line(JSON.stringify(line));
  }

  get nowMs(): number {
    return this.#scheduler.nowMs;
  }

  /** Ends the trace. */
  digest(): string {
    return this.#hash.digest('hex').slice(0, 16);
  }

  #line(text: string): void {
    const line = `${this.#scheduler.nowMs.toFixed(3)} ${text}`;
    this.#hash.update(line);
    this.#onLine?.(line);
  }
}
