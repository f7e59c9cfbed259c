/**
 * Which head answers are built at (kt-log/README.md): a head is served as soon as it is committed,
 * but one that a quorum of cosigners has signed is preferred while it is not outdated. Checks and
 * keeps the cosignatures, and lets an update wait for the quorum.
 */
import type { Clock } from '@quicprochat/proto';
import { NotFoundError } from '@quicprochat/proto/status';
import { checkpointText } from './entry-writer.ts';
import type { LogIdentity, NoteKey, NoteSignature } from './note.ts';
import {
  formatNote,
  noteLimits,
  parseCheckpoint,
  parseNote,
  SignatureType,
  verifyNote,
} from './note.ts';
import type { Policy } from './policy.ts';
import { meetsQuorum } from './policy.ts';
import type { Snapshot } from './snapshot.ts';
import type { StoredHead, TreeStore } from './store.ts';
import type { VerifierSuite } from './suite.ts';
import { verify } from './verification-error.ts';

/** Who may cosign this log's checkpoints, and which of them make a quorum. */
export interface Cosigners {
  /** Cosigner keys of type cosignature/v1; signatures of others are ignored. */
  readonly keys: readonly NoteKey[];
  /** Without one, the newest head is served at once. */
  readonly policy?: Policy | undefined;
}

export interface ServedHeadLimits {
  /** How long after the next head came a head with quorum is still preferred, in milliseconds. */
  readonly outdatedMs: number;
  /** How long an update waits for the quorum of a head that holds it, in milliseconds. */
  readonly quorumMs: number;
}
export const defaultServedHeadLimits: ServedHeadLimits = { outdatedMs: 5000, quorumMs: 2000 };

export interface ServedHeadsOptions {
  readonly identity: LogIdentity;
  readonly store: TreeStore;
  readonly suite: VerifierSuite;
  readonly clock: Clock;
  readonly limits: ServedHeadLimits;
  readonly cosigners: () => Cosigners;
}

interface Waiter {
  readonly size: number;
  done(): void;
}

export class ServedHeads {
  readonly #options: ServedHeadsOptions;
  #newest: StoredHead | undefined;
  /** The greatest head with a quorum that was seen since the start. */
  #witnessed: StoredHead | undefined;
  /** When each head was published that followed within `outdatedMs`, by size, ascending. */
  readonly #publishedMs = new Map<number, number>();
  readonly #waiters = new Set<Waiter>();
  #isClosed = false;

  constructor(options: ServedHeadsOptions) {
    this.#options = options;
  }

  /** The newest committed head; undefined for an empty log. */
  get newest(): StoredHead | undefined {
    return this.#newest;
  }

  publish(head: StoredHead): void {
    const { clock, limits } = this.#options;
    // The same head once more: what the store held after a failed commit.
    if (head.size <= (this.#newest?.size ?? 0)) return;
    const nowMs = clock.monotonic();
    for (const [size, atMs] of this.#publishedMs) {
      if (nowMs - atMs < limits.outdatedMs) break;
      this.#publishedMs.delete(size);
    }
    this.#publishedMs.set(head.size, nowMs);
    this.#newest = head;
  }

  /**
   * The state for an answer to somebody who has seen `sizeMin` entries. Throws NotFoundError while
   * the log is empty.
   */
  at(sizeMin: number): Snapshot {
    const newest = this.#newest;
    if (newest === undefined) throw new NotFoundError('UNKNOWN_USER', 'key log: empty');
    const witnessed = this.#witnessed;
    const isPreferred =
      witnessed !== undefined && witnessed.size >= sizeMin && !this.#isOutdated(witnessed.size);
    const head = isPreferred ? witnessed : newest;
    return { size: head.size, head };
  }

  /** Whether the log has had a newer head than that of `size` for so long that it has to be served. */
  #isOutdated(size: number): boolean {
    if (size === this.#newest?.size) return false;
    const followedMs = this.#publishedMs.get(size + 1) ?? Number.NEGATIVE_INFINITY;
    const { clock, limits } = this.#options;
    return clock.monotonic() - followedMs >= limits.outdatedMs;
  }

  /** Resolves when a head of at least `size` entries has its quorum, or after `quorumMs`. */
  quorumFor(size: number): Promise<void> {
    const { cosigners, clock, limits } = this.#options;
    const { policy } = cosigners();
    const isNeeded = policy !== undefined && !meetsQuorum(policy, []).ok;
    const isThere = (this.#witnessed?.size ?? 0) >= size;
    if (!isNeeded || isThere || this.#isClosed) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = clock.timer(limits.quorumMs, () => waiter.done());
    const waiter: Waiter = {
      size,
      done: () => {
        timer.cancel();
        this.#waiters.delete(waiter);
        resolve();
      },
    };
    this.#waiters.add(waiter);
    return promise;
  }

  /**
   * Takes the cosignatures of known cosigners off a checkpoint of ours. Returns how many are new,
   * after they are durable. Throws VerificationError: MALFORMED, CHAIN for a text that is not that
   * of our head, BAD_SIGNATURE when a known cosigner did not sign it.
   */
  async addCosignatures(bytes: Uint8Array): Promise<number> {
    const { identity, store, suite, cosigners } = this.#options;
    const note = parseNote(bytes);
    const { size } = parseCheckpoint(note.text);
    const head = await store.head(size);
    const isOurs = head !== undefined && note.text === checkpointText(identity, head);
    verify(isOurs, 'CHAIN', 'cosigned checkpoint', "the text of this log's checkpoint of its size");
    const { keys, policy } = cosigners();
    const known = keys.filter((key) => key.type === SignatureType.cosignatureV1);
    const signatures = note.signatures.filter((one) => keyOf(known, one) !== undefined);
    if (signatures.length === 0) return 0;
    verifyNote(suite, { text: note.text, signatures }, known);
    const before = new Set((await store.cosignatures(size)).map((one) => keyOf(known, one)));
    const fresh = signatures.filter((one) => !before.has(keyOf(known, one)));
    if (fresh.length > 0) await store.addCosignatures(size, fresh);
    const stored = await store.cosignatures(size);
    if (policy !== undefined && size > (this.#witnessed?.size ?? 0)) {
      // What is stored was verified when it came; keys that are no longer known do not count.
      const verified = stored.flatMap((one) => keyOf(known, one) ?? []);
      const by = verified.map((key) => ({ key, timeSeconds: undefined }));
      if (meetsQuorum(policy, by).ok) this.#witness(head);
    }
    return new Set(fresh.map((one) => keyOf(known, one))).size;
  }

  /** From now on nobody waits for a quorum. */
  close(): void {
    this.#isClosed = true;
    for (const waiter of this.#waiters) waiter.done();
  }

  #witness(head: StoredHead): void {
    this.#witnessed = head;
    for (const waiter of this.#waiters) if (waiter.size <= head.size) waiter.done();
  }

  /**
   * The checkpoint of a size as a C2SP note: the log's signature, then those of the cosigners that
   * are known today. Throws NotFoundError for a size that the log does not have.
   */
  async checkpoint(size: number): Promise<string> {
    const { store, cosigners } = this.#options;
    const { keys } = cosigners();
    const stored = keys.length === 0 ? [] : await store.cosignatures(size);
    const known = stored.filter((one) => keyOf(keys, one) !== undefined);
    return this.#note(size, known.slice(0, noteLimits.signaturesMax - 1));
  }
  /** The same with the log's signature alone: bytes that never change. */
  ownCheckpoint(size: number): Promise<string> {
    return this.#note(size, []);
  }
  async #note(size: number, cosignatures: readonly NoteSignature[]): Promise<string> {
    const { identity, store } = this.#options;
    const head = await store.head(size);
    if (head === undefined) throw new NotFoundError('UNKNOWN_USER', `no head of size ${size}`);
    const { name, keyId } = identity.key;
    const own = { name, keyId, signature: head.noteSignature };
    return formatNote({ text: checkpointText(identity, head), signatures: [own, ...cosignatures] });
  }
}

function keyOf(keys: readonly NoteKey[], one: NoteSignature): NoteKey | undefined {
  return keys.find((key) => key.name === one.name && key.keyId === one.keyId);
}
