/**
 * What an unanswered or refused batch means, and the bisection that finds the one row that a
 * receiver cannot take, so that the stream behind it goes on (docs/decisions/0004).
 */
import { maxRelayItems, QpcError, Status, TransportError, type Clock } from '@quicprochat/proto';

export const poisonLimits = {
  /** Failures with Internal before a batch is halved; a refusal is believed at once. */
  triesPerBatch: 3,
  /** Failures of a single row before it becomes a dead letter. */
  triesPerRow: 5,
  /**
   * A second row in a row must fail this long (ms): a peer that is broken as a whole would
   * otherwise turn the queue into dead letters within minutes.
   */
  nextDeadAfterMs: 3_600_000,
} as const;

/**
 * - `link`: the connection or the peer's consent is gone; the session ends.
 * - `pause`: the peer asks for time; not a failure.
 * - `gap`: the receiver stands elsewhere; compare cursors again.
 * - `internal`: the receiver failed, maybe because of one row.
 * - `refused`, `tooLarge`: the receiver says that the batch itself is wrong.
 */
export type RelayFault = 'link' | 'pause' | 'gap' | 'internal' | 'refused' | 'tooLarge';

/** Classifies the error of a relay call. */
export function relayFault(error: unknown): RelayFault {
  if (!(error instanceof QpcError)) return 'link';
  if (error instanceof TransportError) return error.failure === 'limit' ? 'pause' : 'link';
  switch (error.status) {
    case Status.ResourceExhausted:
    case Status.Unavailable:
    case Status.DeadlineExceeded:
      return 'pause';
    case Status.InvalidArgument:
      return 'refused';
    case Status.PayloadTooLarge:
      return 'tooLarge';
    case Status.DataLoss:
      return error.reason === 'STREAM_GAP' ? 'gap' : 'link';
    case Status.Unauthenticated:
    case Status.PermissionDenied:
    case Status.FailedPrecondition:
    case Status.Unimplemented:
      return 'link';
    case Status.NotFound:
    case Status.Conflict:
    case Status.Internal:
      return 'internal';
  }
}

/** Counts the failures of one lane's batches and says how large the next one may be. */
export class PoisonWatch {
  readonly #clock: Clock;
  #itemsMax = maxRelayItems;
  /** The failing batch that is watched, as "firstSeq+items". */
  #watched = '';
  #tries = 0;
  #sinceMs = 0;
  /** Last seq of the batch that failed first; 0 = none. */
  #endSeq = 0;
  #deadInARow = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** True while a suspicious stretch of rows is being sent: one batch at a time then. */
  get isActive(): boolean {
    return this.#endSeq > 0;
  }

  get itemsMax(): number {
    return this.#itemsMax;
  }

  /** Failures of the batch now watched, since it had this size. */
  get tries(): number {
    return this.#tries;
  }

  /** How long the watched batch has been failing (ms). */
  get failingForMs(): number {
    return this.#watched === '' ? 0 : this.#clock.monotonic() - this.#sinceMs;
  }

  /** A batch failed. `drop`: it is a single row that never gets through. */
  failed(firstSeq: number, items: number, fault: RelayFault): 'retry' | 'drop' {
    this.#endSeq = Math.max(this.#endSeq, firstSeq + items - 1);
    const key = `${firstSeq}+${items}`;
    if (key !== this.#watched) {
      this.#watched = key;
      this.#tries = 0;
      this.#sinceMs = this.#clock.monotonic();
    }
    this.#tries += 1;
    if (items > 1) {
      if (fault !== 'internal' || this.#tries >= poisonLimits.triesPerBatch) {
        this.#itemsMax = Math.ceil(items / 2);
        this.#tries = 0;
      }
      return 'retry';
    }
    if (fault === 'tooLarge') return 'drop';
    if (this.#tries < poisonLimits.triesPerRow) return 'retry';
    const failedForMs = this.#clock.monotonic() - this.#sinceMs;
    const isEnough = this.#deadInARow === 0 || failedForMs >= poisonLimits.nextDeadAfterMs;
    return isEnough ? 'drop' : 'retry';
  }

  /** The receiver's cursor moved to `cursor`. */
  succeeded(cursor: number): void {
    this.#deadInARow = 0;
    this.#tries = 0;
    if (cursor >= this.#endSeq) this.#forget();
  }

  /** The row became a dead letter. */
  dropped(): void {
    this.#deadInARow += 1;
  }

  /** The rows got new seqs: what was known of the old ones is void. */
  renumbered(): void {
    this.#forget();
  }

  #forget(): void {
    this.#itemsMax = maxRelayItems;
    this.#watched = '';
    this.#tries = 0;
    this.#endSeq = 0;
  }
}
