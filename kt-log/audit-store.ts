/**
 * What a follower of logs keeps: the AuditStore interface, and the store that keeps it in memory.
 * One replayed state per log that only grows, the log's signed heads, evidence. The suite that
 * every implementation has to pass is in audit-store-contract.ts. Browser-safe.
 */
import { ConflictError } from '@quicprochat/proto/status';
import type { EvidenceKind, SignedHead } from './evidence.ts';
import type { Hash } from './hash.ts';
import { sameBytes } from './hash.ts';

/**
 * What a follower thinks of a log. `behind`: not yet, or not now, replayed up to the log's newest
 * checkpoint. `suspect`: it answers what an honest log would not, which convicts nobody. `forked`:
 * there is evidence of two histories. `invalid`: there is evidence of another breach.
 */
export const logStatuses = ['ok', 'behind', 'suspect', 'forked', 'invalid'] as const;
export type LogStatus = (typeof logStatuses)[number];

/** Statuses that evidence stands behind: nothing is replayed or cosigned until a person decides. */
export function isConvicted(status: LogStatus | undefined): boolean {
  return status === 'forked' || status === 'invalid';
}

/** One log as it was replayed. */
export interface FollowedLog {
  readonly origin: string;
  /** Entries that were replayed. */
  readonly size: number;
  /** What the follower needs to go on (follow.ts), below 8 KB. */
  readonly state: Uint8Array;
  readonly rfc6962Root: Hash;
  /** The checkpoint of `size`: a C2SP note with the log's signature. */
  readonly checkpoint: Uint8Array;
}

export interface EvidenceRecord {
  readonly origin: string;
  readonly kind: EvidenceKind;
  /** SHA-256 of `bytes`: the name of the record. */
  readonly hash: Hash;
  /** What checkEvidence takes. */
  readonly bytes: Uint8Array;
  readonly foundMs: number;
}

export interface AuditStore {
  /** The replayed state; undefined before the first `advance`. */
  followed(origin: string): Promise<FollowedLog | undefined>;
  /**
   * Replaces the replayed state in one transaction; durable on return. The same size and root again
   * changes nothing. Throws ConflictError SEQ_CONFLICT, and changes nothing, for a smaller size, for
   * another root at the same size, and while the log's status is `forked` or `invalid`.
   */
  advance(log: FollowedLog): Promise<void>;

  /** Undefined for a log whose status was never set. */
  status(origin: string): Promise<LogStatus | undefined>;
  /** Durable on return; also for a log that was not followed yet. */
  setStatus(origin: string, status: LogStatus): Promise<void>;

  /** At most `max` heads of `fromSize` and above, by ascending size. */
  heads(origin: string, fromSize: number, max: number): Promise<readonly SignedHead[]>;
  /**
   * Keeps heads whose signatures the caller verified; for a size that is there the first one stays.
   * Durable on return. Throws ConflictError SEQ_CONFLICT, and keeps none of them, when another root
   * is held for one of the sizes or two of them differ.
   */
  putHeads(origin: string, heads: readonly SignedHead[]): Promise<void>;

  /**
   * Keeps a record (the first one of each hash stays), and sets the log's status with it in the same
   * transaction: a log is not convicted without evidence, nor evidence kept of one that goes on.
   * Durable on return.
   */
  putEvidence(record: EvidenceRecord, status: LogStatus): Promise<void>;
  /** All records, or those of one log, in the order in which they came. */
  evidence(origin?: string): Promise<readonly EvidenceRecord[]>;
}

/** Whether `next` may replace what is held. Throws ConflictError SEQ_CONFLICT. */
export function checkAdvance(
  held: Pick<FollowedLog, 'size' | 'rfc6962Root'> | undefined,
  status: LogStatus | undefined,
  next: FollowedLog,
): void {
  const refuse = (why: string): ConflictError =>
    new ConflictError('SEQ_CONFLICT', `audit store: size ${next.size}, ${why}`);
  if (status !== undefined && isConvicted(status)) throw refuse(`the log is ${status}`);
  if (held === undefined || next.size > held.size) return;
  if (next.size < held.size) throw refuse(`replayed up to ${held.size}`);
  if (!sameBytes(next.rfc6962Root, held.rfc6962Root)) throw refuse('another root is held');
}

/** Keeps everything in memory: for tests, simulations, and commands that save it themselves. */
export class MemoryAuditStore implements AuditStore {
  readonly #followed = new Map<string, FollowedLog>();
  readonly #statuses = new Map<string, LogStatus>();
  readonly #heads = new Map<string, Map<number, SignedHead>>();
  readonly #evidence: EvidenceRecord[] = [];

  async followed(origin: string): Promise<FollowedLog | undefined> {
    return this.#followed.get(origin);
  }
  async advance(log: FollowedLog): Promise<void> {
    const held = this.#followed.get(log.origin);
    checkAdvance(held, this.#statuses.get(log.origin), log);
    if (held?.size !== log.size) this.#followed.set(log.origin, log);
  }

  async status(origin: string): Promise<LogStatus | undefined> {
    return this.#statuses.get(origin);
  }
  async setStatus(origin: string, status: LogStatus): Promise<void> {
    this.#statuses.set(origin, status);
  }

  async heads(origin: string, fromSize: number, max: number): Promise<readonly SignedHead[]> {
    const held = [...(this.#heads.get(origin)?.values() ?? [])];
    const wanted = held.filter((head) => head.size >= fromSize);
    return wanted.toSorted((a, b) => a.size - b.size).slice(0, max);
  }
  async putHeads(origin: string, heads: readonly SignedHead[]): Promise<void> {
    const next = new Map(this.#heads.get(origin));
    for (const head of heads) {
      const held = next.get(head.size);
      if (held !== undefined && !sameBytes(held.root, head.root)) {
        throw new ConflictError('SEQ_CONFLICT', `audit store: another head of size ${head.size}`);
      }
      if (held === undefined) next.set(head.size, head);
    }
    this.#heads.set(origin, next);
  }

  async putEvidence(record: EvidenceRecord, status: LogStatus): Promise<void> {
    this.#statuses.set(record.origin, status);
    if (this.#evidence.some((one) => sameBytes(one.hash, record.hash))) return;
    this.#evidence.push(record);
  }
  async evidence(origin?: string): Promise<readonly EvidenceRecord[]> {
    return this.#evidence.filter((one) => origin === undefined || one.origin === origin);
  }
}
