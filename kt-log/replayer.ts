/**
 * The verifier's provider: hands out what a CombinedTreeProof contains in the order in which the
 * algorithms ask, and ties all of it to one root (protocol section 12.3). Browser-safe.
 */
import type { CombinedTreeProof, PrefixProof } from './codec.ts';
import type { Provider } from './combined-tree.ts';
import type { Hash, PrefixHasher, Sha256, TreeHasher } from './hash.ts';
import { hashBytes, keytransHasher, logEntry, prefixHasher, sameBytes } from './hash.ts';
import type { Comparison, LadderHistory } from './ladder.ts';
import { frontier, monitoringLadder, runSearchLadder } from './ladder.ts';
import type { EvaluatedLog, RetainedLog } from './log-tree.ts';
import { evaluateLog } from './log-tree.ts';
import { evaluatePrefixProof } from './prefix-proof.ts';
import { verify, VerificationError } from './verification-error.ts';

/** A log entry that a user knows in full. */
export interface ViewEntry {
  readonly position: number;
  readonly timestampMs: number;
  readonly prefixRoot: Hash;
}
/** What a user retains of a tree (section 4.2): its full subtrees and its frontier's entries. */
export interface LogView extends RetainedLog {
  readonly frontier: readonly ViewEntry[];
}
/** A version's search key, and its commitment if the version is understood to exist. */
export interface KnownVersion {
  readonly vrfOutput: Hash;
  readonly commitment?: Hash | undefined;
}
export type KnownVersions = ReadonlyMap<number, KnownVersion>;

/** A tree whose proof was used up exactly. Nothing of it is to be trusted before its root is. */
export class ReplayedTree {
  readonly size: number;
  readonly root: Hash;
  readonly #log: EvaluatedLog;
  readonly #entries: ReadonlyMap<number, ViewEntry>;

  constructor(log: EvaluatedLog, entries: ReadonlyMap<number, ViewEntry>) {
    this.size = log.size;
    this.root = log.root;
    this.#log = log;
    this.#entries = entries;
  }

  entry(position: number): ViewEntry | undefined {
    return this.#entries.get(position);
  }
  /** Root of the tree when it had `size` entries; undefined if the proof does not show it. */
  rootAt(size: number): Hash | undefined {
    return this.#log.rootAt(size);
  }
  /** What a user retains of the tree at `size`; undefined if the proof does not show all of it. */
  viewAt(size: number): LogView | undefined {
    const retained = this.#log.headsAt(size);
    const entries = frontier(size).map((position) => this.#entries.get(position));
    const known = entries.filter((entry) => entry !== undefined);
    if (retained === undefined || known.length !== entries.length) return undefined;
    return { ...retained, frontier: known };
  }
}

export class Replayer implements Provider {
  readonly #size: number;
  readonly #retained: LogView | undefined;
  readonly #versions: KnownVersions;
  readonly #proof: CombinedTreeProof;
  readonly #treeHasher: TreeHasher;
  readonly #prefixHasher: PrefixHasher;
  readonly #timestamps = new Map<number, number>();
  readonly #roots = new Map<number, Hash>();
  #usedTimestamps = 0;
  #usedProofs = 0;

  /** `versions` are what the lookups of the label may be about. */
  constructor(
    sha256: Sha256,
    size: number,
    retained: LogView | undefined,
    versions: KnownVersions,
    proof: CombinedTreeProof,
  ) {
    this.#size = size;
    this.#retained = retained;
    this.#versions = versions;
    this.#proof = proof;
    this.#treeHasher = keytransHasher(sha256);
    this.#prefixHasher = prefixHasher(sha256);
    for (const { position, timestampMs, prefixRoot } of retained?.frontier ?? []) {
      this.#timestamps.set(position, timestampMs);
      this.#roots.set(position, prefixRoot);
    }
  }

  isAtHand(): boolean {
    return true;
  }

  timestamp(position: number): number {
    const known = this.#timestamps.get(position);
    if (known !== undefined) return known;
    const next = this.#proof.timestamps[this.#usedTimestamps++];
    if (next === undefined) {
      throw new VerificationError('COUNT', 'timestamps', `one for entry ${position}`);
    }
    this.#timestamps.set(position, next);
    return next;
  }

  searchLadder(position: number, target: number, history?: LadderHistory): Comparison {
    const proof = this.#nextProof(position);
    let used = 0;
    const run = runSearchLadder(target, position, history, (version, known) => {
      if (known !== undefined) return known;
      const result = proof.results[used++];
      if (result === undefined) {
        throw new VerificationError('COUNT', 'search ladder', `a result for version ${version}`);
      }
      return result.type === 'inclusion';
    });
    this.#evaluate(position, run.lookups, proof);
    return run.comparison;
  }

  monitoringLadder(position: number, target: number): void {
    const included = this.lookUp(position, monitoringLadder(target));
    verify(included.every(Boolean), 'LADDER', 'monitoring ladder', 'inclusion of every version');
  }

  lookUp(position: number, versions: readonly number[]): boolean[] {
    const proof = this.#nextProof(position);
    this.#evaluate(position, versions, proof);
    return proof.results.map((result) => result.type === 'inclusion');
  }

  /** A verifier knows one reason to stop: the response is used up. */
  stopsBefore(): boolean {
    const { timestamps, prefixProofs } = this.#proof;
    return this.#usedTimestamps >= timestamps.length && this.#usedProofs >= prefixProofs.length;
  }

  #nextProof(position: number): PrefixProof {
    const proof = this.#proof.prefixProofs[this.#usedProofs++];
    if (proof === undefined) {
      throw new VerificationError('COUNT', 'prefix proofs', `one for entry ${position}`);
    }
    return proof;
  }

  #evaluate(position: number, versions: readonly number[], proof: PrefixProof): void {
    const lookups = versions.map((version) => {
      const known = this.#versions.get(version);
      if (known === undefined) {
        throw new VerificationError('LADDER', `lookup of version ${version}`, 'its VRF proof');
      }
      return known;
    });
    const root = evaluatePrefixProof(this.#prefixHasher, lookups, proof);
    const before = this.#roots.get(position);
    verify(
      before === undefined || sameBytes(before, root),
      'BAD_ROOT',
      `prefix tree of entry ${position}`,
      'one root in all proofs and in what was retained',
    );
    this.#roots.set(position, root);
  }

  /**
   * Call when the algorithms are done. Throws VerificationError COUNT for anything left over or
   * missing, NOT_MONOTONIC for timestamps that go back, BAD_ROOT for retained heads that differ.
   */
  finish(auditorSize?: number): ReplayedTree {
    const { timestamps, prefixProofs, prefixRoots, inclusion } = this.#proof;
    verify(
      this.#usedTimestamps === timestamps.length,
      'COUNT',
      'timestamps',
      `${this.#usedTimestamps}, found ${timestamps.length}`,
    );
    verify(
      this.#usedProofs === prefixProofs.length,
      'COUNT',
      'prefix proofs',
      `${this.#usedProofs}, found ${prefixProofs.length}`,
    );
    const entries = this.#takePrefixRoots(prefixRoots);
    const retained = new Set(this.#retained?.frontier.map((entry) => entry.position));
    const leaves = new Map<number, Hash>();
    for (const { position, timestampMs, prefixRoot } of entries.values()) {
      if (retained.has(position)) continue;
      leaves.set(position, this.#treeHasher.leaf(logEntry(timestampMs, prefixRoot)));
    }
    const shape = { size: this.#size, auditorSize };
    const log = evaluateLog(this.#treeHasher, shape, leaves, this.#retained, inclusion.elements);
    return new ReplayedTree(log, entries);
  }

  /** All entries with a timestamp, left to right; those without a root take the next given one. */
  #takePrefixRoots(packed: Uint8Array): Map<number, ViewEntry> {
    const positions = [...this.#timestamps.keys()].sort((a, b) => a - b);
    const entries = new Map<number, ViewEntry>();
    let used = 0;
    let lastMs = 0;
    for (const position of positions) {
      const timestampMs = this.#timestamps.get(position) ?? 0;
      verify(
        timestampMs >= lastMs,
        'NOT_MONOTONIC',
        `timestamp of entry ${position}`,
        'not less than any to its left',
      );
      lastMs = timestampMs;
      let prefixRoot = this.#roots.get(position);
      if (prefixRoot === undefined) {
        prefixRoot = packed.subarray(used, used + hashBytes);
        used += hashBytes;
      }
      entries.set(position, { position, timestampMs, prefixRoot });
    }
    for (const position of this.#roots.keys()) {
      verify(entries.has(position), 'COUNT', `entry ${position}`, 'a timestamp for its proof');
    }
    verify(
      used === packed.length,
      'COUNT',
      'prefix roots',
      `${used / hashBytes}, found ${packed.length / hashBytes}`,
    );
    return entries;
  }
}
