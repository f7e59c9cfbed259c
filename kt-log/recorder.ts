/**
 * The prover's provider: answers the algorithms from the log and writes down what they ask, in
 * order; then builds the CombinedTreeProof from it with one round of reads per tree (protocol
 * section 12.3, Appendix C).
 */
import type { CombinedTreeProof } from './codec.ts';
import type { Provider } from './combined-tree.ts';
import type { Hash } from './hash.ts';
import type { Comparison, LadderHistory } from './ladder.ts';
import { frontier, monitoringLadder, runSearchLadder } from './ladder.ts';
import type { NodeId } from './log-tree.ts';
import { batchPath } from './log-tree.ts';
import type { PrefixTree } from './prefix-tree.ts';
import { pack } from './prefix-tree.ts';
import type { TileId } from './prefix-tile.ts';

/** A log entry with the tile that roots its version of the prefix tree. */
export interface StoredEntry {
  readonly timestampMs: number;
  readonly prefixRoot: Hash;
  readonly rootTile: TileId;
}
/** Reads of one immutable version of a log. */
export interface LogSource {
  readonly prefixTree: PrefixTree;
  entry(position: number): Promise<StoredEntry>;
  /** Heads of balanced subtrees of the KEYTRANS log tree, in the order asked. */
  nodes(ids: readonly NodeId[]): Promise<readonly Hash[]>;
}
/** The label that is searched: which versions an entry holds, and their search keys. */
export interface LabelHistory {
  /** Greatest version in the entry at `position`; -1 if the label did not exist. */
  greatestAt(position: number): number;
  /** Makes the search keys of these versions ready. */
  prepare(versions: readonly number[]): Promise<void>;
  /** VRF output of a version that was prepared. */
  searchKey(version: number): Hash;
}

interface ProofRequest {
  readonly position: number;
  readonly versions: readonly number[];
}

export class Recorder implements Provider {
  readonly #size: number;
  readonly #last: number | undefined;
  readonly #source: LogSource;
  readonly #label: LabelHistory;
  readonly #retained: ReadonlySet<number>;
  readonly #entries = new Map<number, StoredEntry>();
  /** Positions in the order in which their timestamps were asked first. */
  readonly #asked = new Map<number, number>();
  readonly #requests: ProofRequest[] = [];
  readonly #stopsBefore: (position: number, proofsSoFar: number) => boolean;

  /** `stopsBefore` limits owner monitoring (section 8.3, step 4). */
  constructor(
    size: number,
    last: number | undefined,
    source: LogSource,
    label: LabelHistory,
    stopsBefore: (position: number, proofsSoFar: number) => boolean = () => false,
  ) {
    this.#size = size;
    this.#last = last;
    this.#source = source;
    this.#label = label;
    this.#retained = new Set(last === undefined ? [] : frontier(last));
    this.#stopsBefore = stopsBefore;
  }

  isAtHand(position: number): boolean {
    return this.#entries.has(position);
  }
  /** Fetches an entry: what runWith does when an algorithm asks for one. */
  async fetch(position: number): Promise<void> {
    this.#entries.set(position, await this.#source.entry(position));
  }

  timestamp(position: number): number {
    const { timestampMs } = this.#entry(position);
    if (!this.#retained.has(position)) this.#asked.set(position, timestampMs);
    return timestampMs;
  }
  #entry(position: number): StoredEntry {
    const entry = this.#entries.get(position);
    if (entry === undefined) throw new TypeError(`entry ${position} was not fetched`);
    return entry;
  }

  searchLadder(position: number, target: number, history?: LadderHistory): Comparison {
    const greatest = this.#label.greatestAt(position);
    const run = runSearchLadder(target, position, history, (version) => version <= greatest);
    this.#requests.push({ position, versions: run.lookups });
    return run.comparison;
  }
  monitoringLadder(position: number, target: number): void {
    this.#requests.push({ position, versions: monitoringLadder(target) });
  }
  lookUp(position: number, versions: readonly number[]): boolean[] {
    this.#requests.push({ position, versions });
    const greatest = this.#label.greatestAt(position);
    return versions.map((version) => version <= greatest);
  }
  stopsBefore(position: number): boolean {
    return this.#stopsBefore(position, this.#requests.length);
  }

  /** Builds the proof of everything asked so far. */
  async finish(auditorSize?: number): Promise<CombinedTreeProof> {
    await this.#label.prepare(this.#requests.flatMap((request) => request.versions));
    const answers = this.#source.prefixTree.search(
      this.#requests.map(({ position, versions }) => ({
        root: this.#entry(position).rootTile,
        keys: versions.map((version) => this.#label.searchKey(version)),
      })),
    );
    const leaves = [...this.#asked.keys()].sort((a, b) => a - b);
    const shape = { size: this.#size, leaves, retainedSize: this.#last, auditorSize };
    const [prefixProofs, elements] = await Promise.all([
      answers,
      this.#source.nodes(batchPath(shape)),
    ]);
    const proven = new Set(this.#requests.map((request) => request.position));
    const roots = leaves
      .filter((position) => !proven.has(position))
      .map((position) => this.#entry(position).prefixRoot);
    return {
      timestamps: [...this.#asked.values()],
      prefixProofs: prefixProofs.map((answer) => answer.proof),
      prefixRoots: pack(roots),
      inclusion: { elements: pack(elements) },
    };
  }
}
