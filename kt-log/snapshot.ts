/**
 * Reading a log: one immutable state of it per request, its entries and trees, and a label as that
 * state shows it. Entries and tiles never change, so nothing here waits for the writer.
 */
import { DataLossError, InvalidArgumentError } from '@quicprochat/proto/status';
import type { FullTreeHead } from './codec.ts';
import type { Evaluations } from './evaluations.ts';
import type { Hash, Sha256 } from './hash.ts';
import { keytransHasher, logEntry, prefixHasher, rfc6962Hasher } from './hash.ts';
import type { NodeId } from './log-tree.ts';
import { PrefixTree } from './prefix-tree.ts';
import type { LabelHistory, LogSource, StoredEntry } from './recorder.ts';
import type { StoredHead, TreeStore } from './store.ts';
import { TiledLog, tileWidth } from './tiles.ts';
import type { VrfEvaluation } from './vrf.ts';

/** Decoded entries that are kept: 65 536 of about 150 bytes. */
const entriesCachedMax = 65_536;

/** The trees of one log over its store. */
export class LogReader implements LogSource {
  readonly prefixTree: PrefixTree;
  readonly keytrans: TiledLog;
  readonly rfc6962: TiledLog;
  readonly #store: TreeStore;
  readonly #entries = new Map<number, StoredEntry>();

  private constructor(
    store: TreeStore,
    prefixTree: PrefixTree,
    keytrans: TiledLog,
    rfc6962: TiledLog,
  ) {
    this.#store = store;
    this.prefixTree = prefixTree;
    this.keytrans = keytrans;
    this.rfc6962 = rfc6962;
  }

  /** Rebuilds what is not stored: the partial tiles on the right edge of both log trees. */
  static async open(sha256: Sha256, store: TreeStore, size: number): Promise<LogReader> {
    const edge = await store.entries(size - (size % tileWidth), size);
    const encoded = edge.map((entry) => logEntry(entry.timestampMs, entry.prefixRoot));
    const tree = (name: 'keytrans' | 'rfc6962', hasher: ReturnType<typeof keytransHasher>) =>
      TiledLog.open(
        hasher,
        (level, index) => store.logTile(name, level, index),
        size,
        encoded.map((entry) => hasher.leaf(entry)),
      );
    return new LogReader(
      store,
      new PrefixTree(prefixHasher(sha256), store),
      await tree('keytrans', keytransHasher(sha256)),
      await tree('rfc6962', rfc6962Hasher(sha256)),
    );
  }

  nodes(ids: readonly NodeId[]): Promise<readonly Hash[]> {
    return this.keytrans.nodes(ids);
  }

  async entry(position: number): Promise<StoredEntry> {
    const cached = this.#entries.get(position);
    if (cached !== undefined) return cached;
    const [entry] = await this.#store.entries(position, position + 1);
    if (entry === undefined) {
      throw new DataLossError('STORE_CHANGED', `log store: entry ${position} missing`);
    }
    this.#entries.set(position, entry);
    if (this.#entries.size > entriesCachedMax) {
      const [oldest] = this.#entries.keys();
      if (oldest !== undefined) this.#entries.delete(oldest);
    }
    return entry;
  }
}

/** One state of a log, from which a request is answered. */
export interface Snapshot {
  readonly size: number;
  readonly head: StoredHead;
}

/** The head of a response to a user who advertised `last`. Throws InvalidArgumentError BAD_FIELD. */
export function headFor(snapshot: Snapshot, last: number | undefined): FullTreeHead {
  if (last !== undefined && (last > snapshot.size || last < 1)) {
    throw new InvalidArgumentError('BAD_FIELD', `last: ${last} is not a size of this log`);
  }
  if (last === snapshot.size) return { type: 'same' };
  const { size, signature } = snapshot.head;
  return { type: 'updated', treeHead: { treeSize: size, signature } };
}

/** Index of the first of `positions`, ascending, that is above `position`. */
function countUpTo(positions: readonly number[], position: number): number {
  let low = 0;
  let high = positions.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((positions[middle] ?? 0) <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A label in one state of the log. */
export class LabelView implements LabelHistory {
  readonly label: Uint8Array;
  /** Entry of each version that the state holds. */
  readonly positions: readonly number[];
  readonly #store: TreeStore;
  readonly #vrfs: Evaluations;
  /** Whether the newest state has the label: nothing is stored for a name that somebody made up. */
  readonly #exists: boolean;
  readonly #evaluations = new Map<number, VrfEvaluation>();

  private constructor(
    label: Uint8Array,
    positions: readonly number[],
    store: TreeStore,
    vrfs: Evaluations,
    exists: boolean,
  ) {
    this.label = label;
    this.positions = positions;
    this.#store = store;
    this.#vrfs = vrfs;
    this.#exists = exists;
  }

  static async open(
    snapshot: Snapshot,
    label: Uint8Array,
    store: TreeStore,
    vrfs: Evaluations,
  ): Promise<LabelView> {
    const all = await store.positions(label);
    const positions = all.slice(0, countUpTo(all, snapshot.size - 1));
    return new LabelView(label, positions, store, vrfs, all.length > 0);
  }

  /** Greatest version, or -1. */
  get greatest(): number {
    return this.positions.length - 1;
  }
  greatestAt(position: number): number {
    return countUpTo(this.positions, position) - 1;
  }
  /** As greatestAt, for those who want to know whether there is one. */
  versionAt(position: number): number | undefined {
    const version = this.greatestAt(position);
    return version < 0 ? undefined : version;
  }
  searchKey(version: number): Hash {
    return this.evaluation(version).output;
  }
  /** An evaluation that was prepared. */
  evaluation(version: number): VrfEvaluation {
    const known = this.#evaluations.get(version);
    if (known === undefined) throw new TypeError(`the VRF of version ${version} was not prepared`);
    return known;
  }

  /** Makes the evaluations of these versions ready: stored ones read, others proved now. */
  async prepare(versions: readonly number[]): Promise<void> {
    const wanted = [...new Set(versions)].filter((version) => !this.#evaluations.has(version));
    if (wanted.length === 0) return;
    const found = await this.#vrfs.of(this.label, wanted, this.#exists);
    wanted.forEach((version, i) => {
      const evaluation = found[i];
      if (evaluation !== undefined) this.#evaluations.set(version, evaluation);
    });
  }

  /** Commitments of versions that exist, undefined for others. */
  async commitments(versions: readonly number[]): Promise<(Hash | undefined)[]> {
    const stored = await this.#store.versions(this.label, versions);
    return stored.map((one, i) =>
      (versions[i] ?? Number.POSITIVE_INFINITY) <= this.greatest ? one?.commitment : undefined,
    );
  }
}
