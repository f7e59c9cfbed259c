/**
 * A key transparency log as a service: updates in, answers and heads out (protocol section 13;
 * kt-log/README.md). Put together from a store, keys, a clock and randomness; speaks no RPC.
 * Deployed in contact monitoring mode.
 */
import type { Clock, Random } from '@quicprochat/proto';
import {
  ConflictError,
  FailedPreconditionError,
  InvalidArgumentError,
  NotFoundError,
} from '@quicprochat/proto/status';
import type { AnswerContext, AnswerLimits } from './answers.ts';
import { Answers, defaultAnswerLimits } from './answers.ts';
import type { AuditBundle } from './auditor.ts';
import { bundleEntriesMax, signAuditBundle } from './auditor.ts';
import type { AuditorUpdate } from './auditor-update.ts';
import { auditorUpdate } from './auditor-update.ts';
import type { Configuration } from './codec.ts';
import { DeploymentMode } from './codec.ts';
import type { Credential, CredentialUpdate } from './credential.ts';
import type { LogKeys } from './entry-writer.ts';
import { Evaluations } from './evaluations.ts';
import type { Hash } from './hash.ts';
import { logEntry, logEntryBytes, rfc6962Hasher, sameBytes } from './hash.ts';
import type { LogIdentity } from './note.ts';
import type * as operations from './operations.ts';
import { encode } from './presentation.ts';
import { elementOf, inclusionNodes } from './rfc6962.ts';
import type { SequencerLimits, UpdateOptions } from './sequencer.ts';
import { defaultSequencerLimits, Sequencer } from './sequencer.ts';
import type { Cosigners, ServedHeadLimits } from './served-head.ts';
import { defaultServedHeadLimits, ServedHeads } from './served-head.ts';
import type { Snapshot } from './snapshot.ts';
import type { LogReader } from './snapshot.ts';
import type { StoredHead, TreeStore } from './store.ts';
import type { VerifierSuite } from './suite.ts';
import { checkConfiguration } from './tree-head.ts';
import type { Recency } from './verify-search.ts';

export interface KtLogOptions {
  readonly config: Configuration;
  /** Origin and note key of the log's checkpoints. */
  readonly identity: LogIdentity;
  readonly keys: LogKeys;
  readonly store: TreeStore;
  readonly suite: VerifierSuite;
  readonly clock: Clock;
  readonly random: Random;
  readonly sequencerLimits?: Partial<SequencerLimits>;
  readonly answerLimits?: Partial<AnswerLimits>;
  readonly servedHeadLimits?: Partial<ServedHeadLimits>;
  /** Whose cosignatures are taken, and whose are waited for; asked anew each time. */
  readonly cosigners?: () => Cosigners;
  /**
   * Asked before a version is queued for a log that has entries: whoever suspects that the store is
   * older than what was signed holds writes back, or refuses them by throwing.
   */
  readonly mayWrite?: () => Promise<void>;
  /** Told what kept a batch from being written: those who waited for it hear less. */
  readonly onFault?: (error: unknown) => void;
  /** What counts as a recent distinguished entry; clients have to use the same. */
  readonly recency?: Recency;
}

const utf8 = new TextEncoder();

/** Ten days and ten entries (kt-log/README.md, protocol section 10.1). */
export const defaultRecency: Recency = { recentMs: 864_000_000, countMax: 10 };

/** Values for the versions after `greatest`, which is -1 for a new label. */
export interface NewValues {
  readonly label: Uint8Array;
  readonly greatest: number;
  readonly values: readonly Uint8Array[];
}

/** One log entry as an auditor gets it. */
export interface AuditedEntry {
  readonly update: AuditorUpdate;
  readonly prefixRoot: Uint8Array;
}

export class KtLog implements AsyncDisposable {
  readonly #options: KtLogOptions;
  readonly #context: Omit<AnswerContext, 'reader'>;
  readonly #heads: ServedHeads;
  readonly #listeners = new Set<(head: StoredHead) => void>();
  readonly #eraseListeners = new Set<(label: Uint8Array) => void>();
  #sequencer: Sequencer | undefined;
  #reader: LogReader | undefined;

  private constructor(options: KtLogOptions) {
    const { config, store, keys, clock } = options;
    this.#options = options;
    this.#context = {
      config,
      store,
      vrfs: new Evaluations({ store, vrf: keys.vrf, clock }),
      limits: { ...defaultAnswerLimits, ...options.answerLimits },
      recency: options.recency ?? defaultRecency,
    };
    this.#heads = new ServedHeads({
      ...options,
      limits: { ...defaultServedHeadLimits, ...options.servedHeadLimits },
      cosigners: options.cosigners ?? (() => ({ keys: [] })),
    });
  }

  /**
   * Opens the log that the store holds, or an empty one. Throws InvalidArgumentError when the
   * configuration does not fit the keys, DataLossError when the store is incomplete.
   */
  static async open(options: KtLogOptions): Promise<KtLog> {
    const { config, keys, identity } = options;
    checkConfiguration(config);
    const fits =
      sameBytes(config.signaturePublicKey, keys.treeHead.publicKey) &&
      sameBytes(config.vrfPublicKey, keys.vrf.publicKey) &&
      sameBytes(identity.key.publicKey, keys.note.publicKey);
    if (!fits)
      throw new InvalidArgumentError('BAD_FIELD', 'key log: keys of another configuration');
    if (config.mode !== DeploymentMode.contactMonitoring) {
      throw new InvalidArgumentError('BAD_FIELD', 'key log: serves contact monitoring only');
    }
    const log = new KtLog(options);
    const { vrfs } = log.#context;
    const limits = { ...defaultSequencerLimits, ...options.sequencerLimits };
    log.#sequencer = await Sequencer.open({ ...options, limits, vrfs }, (reader, head) => {
      log.#reader = reader;
      log.#heads.publish(head);
      for (const listener of log.#listeners) listener(head);
    });
    return log;
  }

  /** Entries of the newest committed tree. */
  get size(): number {
    return this.head?.size ?? 0;
  }
  /** The newest committed head; undefined for an empty log. */
  get head(): StoredHead | undefined {
    return this.#heads.newest;
  }

  /** Calls `listener` for every head after its commit, until the returned function is called. */
  onHead(listener: (head: StoredHead) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls `listener` for every label that was erased, until the returned function is called. */
  onErase(listener: (label: Uint8Array) => void): () => void {
    this.#eraseListeners.add(listener);
    return () => this.#eraseListeners.delete(listener);
  }

  /**
   * Answers from one state of the log with at least `sizeMin` entries: a user's `last`. Throws
   * NotFoundError while the log is empty, InvalidArgumentError for a size that it does not have.
   */
  answers(sizeMin = 0): Answers {
    return this.#at(this.#heads.at(sizeMin));
  }
  #at(snapshot: Snapshot): Answers {
    if (this.#reader === undefined) throw new NotFoundError('UNKNOWN_USER', 'key log: empty');
    return new Answers({ ...this.#context, reader: this.#reader }, snapshot);
  }

  async search(request: operations.SearchRequest): Promise<operations.SearchResponse> {
    return this.answers(request.last).search(request);
  }
  async absence(request: {
    readonly last?: number | undefined;
    readonly label: Uint8Array;
  }): Promise<operations.AbsenceProof> {
    return this.answers(request.last).absence(request);
  }
  async contactMonitor(
    request: operations.ContactMonitorRequest,
  ): Promise<operations.ProofResponse> {
    return this.answers(request.last).contactMonitor(request);
  }
  async ownerInit(request: operations.OwnerInitRequest): Promise<operations.OwnerInitResponse> {
    return this.answers(request.last).ownerInit(request);
  }
  async ownerMonitor(request: operations.OwnerMonitorRequest): Promise<operations.ProofResponse> {
    return this.answers(request.last).ownerMonitor(request);
  }
  async distinguished(request: operations.DistinguishedRequest): Promise<operations.ProofResponse> {
    return this.answers(request.last).distinguished(request);
  }

  /**
   * Section 13.5: one response. Creates the versions asked for when `greatestVersion` is the
   * label's greatest one, and answers when their entry is durable, if possible at a head with quorum;
   * tells of the next older news otherwise, and the caller asks again. Throws InvalidArgumentError
   * for a version that does not exist or when there is nothing to do; ConflictError SEQ_CONFLICT when
   * another update came first, also where there would be news but `effects` wait to be written, and
   * NAME_TAKEN where that update made, or once made, the label; and what Sequencer.submit throws.
   */
  async update(
    request: operations.UpdateRequest,
    options: UpdateOptions = {},
  ): Promise<operations.UpdateResponse> {
    const { label, values } = request;
    const known = request.greatestVersion ?? -1;
    const positions = await this.#context.store.positions(label);
    const greatest = positions.length - 1;
    if (known > greatest || (known === greatest && values.length === 0)) {
      throw new InvalidArgumentError('BAD_FIELD', 'key log: nothing to create and nothing newer');
    }
    const last = request.last ?? 0;
    if (last > this.size) {
      throw new InvalidArgumentError('BAD_FIELD', 'last: not a size of this log');
    }
    if (known < greatest) {
      if ((options.effects ?? []).length > 0) {
        const reason = known < 0 ? 'NAME_TAKEN' : 'SEQ_CONFLICT';
        throw new ConflictError(reason, 'key log: the label has newer versions');
      }
      const sizeMin = (positions[known + 1] ?? 0) + 1;
      return this.answers(Math.max(last, sizeMin)).update(request, false);
    }
    const sizeMin = (await this.#submit(label, known, values, options)) + 1;
    await this.#heads.quorumFor(sizeMin);
    return this.answers(Math.max(last, sizeMin)).update(request, true);
  }

  /**
   * Creates versions of a label whose greatest one is `greatest` (-1: none), and answers nothing: the
   * position of their entry, as soon as it is durable. Throws what Sequencer.submit throws.
   */
  async append(
    { label, greatest, values }: NewValues,
    options: UpdateOptions = {},
  ): Promise<number> {
    return this.#submit(label, greatest, values, options);
  }

  async #submit(
    label: Uint8Array,
    greatest: number,
    values: readonly Uint8Array[],
    options: UpdateOptions,
  ): Promise<number> {
    const sequencer = this.#sequencer;
    if (sequencer === undefined) throw new FailedPreconditionError('BAD_CURSOR', 'not open');
    if (this.size > 0) await this.#options.mayWrite?.();
    return sequencer.submit(label, greatest, values, options);
  }

  /** Whether version 0 of a label is in the newest tree, also when the label was erased. */
  async isTaken(label: Uint8Array): Promise<boolean> {
    const { newest } = this.#heads;
    if (newest === undefined) return false;
    return this.#at({ size: newest.size, head: newest }).isTaken(label);
  }

  /**
   * Forgets a label whose last version closed it: what is in the trees stays, and nobody gets the
   * label again. Durable on return; nothing happens for a label that is not there. Throws
   * FailedPreconditionError BAD_CURSOR while no entry after its last version is distinguished.
   */
  async eraseClosed(label: Uint8Array): Promise<void> {
    const { store, vrfs } = this.#context;
    const positions = await store.positions(label);
    const last = positions.at(-1);
    if (last === undefined) return;
    const [distinguished] = await this.answers(this.size).distinguishedPositions(1);
    if (distinguished === undefined || distinguished <= last) {
      const message = 'key log: no entry after the last version is distinguished yet';
      throw new FailedPreconditionError('BAD_CURSOR', message);
    }
    await store.erase(label);
    vrfs.forget(label, positions.length);
    for (const listener of this.#eraseListeners) listener(label);
  }

  /** Section 14: a credential of the label's greatest version. Throws NotFoundError. */
  async credential(label: Uint8Array): Promise<Credential> {
    return this.answers().credential(label);
  }

  /**
   * Section 14.2: settles a provisional credential that was made at size `last` and ended in
   * `entry`. Throws FailedPreconditionError BAD_CURSOR while no later entry is distinguished.
   */
  async credentialUpdate(
    label: Uint8Array,
    last: number,
    entry: operations.MonitorMapEntry,
  ): Promise<CredentialUpdate> {
    const answers = await this.answersAtDistinguished(Math.max(last, entry.position + 1));
    return answers.credentialUpdate(label, last, entry);
  }

  /**
   * Answers from the tree that ended with the rightmost distinguished entry. Throws
   * FailedPreconditionError BAD_CURSOR while that tree has fewer than `sizeMin` entries.
   */
  async answersAtDistinguished(sizeMin: number): Promise<Answers> {
    const [newest] = await this.answers(this.size).distinguishedPositions(1);
    const head = newest === undefined ? undefined : await this.#context.store.head(newest + 1);
    if (head === undefined || head.size < sizeMin) {
      throw new FailedPreconditionError('BAD_CURSOR', 'key log: no later distinguished entry yet');
    }
    return this.#at({ size: head.size, head });
  }

  /**
   * The signed checkpoint of a size (the newest one by default) as a C2SP note, with the
   * cosignatures of today's cosigners. Throws NotFoundError.
   */
  async checkpoint(size = this.size): Promise<string> {
    return this.#heads.checkpoint(size);
  }

  /**
   * Takes over the cosignatures of known cosigners from a note of ours; unknown ones are ignored.
   * Returns how many were new, after they are durable. Throws VerificationError: MALFORMED, CHAIN
   * for a text that is not that of our checkpoint, BAD_SIGNATURE for a known key's bad signature.
   */
  async addCosignatures(note: Uint8Array): Promise<number> {
    return this.#heads.addCosignatures(note);
  }

  /**
   * The entry at `position` (40 bytes) and the proof that the RFC 6962 tree of `size` includes it
   * (RFC 9162 section 2.1.3). Throws InvalidArgumentError for a position or size out of range.
   */
  async inclusion(
    position: number,
    size: number,
  ): Promise<{ readonly entry: Uint8Array; readonly proof: readonly Hash[] }> {
    const reader = this.#reader;
    if (reader === undefined || !(position >= 0 && position < size && size <= this.size)) {
      throw new InvalidArgumentError('BAD_FIELD', `key log: entry ${position} of ${size}`);
    }
    const { timestampMs, prefixRoot } = await reader.entry(position);
    const hasher = rfc6962Hasher(this.#options.suite.sha256);
    const proof: Hash[] = [];
    for (const ids of inclusionNodes(position, size)) {
      const element = elementOf(hasher, ids, await reader.rfc6962.nodes(ids));
      if (element !== undefined) proof.push(element);
    }
    return { entry: logEntry(timestampMs, prefixRoot), proof };
  }

  /**
   * Section 15.2: what entries [from, to) changed, at most 256 of them; fewer when their encodings
   * exceed `bytesMax` together, but one at least. Throws InvalidArgumentError for a range outside the log.
   */
  async auditedEntries(
    from: number,
    to: number,
    bytesMax = Number.POSITIVE_INFINITY,
  ): Promise<AuditedEntry[]> {
    const isRange = from >= 0 && to > from && to <= this.size && to - from <= bundleEntriesMax;
    if (this.#reader === undefined || !isRange) {
      const message = `key log: entries ${from} to ${to} of ${this.size}`;
      throw new InvalidArgumentError('BAD_FIELD', message);
    }
    const { prefixTree } = this.#reader;
    const first = Math.max(0, from - 1);
    const entries = await this.#context.store.entries(first, to);
    const audited: AuditedEntry[] = [];
    let bytes = 0;
    for (let position = from; position < to; position++) {
      const entry = entries[position - first];
      const before = position === 0 ? 0 : (entries[position - 1 - first]?.rootTile ?? 0);
      if (entry === undefined) continue;
      const added = await prefixTree.difference(before, entry.rootTile);
      const keys = added.map((leaf) => leaf.vrfOutput);
      const [answer] = await prefixTree.search([{ root: before, keys }]);
      if (answer === undefined) continue;
      const { timestampMs, prefixRoot } = entry;
      const update: AuditorUpdate = { timestampMs, added, removed: [], proof: answer.proof };
      bytes += encode(auditorUpdate, update).length + logEntryBytes;
      if (bytes > bytesMax && audited.length > 0) break;
      audited.push({ prefixRoot, update });
    }
    return audited;
  }

  /**
   * Section 15.2 and kt-log/README.md: entries [from, to) for an auditor, signed, with the checkpoint
   * of the size at which they end; the same bytes each time. Bounds and errors as auditedEntries.
   */
  async auditBundle(from: number, to: number, bytesMax?: number): Promise<AuditBundle> {
    const audited = await this.auditedEntries(from, to, bytesMax);
    const body = {
      from,
      entries: audited.map(({ update, prefixRoot }) => logEntry(update.timestampMs, prefixRoot)),
      updates: audited.map((one) => one.update),
      checkpoint: utf8.encode(await this.#heads.ownCheckpoint(from + audited.length)),
    };
    return signAuditBundle(this.#options.suite.sha256, body, this.#options.keys.note);
  }

  /** The bytes of a public tile of the RFC 6962 tree; undefined if the log has no such tile. */
  async tile(level: number, index: number, width?: number): Promise<Uint8Array | undefined> {
    return this.#reader?.rfc6962.tile(this.size, level, index, width);
  }

  /** Commits what waits, then refuses new updates. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sequencer?.close();
    await this.#context.vrfs.save();
    this.#heads.close();
  }
}
