/**
 * The log's answers to user operations (protocol section 13): checks each request as the text
 * demands and builds the response from one snapshot. Writes nothing.
 */
import {
  FailedPreconditionError,
  InvalidArgumentError,
  NotFoundError,
} from '@quicprochat/proto/status';
import type { CombinedTreeProof, Configuration } from './codec.ts';
import type { Steps, Tree } from './combined-tree.ts';
import {
  rightmostDistinguished,
  runWith,
  searchAbsence,
  searchFixed,
  searchGreatest,
  updateView,
  walkDistinguished,
} from './combined-tree.ts';
import type { Credential, CredentialUpdate } from './credential.ts';
import type { Evaluations } from './evaluations.ts';
import { baseLadder, directPath } from './ladder.ts';
import { checkOwnerStart, monitorContact, monitorOwner, ownerStartEntries } from './monitoring.ts';
import type * as operations from './operations.ts';
import { Recorder } from './recorder.ts';
import type { LogReader, Snapshot } from './snapshot.ts';
import { headFor, LabelView } from './snapshot.ts';
import type { TreeStore } from './store.ts';
import { checkUpdate, updateLadder } from './updating.ts';
import { VerificationError } from './verification-error.ts';
import { ownerInitLadder } from './verify-owner.ts';
import type { Recency } from './verify-search.ts';

/** Bounds of what one answer may cost. */
export interface AnswerLimits {
  /** Ladders of one owner monitoring response (section 8.3). */
  readonly ownerLadders: number;
  /** Entries of one monitoring map. */
  readonly mapEntries: number;
}
export const defaultAnswerLimits: AnswerLimits = { ownerLadders: 64, mapEntries: 64 };

/** Everything that answering needs. */
export interface AnswerContext {
  readonly config: Configuration;
  readonly store: TreeStore;
  readonly vrfs: Evaluations;
  readonly reader: LogReader;
  readonly limits: AnswerLimits;
  readonly recency: Recency;
}

/** What a proof leaves open to the prover: whether an honest log has an answer at all. */
function refusal(error: unknown): Error {
  if (!(error instanceof VerificationError)) return error as Error;
  switch (error.reason) {
    case 'NOT_FOUND':
      return new NotFoundError('UNKNOWN_USER', error.message, { cause: error });
    default:
      return new FailedPreconditionError('BAD_CURSOR', error.message, { cause: error });
  }
}

export class Answers {
  readonly #context: AnswerContext;
  readonly #snapshot: Snapshot;

  constructor(context: AnswerContext, snapshot: Snapshot) {
    this.#context = context;
    this.#snapshot = snapshot;
  }

  /** Entries of the tree that the answers are about. */
  get size(): number {
    return this.#snapshot.size;
  }

  #label(label: Uint8Array): Promise<LabelView> {
    const { store, vrfs } = this.#context;
    return LabelView.open(this.#snapshot, label, store, vrfs);
  }

  /**
   * A label that exists or never did. Throws NotFoundError UNKNOWN_USER for one that was erased: the
   * tree holds it for ever, so no proof can say that it is not there.
   */
  async #labelNotErased(labelBytes: Uint8Array): Promise<LabelView> {
    const label = await this.#label(labelBytes);
    if (label.greatest < 0 && (await this.#isInTree(label))) {
      throw new NotFoundError('UNKNOWN_USER', 'key log: the label was erased');
    }
    return label;
  }
  async #isInTree(label: LabelView): Promise<boolean> {
    await label.prepare([0]);
    const { reader } = this.#context;
    const { rootTile: root } = await reader.entry(this.size - 1);
    const [held] = await reader.prefixTree.commitments(root, [label.searchKey(0)]);
    return held !== undefined;
  }

  /** Whether the tree holds version 0 of a label, also when it was erased. */
  async isTaken(labelBytes: Uint8Array): Promise<boolean> {
    const label = await this.#label(labelBytes);
    return label.greatest >= 0 || (await this.#isInTree(label));
  }

  /** Runs view update and algorithm over a recorder; the proof of what they asked. */
  async #prove<T>(
    last: number | undefined,
    label: LabelView,
    algorithm: (tree: Tree) => Steps<T>,
    stopsBefore?: (position: number, proofsSoFar: number) => boolean,
  ): Promise<{ readonly result: T; readonly proof: CombinedTreeProof }> {
    const { size } = this.#snapshot;
    const { config, reader } = this.#context;
    const provider = new Recorder(size, last, reader, label, stopsBefore);
    const tree: Tree = {
      provider,
      size,
      windowMs: config.reasonableMonitoringWindowMs,
      lifetimeMs: config.maximumLifetimeMs,
    };
    const steps = function* (): Steps<T> {
      yield* updateView(tree, last);
      return yield* algorithm(tree);
    };
    try {
      const result = await runWith(steps(), (position) => provider.fetch(position));
      return { result, proof: await provider.finish() };
    } catch (error) {
      throw refusal(error);
    }
  }

  /** The steps of a ladder; `commits` says for which versions the receiver needs the commitment. */
  async #ladder(
    label: LabelView,
    versions: readonly number[],
    commits: (version: number) => boolean,
  ): Promise<operations.BinaryLadderStep[]> {
    await label.prepare(versions);
    const commitments = await label.commitments(versions);
    return versions.map((version, i) => ({
      proof: label.evaluation(version).proof,
      commitment: commits(version) ? commitments[i] : undefined,
    }));
  }

  /**
   * Section 13.1. Throws NotFoundError for a label or version that does not exist or was erased,
   * FailedPreconditionError for one that is expired.
   */
  async search(request: operations.SearchRequest): Promise<operations.SearchResponse> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const label = await this.#label(request.label);
    const version = request.version ?? label.greatest;
    const [stored] = await this.#context.store.versions(request.label, [Math.max(version, 0)]);
    if (version < 0 || version > label.greatest || stored === undefined) {
      throw new NotFoundError('UNKNOWN_USER', 'key log: no such version of the label');
    }
    const binaryLadder = await this.#ladder(label, baseLadder(version), (v) => v !== version);
    const { proof } = await this.#prove(request.last, label, (tree) =>
      request.version === undefined ? searchGreatest(tree, version) : searchFixed(tree, version),
    );
    return {
      fullTreeHead,
      version: request.version === undefined ? version : undefined,
      opening: stored.opening,
      value: { value: stored.value },
      binaryLadder,
      search: proof,
    };
  }

  /**
   * Shows that a label has no version. Throws InvalidArgumentError when it has one, NotFoundError
   * when it was erased.
   */
  async absence(request: {
    readonly last?: number | undefined;
    readonly label: Uint8Array;
  }): Promise<operations.AbsenceProof> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const label = await this.#labelNotErased(request.label);
    if (label.greatest >= 0) throw badField('label: it exists');
    const [step] = await this.#ladder(label, [0], () => false);
    const { proof } = await this.#prove(request.last, label, searchAbsence);
    if (step === undefined) throw badField('label: no ladder');
    return { fullTreeHead, step, search: proof };
  }

  /** Section 13.2: what the log verifies of a monitoring map. Throws InvalidArgumentError. */
  #checkMap(label: LabelView, entries: readonly operations.MonitorMapEntry[]): void {
    const { size } = this.#snapshot;
    if (entries.length > this.#context.limits.mapEntries) {
      throw badField(`entries: ${entries.length}, at most ${this.#context.limits.mapEntries}`);
    }
    const versions = new Set(entries.map((entry) => entry.version));
    if (versions.size !== entries.length) throw badField('entries: a version twice');
    for (const [i, { position, version }] of entries.entries()) {
      const first = label.positions[version];
      const before = entries[i - 1]?.position ?? -1;
      const isOnPath =
        first !== undefined &&
        position < size &&
        (position === first || directPath(first, size).includes(position));
      if (position <= before || !isOnPath) {
        throw badField('entries: ascending positions on the path of their version');
      }
    }
  }

  /**
   * Section 13.2. Throws InvalidArgumentError for a map that no user could have, NotFoundError for a
   * label that was erased.
   */
  async contactMonitor(
    request: operations.ContactMonitorRequest,
  ): Promise<operations.ProofResponse> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const label = await this.#labelNotErased(request.label);
    this.#checkMap(label, request.entries);
    const { proof } = await this.#prove(request.last, label, (tree) =>
      monitorContact(tree, request.entries),
    );
    return { fullTreeHead, proof };
  }

  /**
   * Section 13.3. Throws FailedPreconditionError unless `start` is distinguished and unexpired,
   * NotFoundError for a label that was erased.
   */
  async ownerInit(request: operations.OwnerInitRequest): Promise<operations.OwnerInitResponse> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const { start } = request;
    if (start >= this.#snapshot.size) throw badField('start: not an entry of the log');
    const label = await this.#labelNotErased(request.label);
    const atStart = label.greatestAt(start);
    let greatestVersions: number[] = [];
    const { proof } = await this.#prove(request.last, label, function* (tree) {
      const listed = yield* ownerStartEntries(tree, start);
      greatestVersions = listed.map((at) => label.greatestAt(at)).filter((version) => version >= 0);
      yield* checkOwnerStart(tree, listed, greatestVersions);
    });
    const versions = ownerInitLadder(greatestVersions);
    const binaryLadder = await this.#ladder(label, versions, (version) => version <= atStart);
    return { fullTreeHead, greatestVersions, binaryLadder, init: proof };
  }

  /**
   * Section 13.4. Throws InvalidArgumentError for a state that no owner could have, NotFoundError for
   * a label that was erased.
   */
  async ownerMonitor(request: operations.OwnerMonitorRequest): Promise<operations.ProofResponse> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const { start, entries, greatestVersion } = request;
    if (start >= this.#snapshot.size) throw badField('start: not an entry of the log');
    const label = await this.#labelNotErased(request.label);
    this.#checkMap(label, entries);
    const known = greatestVersion ?? -1;
    if (known > label.greatest || known < label.greatestAt(start)) {
      throw badField('greatest_version: not between that at the start and the greatest');
    }
    const { ownerLadders } = this.#context.limits;
    const { proof } = await this.#prove(
      request.last,
      label,
      function* (tree) {
        yield* monitorContact(tree, entries, start);
        yield* monitorOwner(tree, start, (position) => label.versionAt(position));
      },
      (position, proofsSoFar) => label.greatestAt(position) > known || proofsSoFar >= ownerLadders,
    );
    return { fullTreeHead, proof };
  }

  /**
   * Section 13.5, after `position` holds the version that follows `greatestVersion`. `own`: the
   * request's own values made it, so they are not repeated.
   */
  async update(
    request: Omit<operations.UpdateRequest, 'values'>,
    own: boolean,
  ): Promise<operations.UpdateResponse> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const label = await this.#label(request.label);
    const before = request.greatestVersion;
    const first = (before ?? -1) + 1;
    const position = label.positions[first];
    if (position === undefined) throw badField('greatest_version: nothing is newer');
    const greatest = label.greatestAt(position);
    const added = { position, first, greatest };
    const range = Array.from({ length: greatest - first + 1 }, (_, i) => first + i);
    const stored = await this.#context.store.versions(request.label, range);
    const made = stored.filter((one) => one !== undefined);
    if (made.length !== stored.length) {
      throw new NotFoundError('UNKNOWN_USER', 'key log: the label was erased');
    }
    const steps = updateLadder(before, added);
    const binaryLadder = await this.#ladder(label, steps, (version) => version < first);
    const owner = {
      greatestVersion: before,
      greatestPosition: before === undefined ? -1 : (label.positions[before] ?? -1),
      versionAt: (at: number) => label.versionAt(at),
    };
    const { proof } = await this.#prove(request.last, label, (tree) =>
      checkUpdate(tree, owner, added),
    );
    return {
      fullTreeHead,
      position,
      values: own ? [] : made.map((one) => one.value),
      info: made.map((one) => ({ opening: one.opening })),
      binaryLadder,
      update: proof,
    };
  }

  /** Section 13.6, with this log's definition of recent. */
  async distinguished(request: operations.DistinguishedRequest): Promise<operations.ProofResponse> {
    const fullTreeHead = headFor(this.#snapshot, request.last);
    const nobody = await this.#label(new Uint8Array());
    const { recency } = this.#context;
    const { proof } = await this.#prove(request.last, nobody, (tree) =>
      walkDistinguished(tree, { ...recency, stop: request.stop }),
    );
    return { fullTreeHead, proof };
  }

  /**
   * Section 14: the greatest version of a label as a credential of the rightmost distinguished
   * entry; provisional while that entry does not hold it. Throws NotFoundError,
   * FailedPreconditionError while no entry is distinguished.
   */
  async credential(labelBytes: Uint8Array): Promise<Credential> {
    const label = await this.#label(labelBytes);
    const version = label.greatest;
    const [stored] = await this.#context.store.versions(labelBytes, [Math.max(version, 0)]);
    if (version < 0 || stored === undefined) {
      throw new NotFoundError('UNKNOWN_USER', 'key log: no such label');
    }
    const { result: position } = await this.#prove(undefined, label, rightmostDistinguished);
    if (position === undefined) {
      throw new FailedPreconditionError('BAD_CURSOR', 'key log: no entry is distinguished yet');
    }
    const ladder = baseLadder(version);
    const common = {
      label: labelBytes,
      version,
      opening: stored.opening,
      value: { value: stored.value },
      binaryLadder: await this.#ladder(label, ladder, (v) => v !== version),
      position,
    };
    if (label.greatestAt(position) === version) {
      const { rootTile: root } = await this.#context.reader.entry(position);
      const keys = ladder.map((v) => label.searchKey(v));
      const [answer] = await this.#context.reader.prefixTree.search([{ root, keys }]);
      if (answer === undefined) throw badField('label: no proof');
      return { ...common, proof: { type: 'standard', distinguished: answer.proof } };
    }
    const { proof: search } = await this.#prove(position + 1, label, (tree) =>
      searchGreatest(tree, version),
    );
    const { size: treeSize, signature } = this.#snapshot.head;
    return {
      ...common,
      proof: { type: 'provisional', treeHead: { treeSize, signature }, search },
    };
  }

  /**
   * Section 14.2: leads a provisional credential from the tree of size `last` and its terminal entry
   * to the end of this snapshot, whose newest entry has to be a distinguished one.
   */
  async credentialUpdate(
    labelBytes: Uint8Array,
    last: number,
    entry: operations.MonitorMapEntry,
  ): Promise<CredentialUpdate> {
    headFor(this.#snapshot, last);
    const label = await this.#label(labelBytes);
    this.#checkMap(label, [entry]);
    const { proof } = await this.#prove(last, label, (tree) => monitorContact(tree, [entry]));
    return { monitor: proof };
  }

  /** Entries that are distinguished, rightmost first, at most `countMax`. */
  async distinguishedPositions(countMax: number): Promise<number[]> {
    const nobody = await this.#label(new Uint8Array());
    const recentMs = Number.MAX_SAFE_INTEGER;
    const { result } = await this.#prove(undefined, nobody, (tree) =>
      walkDistinguished(tree, { recentMs, countMax }),
    );
    return result.map((found) => found.position);
  }
}

function badField(message: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', `key log: ${message}`);
}
