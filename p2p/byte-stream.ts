/** A stream of bytes between two swarms, as the frame protocols here need it. */
export interface ByteStream {
  /**
   * Queues bytes; they leave in order. The caller bounds what it queues by `pendingBytes`. Nothing
   * happens on a stream that has ended.
   */
  write(bytes: Uint8Array): void;
  /** Queued here and not yet taken by the engine. */
  readonly pendingBytes: number;
  /** Sets the one listener of incoming bytes; until then they wait, within the engine's bound. */
  onData(listener: (chunk: Uint8Array) => void): void;
  /** Resolves when nothing can be read or written any more. Never rejects. */
  readonly closed: Promise<void>;
  /** Ends both directions at once; what is queued is lost. Idempotent. */
  abort(reason: string): void;
}
