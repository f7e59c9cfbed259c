/**
 * What an operator sees of outboxes and decides about what was given up, as an interface. `NodeStore` has these
 * methods too.
 */

/** What an outbox holds for one peer. */
export interface OutboxPeer {
  readonly domain: string;
  /** Since when it cannot be reached (Unix ms); 0 = it can, as far as is known. */
  readonly awaySinceMs: number;
  readonly rows: number;
  readonly bytes: number;
  readonly deadRows: number;
  readonly deadBytes: number;
}

/** A message that was given up for one device. */
export interface DeadLetter {
  readonly id: number;
  readonly peer: string;
  readonly rid: Uint8Array;
  readonly mid: Uint8Array;
  readonly kind: number;
  readonly bytes: number;
  /** A reason of proto/status.ts. */
  readonly reason: string;
  readonly createdMs: number;
  readonly deadMs: number;
  /** End of the message's own time to live. */
  readonly expiresMs: number;
}

export interface OutboxControl {
  /** Peers by domain, with what waits for them. */
  outboxPeers(): Promise<readonly OutboxPeer[]>;
  /** Dead letters with id > after, oldest first, at most `max`. */
  deadLetters(after: number, max: number): Promise<readonly DeadLetter[]>;
  /**
   * Dead letters go back to the tail of their outbox, for the rest of their time to live; those
   * without any stay. Unknown ids are skipped.
   */
  retryDead(
    ids: readonly number[],
  ): Promise<{ readonly retried: number; readonly expired: number }>;
  /** Removes dead letters for good. Returns how many there were. */
  dropDead(ids: readonly number[]): Promise<number>;
}
