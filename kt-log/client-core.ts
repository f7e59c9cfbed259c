/**
 * What every part of a log client shares: the stored state, one turn at a time, and how an answer's
 * new head is accepted or refused as a whole (protocol section 13). Browser-safe.
 *
 * Turns: a proof starts from the tree that the request advertised, so two answers to the same tree
 * cannot be joined without a third proof. Requests to one log therefore wait for each other; nothing
 * that is in flight is ever overtaken, and an honest answer is never refused for having been late.
 */
import { ConflictError, ResourceExhaustedError } from '@quicprochat/proto/status';
import type { Witnessing } from './client-checkpoint.ts';
import { checkCheckpoint, checkSameSize, ForkError } from './client-checkpoint.ts';
import type { DailyRecord, Duty, LabelRecord, LogRecord, OwnerRecord } from './client-records.ts';
import {
  clientLimits,
  dailyRecord,
  distinguishedRecords,
  dutyList,
  evidenceList,
  labelRecord,
  logRecord,
  opaqueRecord,
  ownerRecord,
} from './client-records.ts';
import type { DistinguishedRecord } from './client-records.ts';
import type { LogClientStore } from './client-storage.ts';
import { openBlob, sealBlob } from './client-storage.ts';
import type { Configuration } from './codec.ts';
import { keytransHasher, sameBytes } from './hash.ts';
import { rootOfHeads } from './log-tree.ts';
import type { LogIdentity, NoteSignature } from './note.ts';
import { formatNote, parseNote } from './note.ts';
import type { Policy } from './policy.ts';
import type { Structure } from './presentation.ts';
import type { VerifierSuite } from './suite.ts';
import { verify } from './verification-error.ts';
import type { LogVerifier, UserState } from './verify-response.ts';
import { logVerifier } from './verify-response.ts';
import type { Recency } from './verify-search.ts';

/** A value that the log vouches for, as the application sees it before it is accepted. */
export interface ValueToCheck {
  readonly label: Uint8Array;
  readonly version: number;
  readonly value: Uint8Array;
  /** The greatest verified version below it, if any is known; not always the one right before. */
  readonly previous: { readonly version: number; readonly value: Uint8Array } | undefined;
}

/** The application's rules for values; throws (VerificationError CHAIN) to refuse the answer. */
export type CheckValue = (value: ValueToCheck) => void;

export interface LogClientOptions {
  readonly identity: LogIdentity;
  readonly config: Configuration;
  readonly suite: VerifierSuite;
  readonly store: LogClientStore;
  /** Milliseconds since the Unix epoch. */
  readonly clock: { now(): number };
  /** For jitter only. */
  readonly random: { bytes(length: number): Uint8Array };
  /** Who has to have cosigned; undefined: nobody. */
  readonly policy?: Policy | undefined;
  /** What the log calls recent; ten days and ten entries by default. */
  readonly recency?: Recency | undefined;
  readonly checkValue?: CheckValue | undefined;
}

/** The newest head that was verified. */
export interface VerifiedHead {
  readonly size: number;
  readonly root: Uint8Array;
  /** Of the newest entry. */
  readonly timestampMs: number;
  readonly witnessed: Witnessing;
  readonly byWitnesses: readonly string[];
}

export type Changes = Map<string, Uint8Array | undefined>;

/** Most calls that wait for their turn. */
const waitingMax = 1024;

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

export class ClientCore {
  readonly options: LogClientOptions;
  readonly log: LogVerifier;
  readonly recency: Recency;
  #turn: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  constructor(options: LogClientOptions) {
    this.options = options;
    this.log = logVerifier(options.config, options.suite);
    this.recency = options.recency ?? { recentMs: 864_000_000, countMax: 10 };
  }

  now(): number {
    return this.options.clock.now();
  }

  /** Runs `work` when everything asked before it has ended, whatever its end was. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting >= waitingMax) {
      throw new ResourceExhaustedError('QUEUE_FULL', `log client: ${waitingMax} calls wait`);
    }
    this.#waiting++;
    const turn = this.#turn.then(work);
    // The next one starts after a failure too; the failure goes to who asked.
    this.#turn = turn.catch(() => undefined);
    try {
      return await turn;
    } finally {
      this.#waiting--;
    }
  }

  /** A time from three eighths to half of the monitoring window from now. */
  nextRoundMs(): number {
    const window = this.log.config.reasonableMonitoringWindowMs;
    const [byte = 0] = this.options.random.bytes(1);
    return this.now() + Math.floor(window / 2 - (window / 8) * (byte / 256));
  }

  // State. Every read takes the stored blob anew: the store is the only memory.
  #read<T>(key: string, structure: Structure<T>): T | undefined {
    const blob = this.options.store.get(key);
    return blob && openBlob(this.options.suite.sha256, key, structure, blob);
  }
  #put<T>(changes: Changes, key: string, structure: Structure<T>, value: T): void {
    changes.set(key, sealBlob(this.options.suite.sha256, key, structure, value));
  }
  record(): LogRecord | undefined {
    return this.#read('log', logRecord);
  }
  last(): number | undefined {
    return this.record()?.user.view.size;
  }
  label(label: Uint8Array): LabelRecord | undefined {
    return this.#read(`label/${hex(label)}`, labelRecord);
  }
  putLabel(changes: Changes, record: LabelRecord): void {
    this.#put(changes, `label/${hex(record.label)}`, labelRecord, record);
  }
  owner(label: Uint8Array): OwnerRecord | undefined {
    return this.#read(`owner/${hex(label)}`, ownerRecord);
  }
  putOwner(changes: Changes, record: OwnerRecord): void {
    this.#put(changes, `owner/${hex(record.owner.label)}`, ownerRecord, record);
  }
  distinguished(): readonly DistinguishedRecord[] {
    return this.#read('distinguished', distinguishedRecords) ?? [];
  }
  putDistinguished(changes: Changes, records: readonly DistinguishedRecord[]): void {
    this.#put(changes, 'distinguished', distinguishedRecords, records);
  }
  credential(label: Uint8Array): Uint8Array | undefined {
    return this.#read(`credential/${hex(label)}`, opaqueRecord);
  }
  putCredential(changes: Changes, label: Uint8Array, wrapped: Uint8Array): void {
    this.#put(changes, `credential/${hex(label)}`, opaqueRecord, wrapped);
  }
  evidence(): readonly Uint8Array[] {
    return this.#read('evidence', evidenceList) ?? [];
  }
  daily(): DailyRecord | undefined {
    return this.#read('daily', dailyRecord);
  }
  putDaily(changes: Changes, record: DailyRecord): void {
    this.#put(changes, 'daily', dailyRecord, record);
  }
  duties(kind: 'watched' | 'owned'): readonly Duty[] {
    return this.#read(kind, dutyList) ?? [];
  }
  /** Sets when a label's duty is due; undefined: it has none any more. */
  putDuty(
    changes: Changes,
    kind: 'watched' | 'owned',
    label: Uint8Array,
    dueMs: number | undefined,
  ): void {
    const others = this.duties(kind).filter((duty) => !sameBytes(duty.label, label));
    const max = kind === 'watched' ? clientLimits.watchedMax : clientLimits.ownersMax;
    if (dueMs !== undefined && others.length >= max) {
      throw new ResourceExhaustedError('QUOTA', `log client: ${max} labels are ${kind}`);
    }
    const duties = dueMs === undefined ? others : [...others, { label, dueMs }];
    this.#put(changes, kind, dutyList, duties);
  }
  save(changes: Changes): void {
    this.options.store.save(changes);
  }

  /** Keeps evidence; the same is kept once, and no more than there is room for. */
  keepEvidence(evidence: Uint8Array): void {
    const kept = this.evidence();
    const isKept = kept.some((one) => sameBytes(one, evidence));
    if (isKept || kept.length >= clientLimits.evidenceMax) return;
    const changes: Changes = new Map();
    this.#put(changes, 'evidence', evidenceList, [...kept, evidence]);
    this.save(changes);
  }

  /** Runs a check; evidence in its failure is kept, and the failure goes on. */
  keepingEvidence<T>(check: () => T): T {
    try {
      return check();
    } catch (error) {
      if (error instanceof ForkError && error.evidence !== undefined) {
        this.keepEvidence(error.evidence);
      }
      throw error;
    }
  }

  /**
   * The state that an answer to a request with this `last` is verified against. Throws ConflictError
   * SEQ_CONFLICT when the state has moved on since: the request was sent out of turn, ask again.
   */
  stateAt(last: number | undefined): UserState | undefined {
    const user = this.record()?.user;
    if (user?.view.size !== last) {
      throw new ConflictError('SEQ_CONFLICT', `log client: asked at ${last}, now at another size`);
    }
    return user;
  }

  /**
   * Checks the checkpoint of a verified answer, and puts the new head into `changes`. Throws
   * VerificationError; a fork is kept as evidence.
   */
  acceptHead(user: UserState, checkpoint: Uint8Array, changes: Changes): VerifiedHead {
    const { suite, policy } = this.options;
    const before = this.record();
    const { size, heads, frontier } = user.view;
    const root = rootOfHeads(keytransHasher(suite.sha256), size, heads);
    const { treeHead } = user.heads;
    const shown = { size, root, treeHead };
    const note = this.keepingEvidence(() => {
      const checked = checkCheckpoint(this.options, policy, checkpoint, shown);
      if (before?.user.view.size === size) checkSameSize(this.options, before.note, checked.note);
      return checked;
    });
    verify(size >= (before?.user.view.size ?? 0), 'ROLLBACK', 'tree size', 'no smaller tree');
    const now = this.now();
    const witnessedBefore = before?.witnessedSize ?? 0;
    const isCovered = note.witnessed === 'quorum' || witnessedBefore >= size;
    const record: LogRecord = {
      user,
      root,
      // Of two notes of one size the one with the quorum stays.
      note:
        isCovered && note.witnessed !== 'quorum' && before !== undefined ? before.note : note.note,
      answeredMs: now,
      witnessedSize: note.witnessed === 'quorum' ? size : witnessedBefore,
      unwitnessedSinceMs:
        note.witnessed === 'none-required' || isCovered
          ? undefined
          : (before?.unwitnessedSinceMs ?? now),
    };
    this.#put(changes, 'log', logRecord, record);
    const witnessed = note.witnessed === 'pending' && isCovered ? 'quorum' : note.witnessed;
    const timestampMs = frontier.at(-1)?.timestampMs ?? 0;
    return { size, root, timestampMs, witnessed, byWitnesses: note.byWitnesses };
  }

  /**
   * Cosignatures of the newest head's checkpoint that came another way. Returns whether it has the
   * quorum now. Throws VerificationError for another text, and for a known key's bad signature.
   */
  addCosignatures(note: Uint8Array): boolean {
    const record = this.record();
    if (record === undefined) return false;
    const { policy } = this.options;
    const [ours, theirs] = [parseNote(record.note), parseNote(note)];
    verify(ours.text === theirs.text, 'CHAIN', 'text of the checkpoint', 'that of the head here');
    const { size } = record.user.view;
    const isNew = (one: NoteSignature): boolean =>
      !ours.signatures.some(({ name, keyId }) => name === one.name && keyId === one.keyId);
    const signatures = [...ours.signatures, ...theirs.signatures.filter(isNew)];
    const merged = new TextEncoder().encode(formatNote({ text: ours.text, signatures }));
    const shown = { size, root: record.root };
    const checked = checkCheckpoint(this.options, policy, merged, shown);
    const isWitnessed = checked.witnessed === 'quorum' || record.witnessedSize >= size;
    const changes: Changes = new Map();
    this.#put(changes, 'log', logRecord, {
      ...record,
      note: checked.note,
      witnessedSize: isWitnessed ? Math.max(size, record.witnessedSize) : record.witnessedSize,
      unwitnessedSinceMs: isWitnessed ? undefined : record.unwitnessedSinceMs,
    });
    this.save(changes);
    return isWitnessed;
  }

  /** The application's rules. */
  checkValue(value: ValueToCheck): void {
    this.options.checkValue?.(value);
  }
}
