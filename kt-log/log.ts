/**
 * A key transparency log as a service: updates in, answers and heads out (protocol section 13;
 * kt-log/README.md). Put together from a store, keys, a clock and randomness; speaks no RPC.
 * Deployed in contact monitoring mode.
 */
import type { Clock, Random } from '@quicprochat/proto';
import {
  FailedPreconditionError,
  InvalidArgumentError,
  NotFoundError,
} from '@quicprochat/proto/status';
import type { AnswerContext, AnswerLimits } from './answers.ts';
import { Answers, defaultAnswerLimits } from './answers.ts';
import type { AuditBundle } from './auditor.ts';
import { bundleEntriesMax, signAuditBundle } from './auditor.ts';
import type { AuditorUpdate } from './auditor-update.ts';
import type { Configuration } from './codec.ts';
import { DeploymentMode } from './codec.ts';
import type { Credential, CredentialUpdate } from './credential.ts';
import { logEntry, sameBytes } from './hash.ts';
import type { LogIdentity } from './note.ts';
import { formatNote } from './note.ts';
import type * as operations from './operations.ts';
import type { LogKeys, SequencerLimits, UpdateOptions } from './sequencer.ts';
import { checkpointText, defaultSequencerLimits, Sequencer } from './sequencer.ts';
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
  /** What counts as a recent distinguished entry; clients have to use the same. */
  readonly recency?: Recency;
}

/** Ten days and ten entries (kt-log/README.md, protocol section 10.1). */
export const defaultRecency: Recency = { recentMs: 864_000_000, countMax: 10 };

/** One log entry as an auditor gets it. */
export interface AuditedEntry {
  readonly update: AuditorUpdate;
  readonly prefixRoot: Uint8Array;
}

export class KtLog implements AsyncDisposable {
  readonly #options: KtLogOptions;
  readonly #context: Omit<AnswerContext, 'reader'>;
  readonly #listeners = new Set<(head: StoredHead) => void>();
  #sequencer: Sequencer | undefined;
  #current: { readonly snapshot: Snapshot; readonly reader: LogReader } | undefined;

  private constructor(options: KtLogOptions) {
    const { config, store, keys } = options;
    this.#options = options;
    this.#context = {
      config,
      store,
      vrf: keys.vrf,
      limits: { ...defaultAnswerLimits, ...options.answerLimits },
      recency: options.recency ?? defaultRecency,
    };
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
    const limits = { ...defaultSequencerLimits, ...options.sequencerLimits };
    log.#sequencer = await Sequencer.open({ ...options, limits }, (reader, head) => {
      log.#current = { reader, snapshot: { size: head.size, head } };
      for (const listener of log.#listeners) listener(head);
    });
    return log;
  }

  /** Entries of the newest committed tree. */
  get size(): number {
    return this.#current?.snapshot.size ?? 0;
  }
  /** The newest committed head; undefined for an empty log. */
  get head(): StoredHead | undefined {
    return this.#current?.snapshot.head;
  }

  /** Calls `listener` for every head after its commit, until the returned function is called. */
  onHead(listener: (head: StoredHead) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Answers from the newest state. Throws NotFoundError while the log is empty. */
  #answers(): Answers {
    if (this.#current === undefined) throw new NotFoundError('UNKNOWN_USER', 'key log: empty');
    const { reader, snapshot } = this.#current;
    return new Answers({ ...this.#context, reader }, snapshot);
  }

  async search(request: operations.SearchRequest): Promise<operations.SearchResponse> {
    return this.#answers().search(request);
  }
  async absence(request: {
    readonly last?: number | undefined;
    readonly label: Uint8Array;
  }): Promise<operations.AbsenceProof> {
    return this.#answers().absence(request);
  }
  async contactMonitor(
    request: operations.ContactMonitorRequest,
  ): Promise<operations.ProofResponse> {
    return this.#answers().contactMonitor(request);
  }
  async ownerInit(request: operations.OwnerInitRequest): Promise<operations.OwnerInitResponse> {
    return this.#answers().ownerInit(request);
  }
  async ownerMonitor(request: operations.OwnerMonitorRequest): Promise<operations.ProofResponse> {
    return this.#answers().ownerMonitor(request);
  }
  async distinguished(request: operations.DistinguishedRequest): Promise<operations.ProofResponse> {
    return this.#answers().distinguished(request);
  }

  /**
   * Section 13.5: one response. Creates the versions asked for when `greatestVersion` is the
   * label's greatest one, and answers when their entry is durable; tells of the next older news
   * otherwise, and the caller asks again. Throws InvalidArgumentError for a version that does not
   * exist or when there is nothing to do, ConflictError SEQ_CONFLICT when another update came first.
   */
  async update(
    request: operations.UpdateRequest,
    options: UpdateOptions = {},
  ): Promise<operations.UpdateResponse> {
    const { label, values } = request;
    const known = request.greatestVersion ?? -1;
    const greatest = (await this.#context.store.positions(label)).length - 1;
    if (known > greatest || (known === greatest && values.length === 0)) {
      throw new InvalidArgumentError('BAD_FIELD', 'key log: nothing to create and nothing newer');
    }
    if (request.last !== undefined && request.last > this.size) {
      throw new InvalidArgumentError('BAD_FIELD', 'last: not a size of this log');
    }
    if (known < greatest) return this.#answers().update(request, false);
    if (this.#sequencer === undefined) throw new FailedPreconditionError('BAD_CURSOR', 'not open');
    await this.#sequencer.submit(label, known, values, options);
    return this.#answers().update(request, true);
  }

  /** Section 14: a credential of the label's greatest version. Throws NotFoundError. */
  async credential(label: Uint8Array): Promise<Credential> {
    return this.#answers().credential(label);
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
    const [newest] = await this.#answers().distinguishedPositions(1);
    const head = newest === undefined ? undefined : await this.#context.store.head(newest + 1);
    const { reader } = this.#current ?? {};
    const isLate = head !== undefined && head.size >= last && head.size > entry.position;
    if (!isLate || reader === undefined) {
      throw new FailedPreconditionError('BAD_CURSOR', 'key log: no later distinguished entry yet');
    }
    const then = new Answers({ ...this.#context, reader }, { size: head.size, head });
    return then.credentialUpdate(label, last, entry);
  }

  /** The signed checkpoint of a size (the newest one by default), as a C2SP note. */
  async checkpoint(size = this.size): Promise<string> {
    const head = await this.#context.store.head(size);
    if (head === undefined) throw new NotFoundError('UNKNOWN_USER', `no head of size ${size}`);
    const { identity } = this.#options;
    const { name, keyId } = identity.key;
    const signature = { name, keyId, signature: head.noteSignature };
    return formatNote({ text: checkpointText(identity, head), signatures: [signature] });
  }

  /**
   * Section 15.2: what entries [from, to) changed, at most 256 of them. Throws InvalidArgumentError
   * for a range outside the log.
   */
  async auditedEntries(from: number, to: number): Promise<AuditedEntry[]> {
    const isRange = from >= 0 && to > from && to <= this.size && to - from <= bundleEntriesMax;
    if (this.#current === undefined || !isRange) {
      const message = `key log: entries ${from} to ${to} of ${this.size}`;
      throw new InvalidArgumentError('BAD_FIELD', message);
    }
    const { prefixTree } = this.#current.reader;
    const first = Math.max(0, from - 1);
    const entries = await this.#context.store.entries(first, to);
    const audited: AuditedEntry[] = [];
    for (let position = from; position < to; position++) {
      const entry = entries[position - first];
      const before = position === 0 ? 0 : (entries[position - 1 - first]?.rootTile ?? 0);
      if (entry === undefined) continue;
      const added = await prefixTree.difference(before, entry.rootTile);
      const keys = added.map((leaf) => leaf.vrfOutput);
      const [answer] = await prefixTree.search([{ root: before, keys }]);
      if (answer === undefined) continue;
      const { timestampMs, prefixRoot } = entry;
      audited.push({
        prefixRoot,
        update: { timestampMs, added, removed: [], proof: answer.proof },
      });
    }
    return audited;
  }

  /**
   * Section 15.2 and kt-log/README.md: entries [from, to) for an auditor, signed, with the
   * checkpoint of size `to`. Throws as auditedEntries.
   */
  async auditBundle(from: number, to: number): Promise<AuditBundle> {
    const audited = await this.auditedEntries(from, to);
    const body = {
      from,
      entries: audited.map(({ update, prefixRoot }) => logEntry(update.timestampMs, prefixRoot)),
      updates: audited.map((one) => one.update),
      checkpoint: new TextEncoder().encode(await this.checkpoint(to)),
    };
    return signAuditBundle(this.#options.suite.sha256, body, this.#options.keys.note);
  }

  /** The bytes of a public tile of the RFC 6962 tree; undefined if the log has no such tile. */
  async tile(level: number, index: number, width?: number): Promise<Uint8Array | undefined> {
    return this.#current?.reader.rfc6962.tile(this.size, level, index, width);
  }

  /** Commits what waits, then refuses new updates. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sequencer?.close();
  }
}
