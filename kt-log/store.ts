/**
 * What the log needs of a disk: the TreeStore interface, and the store that keeps all of it in
 * memory. Everything is append-only but the rows of erased labels. The suite that
 * every implementation has to pass is in store-contract.ts.
 */
import { ConflictError, DataLossError } from '@quicprochat/proto/status';
import type { Hash } from './hash.ts';
import type { NoteSignature } from './note.ts';
import type { TileId } from './prefix-tile.ts';
import type { TileReader, WrittenTile } from './prefix-tree.ts';
import type { StoredEntry } from './recorder.ts';
import type { LogTile } from './tiles.ts';
import type { VrfEvaluation } from './vrf.ts';

/** The two trees over the same entries (kt-log/README.md). */
export type LogTreeName = 'keytrans' | 'rfc6962';

/** A signed state of the log. There is one per size, and it is never replaced. */
export interface StoredHead {
  readonly size: number;
  readonly root: Hash;
  /** Signature of the TreeHead (section 11.2). */
  readonly signature: Uint8Array;
  readonly rfc6962Root: Hash;
  /** The log's signature on the checkpoint of this size. */
  readonly noteSignature: Uint8Array;
}

/** A version of a label. */
export interface StoredVersion {
  readonly position: number;
  readonly commitment: Hash;
  readonly opening: Uint8Array;
  readonly value: Uint8Array;
}
export interface NewVersion {
  readonly label: Uint8Array;
  readonly version: number;
  readonly commitment: Hash;
  readonly opening: Uint8Array;
  readonly value: Uint8Array;
}
export interface NewEvaluation {
  readonly label: Uint8Array;
  readonly version: number;
  readonly evaluation: VrfEvaluation;
}

/** One log entry and all that comes with it. */
export interface LogBatch {
  readonly position: number;
  readonly entry: StoredEntry;
  readonly head: StoredHead;
  readonly tiles: readonly WrittenTile[];
  /** Prefix tiles that the newest tree no longer reaches; for a later pruning. */
  readonly superseded: readonly TileId[];
  readonly logTiles: readonly { readonly tree: LogTreeName; readonly tile: LogTile }[];
  readonly versions: readonly NewVersion[];
  /**
   * What the callers of the updates want written with them, in the order of the updates: the log
   * passes it through, and only the store knows what it is.
   */
  readonly effects: readonly unknown[];
}

export interface TreeStore extends TileReader {
  /** The head of the greatest size; undefined for a log without entries. */
  newestHead(): Promise<StoredHead | undefined>;
  head(size: number): Promise<StoredHead | undefined>;
  /** Entries [from, to). Throws DataLossError STORE_CHANGED unless all of them are there. */
  entries(from: number, to: number): Promise<readonly StoredEntry[]>;
  /** A full tile of a log tree. Throws DataLossError STORE_CHANGED when it is missing. */
  logTile(tree: LogTreeName, level: number, index: number): Promise<Uint8Array>;
  /** The entry of each version of a label, in order; empty for an unknown one. */
  positions(label: Uint8Array): Promise<readonly number[]>;
  versions(
    label: Uint8Array,
    versions: readonly number[],
  ): Promise<readonly (StoredVersion | undefined)[]>;
  evaluations(
    label: Uint8Array,
    versions: readonly number[],
  ): Promise<readonly (VrfEvaluation | undefined)[]>;
  /**
   * Writes a batch as a whole, its effects included; durable on return. Throws ConflictError
   * SEQ_CONFLICT, and changes nothing, unless the batch is the next one: a head is never replaced.
   * An effect that cannot be (a unique row that is there already, a condition that does not hold)
   * refuses the batch: the store changes nothing and throws a QpcError that is none of Unavailable,
   * Internal and DataLoss. The log then tries smaller batches, so a refusal has to depend on the
   * effects and the committed state alone. Any other error leaves open whether the batch was written.
   */
  commit(batch: LogBatch): Promise<void>;
  /**
   * Keeps VRFs of versions that labels have or may get, durable on return. A VRF has one value: those
   * that are there already stay. One whose label is unknown, or was erased, is left out.
   */
  addEvaluations(evaluations: readonly NewEvaluation[]): Promise<void>;
  /** Cosignatures of the checkpoint of a size, in the order in which they came. */
  cosignatures(size: number): Promise<readonly NoteSignature[]>;
  /**
   * Keeps cosignatures of the checkpoint of a committed size, durable on return. The first one of
   * each name and key id stays; more of the same cosigner change nothing.
   */
  addCosignatures(size: number, signatures: readonly NoteSignature[]): Promise<void>;
  /**
   * Forgets a label: its versions with openings and values, its evaluations, its name. Entries and
   * tiles stay, in which nobody finds it without the VRF key. Durable on return; nothing happens for
   * an unknown label.
   */
  erase(label: Uint8Array): Promise<void>;
}

/** A key of a Map for a byte string. */
const textOf = (label: Uint8Array): string => Buffer.from(label).toString('latin1');

/** Keeps a log in memory, for tests, simulations and auditors without a disk. */
export class MemoryTreeStore implements TreeStore {
  readonly #onEffects: (effects: readonly unknown[]) => void;
  readonly #heads = new Map<number, StoredHead>();
  readonly #entries: StoredEntry[] = [];
  readonly #tiles = new Map<TileId, Uint8Array>();
  readonly #logTiles = new Map<string, Uint8Array>();
  readonly #versions = new Map<string, StoredVersion[]>();
  readonly #evaluations = new Map<string, Map<number, VrfEvaluation>>();
  readonly #cosignatures = new Map<number, NoteSignature[]>();

  /**
   * `onEffects` carries out the effects of a batch that is otherwise in order; it either does all of
   * them or throws, as TreeStore.commit demands.
   */
  constructor(onEffects: (effects: readonly unknown[]) => void = () => {}) {
    this.#onEffects = onEffects;
  }

  newestHead(): Promise<StoredHead | undefined> {
    return this.head(this.#entries.length);
  }
  head(size: number): Promise<StoredHead | undefined> {
    return Promise.resolve(this.#heads.get(size));
  }
  async entries(from: number, to: number): Promise<readonly StoredEntry[]> {
    const found = this.#entries.slice(from, to);
    if (found.length !== to - from) throw lost(`entries ${from} to ${to}`);
    return found;
  }
  async tiles(ids: readonly TileId[]): Promise<readonly Uint8Array[]> {
    return ids.map((id) => {
      const tile = this.#tiles.get(id);
      if (tile === undefined) throw lost(`prefix tile ${id}`);
      return tile;
    });
  }
  async logTile(tree: LogTreeName, level: number, index: number): Promise<Uint8Array> {
    const tile = this.#logTiles.get(`${tree}/${level}/${index}`);
    if (tile === undefined) throw lost(`${tree} tile ${level}/${index}`);
    return tile;
  }
  positions(label: Uint8Array): Promise<readonly number[]> {
    const versions = this.#versions.get(textOf(label)) ?? [];
    return Promise.resolve(versions.map((version) => version.position));
  }
  versions(
    label: Uint8Array,
    versions: readonly number[],
  ): Promise<readonly (StoredVersion | undefined)[]> {
    const known = this.#versions.get(textOf(label));
    return Promise.resolve(versions.map((version) => known?.[version]));
  }
  evaluations(
    label: Uint8Array,
    versions: readonly number[],
  ): Promise<readonly (VrfEvaluation | undefined)[]> {
    const known = this.#evaluations.get(textOf(label));
    return Promise.resolve(versions.map((version) => known?.get(version)));
  }

  async commit(batch: LogBatch): Promise<void> {
    const { position, entry, head } = batch;
    const isNext = position === this.#entries.length && head.size === position + 1;
    if (!isNext || batch.tiles.some(({ id }) => this.#tiles.has(id))) {
      throw new ConflictError('SEQ_CONFLICT', `log store: entry ${position} is not the next one`);
    }
    const next = new Map<string, number>();
    for (const { label, version } of batch.versions) {
      const key = textOf(label);
      const expected = next.get(key) ?? this.#versions.get(key)?.length ?? 0;
      if (version !== expected) {
        throw new ConflictError(
          'SEQ_CONFLICT',
          `log store: version ${version} is not the next one`,
        );
      }
      next.set(key, version + 1);
    }
    this.#onEffects(batch.effects);
    this.#entries.push(entry);
    this.#heads.set(head.size, head);
    for (const { id, bytes } of batch.tiles) this.#tiles.set(id, bytes);
    for (const { tree, tile } of batch.logTiles) {
      this.#logTiles.set(`${tree}/${tile.level}/${tile.index}`, tile.bytes);
    }
    for (const { label, version, commitment, opening, value } of batch.versions) {
      const key = textOf(label);
      const known = this.#versions.get(key) ?? [];
      known[version] = { position, commitment, opening, value };
      this.#versions.set(key, known);
    }
  }

  async addEvaluations(evaluations: readonly NewEvaluation[]): Promise<void> {
    for (const { label, version, evaluation } of evaluations) {
      const key = textOf(label);
      if (!this.#versions.has(key)) continue;
      const known = this.#evaluations.get(key);
      if (known === undefined) this.#evaluations.set(key, new Map([[version, evaluation]]));
      else if (!known.has(version)) known.set(version, evaluation);
    }
  }

  cosignatures(size: number): Promise<readonly NoteSignature[]> {
    return Promise.resolve([...(this.#cosignatures.get(size) ?? [])]);
  }
  addCosignatures(size: number, signatures: readonly NoteSignature[]): Promise<void> {
    const known = this.#cosignatures.get(size) ?? [];
    for (const one of signatures)
      if (!known.some((other) => isSameKey(one, other))) known.push(one);
    this.#cosignatures.set(size, known);
    return Promise.resolve();
  }

  erase(label: Uint8Array): Promise<void> {
    this.#versions.delete(textOf(label));
    this.#evaluations.delete(textOf(label));
    return Promise.resolve();
  }
}

const isSameKey = (a: NoteSignature, b: NoteSignature): boolean =>
  a.name === b.name && a.keyId === b.keyId;

function lost(what: string): DataLossError {
  return new DataLossError('STORE_CHANGED', `log store: ${what} missing`);
}
