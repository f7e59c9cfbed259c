/**
 * Writes the history of a run down, line by line, so that a killed driver leaves what it has. Times
 * are of the driver's wall clock or of a client's; both are this machine's.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { History, HistoryLine } from '../checkers/index.ts';

/** A line whose time is now. */
export type NewLine = HistoryLine extends infer Line
  ? Line extends HistoryLine
    ? Omit<Line, 'atMs'>
    : never
  : never;

export class Recorder implements Disposable {
  readonly path: string;
  readonly #file: number;
  readonly #lines: HistoryLine[] = [];
  #lastOp = 0;

  constructor(path: string) {
    this.path = path;
    this.#file = openSync(path, 'w');
  }

  get history(): History {
    return this.#lines;
  }

  write(line: HistoryLine): void {
    this.#lines.push(line);
    writeSync(this.#file, `${JSON.stringify(line)}\n`);
  }

  now(line: NewLine): void {
    this.write({ ...line, atMs: Date.now() });
  }

  /** A client operation: begun now, ended by how `work` ends, unknown when `isLost` says so. */
  async operation<T>(
    device: string,
    action: string,
    work: () => Promise<T>,
    isLost: (error: unknown) => boolean,
  ): Promise<T | undefined> {
    this.#lastOp += 1;
    const op = this.#lastOp;
    this.now({ kind: 'invoke', op, device, action });
    try {
      const value = await work();
      this.now({ kind: 'ok', op });
      return value;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (!isLost(error)) {
        this.now({ kind: 'fail', op, reason });
        throw error;
      }
      this.now({ kind: 'unknown', op, reason });
      return undefined;
    }
  }

  fault(name: string, target: string, detail?: string): void {
    this.now({ kind: 'fault', name, target, ...(detail === undefined ? {} : { detail }) });
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}
