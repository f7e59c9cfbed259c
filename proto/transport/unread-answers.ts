/**
 * Answers that wait for their readers. A peer decides when it takes an answer in, and may ask for a
 * hundred large ones at a time on each of its connections: what all of a listener keep in this way has
 * one bound, and whoever has most of it goes.
 */

/** What one connection has waiting. */
export interface Reader {
  bytes: number;
  /** The connection must go. */
  readonly end: () => void;
}

export class UnreadAnswers {
  readonly #allowedBytes: number;
  readonly #readers = new Set<Reader>();
  /** Their answers fail with them: nothing of them counts any more. */
  readonly #ended = new WeakSet<Reader>();
  #bytes = 0;

  /** `allowedBytes`: of all connections together. */
  constructor(allowedBytes: number) {
    this.#allowedBytes = allowedBytes;
  }

  /** An answer of so many bytes waits until the function that this returns is called, once. */
  hold(reader: Reader, bytes: number): () => void {
    if (this.#ended.has(reader)) return () => undefined;
    this.#readers.add(reader);
    reader.bytes += bytes;
    this.#bytes += bytes;
    while (this.#bytes > this.#allowedBytes) this.#endWorst(reader);
    return () => this.#release(reader, bytes);
  }

  #endWorst(reader: Reader): void {
    let worst = reader;
    for (const other of this.#readers) if (other.bytes > worst.bytes) worst = other;
    this.#ended.add(worst);
    this.#readers.delete(worst);
    this.#bytes -= worst.bytes;
    worst.bytes = 0;
    worst.end();
  }

  #release(reader: Reader, bytes: number): void {
    if (this.#ended.has(reader)) return;
    reader.bytes -= bytes;
    this.#bytes -= bytes;
    if (reader.bytes === 0) this.#readers.delete(reader);
  }
}
