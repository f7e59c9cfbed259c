/**
 * The log's side of the prefix tree (protocol sections 3.3, 12.2): batch insertion and batch search
 * in any version of it, over immutable tiles. Paths are loaded first, then everything is computed
 * without I/O. Leaves are never removed (kt-log/README.md). Proofs are evaluated in prefix-proof.ts.
 */
import { DataLossError, InvalidArgumentError } from '@quicprochat/proto/status';
import type { PrefixLeaf, PrefixProof, PrefixSearchResult } from './codec.ts';
import type { Hash, PrefixHasher } from './hash.ts';
import { bitAt, compareBytes, hashBytes, sameBytes, zeroHash } from './hash.ts';
import type { LruLimits } from './lru.ts';
import { LruCache } from './lru.ts';
import type { TileId } from './prefix-tile.ts';
import { firstEdgeNode, NodeCode, PrefixTile } from './prefix-tile.ts';

/** Where tiles come from. Tiles are immutable: the same id gives the same bytes for ever. */
export interface TileReader {
  /** The tiles with these ids, in this order. Throws DataLossError when one is missing. */
  tiles(ids: readonly TileId[]): Promise<readonly Uint8Array[]>;
}
/** A tile to be stored. */
export interface WrittenTile {
  readonly id: TileId;
  readonly bytes: Uint8Array;
}
/** A search in one version of the tree; `root` 0 is the empty tree. */
export interface PrefixQuery {
  readonly root: TileId;
  readonly keys: readonly Uint8Array[];
}
export interface PrefixAnswer {
  readonly proof: PrefixProof;
  /** Per key: the commitment stored under it, or undefined. */
  readonly commitments: readonly (Uint8Array | undefined)[];
}
export interface Insertion {
  readonly root: TileId;
  readonly rootHash: Hash;
  /** New tiles, children before parents; their ids follow each other from the given one. */
  readonly written: readonly WrittenTile[];
  /** Tiles of the old version that the new one no longer reaches. */
  readonly superseded: readonly TileId[];
}

/** 64 MB, which are about 20 000 tiles. */
export const tileCacheLimits: LruLimits = { countMax: Number.MAX_SAFE_INTEGER, weightMax: 2 ** 26 };

type Loaded = ReadonlyMap<TileId, PrefixTile>;

/** A key of a Set for a leaf. */
const textOf = (leaf: Uint8Array): string => Buffer.from(leaf).toString('latin1');

/** A reader of versioned trees with a bounded cache of decoded tiles. */
export class PrefixTree {
  readonly #hasher: PrefixHasher;
  readonly #reader: TileReader;
  readonly #cache: LruCache<TileId, PrefixTile>;

  /** Decoded tiles are kept up to `limits`, whose weight is an estimate of their memory in bytes. */
  constructor(hasher: PrefixHasher, reader: TileReader, limits: LruLimits = tileCacheLimits) {
    this.#hasher = hasher;
    this.#reader = reader;
    this.#cache = new LruCache(limits, (tile) => tile.memoryBytes);
  }

  /** Answers several searches, each in its own version, with one round of loading per tile level. */
  async search(queries: readonly PrefixQuery[]): Promise<PrefixAnswer[]> {
    const loaded = await this.#load(queries);
    return queries.map((query) => searchLoaded(loaded, query));
  }

  /** Per key: the commitment stored under it in version `root`, or undefined. */
  async commitments(
    root: TileId,
    keys: readonly Uint8Array[],
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const loaded = await this.#load([{ root, keys }]);
    return keys.map((key) => leafOf(loaded, root, key)?.subarray(hashBytes));
  }

  /**
   * The version that `leaves` make of version `root`. New tiles take ids from `nextId` on; they
   * are readable here at once and have to be stored by the caller before the new root is used.
   * Throws InvalidArgumentError BAD_FIELD for a key that is there already or given twice.
   */
  async insert(root: TileId, leaves: readonly PrefixLeaf[], nextId: TileId): Promise<Insertion> {
    const sorted = leaves.map(packLeaf).sort(compareKeys);
    const keys = sorted.map(keyOf);
    const isRepeated = keys.some((key, i) => i > 0 && sameBytes(key, keys[i - 1] ?? key));
    const loaded = await this.#load([{ root, keys }]);
    if (isRepeated || keys.some((key) => leafOf(loaded, root, key) !== undefined)) {
      throw new InvalidArgumentError('BAD_FIELD', 'prefix tree: a key that is already there');
    }
    const writer = new TileWriter(this.#hasher, loaded, nextId);
    const newRoot = writer.insertInto(root, 0, sorted);
    for (const [id, tile] of writer.tiles) this.#cache.set(id, tile);
    // Whoever looks into the old version reads them again; of most versions nobody ever does.
    for (const id of writer.superseded) this.#cache.delete(id);
    return {
      root: newRoot.id,
      rootHash: newRoot.hash,
      written: [...writer.tiles].map(([id, tile]) => ({ id, bytes: tile.encode() })),
      superseded: writer.superseded,
    };
  }

  /**
   * Leaves of version `after` that version `before` lacks, in order of their keys. Reads only the
   * tiles in which the two differ; `before` is an earlier version of the same tree.
   */
  async difference(before: TileId, after: TileId): Promise<PrefixLeaf[]> {
    if (before === after) return [];
    const old = new Set<string>();
    const added: Uint8Array[] = [];
    const visit = async (oldId: TileId, newId: TileId): Promise<void> => {
      const [oldTile, newTile] = await Promise.all([this.#tile(oldId), this.#tile(newId)]);
      for (const leaf of oldTile?.leaves() ?? []) old.add(textOf(leaf));
      added.push(...(newTile?.leaves() ?? []));
      for (const [node, id] of newTile?.links() ?? []) {
        const isOldLink = oldTile?.codeAt(node) === NodeCode.link;
        const oldLink = isOldLink ? oldTile.linkAt(node) : 0;
        if (oldLink !== id) await visit(oldLink, id);
      }
    };
    await visit(before, after);
    return added
      .filter((leaf) => !old.has(textOf(leaf)))
      .sort(compareKeys)
      .map((leaf) => ({ vrfOutput: keyOf(leaf), commitment: leaf.subarray(hashBytes) }));
  }

  async #tile(id: TileId): Promise<PrefixTile | undefined> {
    if (id === 0) return undefined;
    const cached = this.#cache.get(id);
    if (cached !== undefined) return cached;
    const [bytes] = await this.#reader.tiles([id]);
    if (bytes === undefined) throw lost(id);
    const tile = PrefixTile.decode(this.#hasher, bytes);
    this.#cache.set(id, tile);
    return tile;
  }

  /** Every tile on the paths of the keys: one round per level of tiles, none when all are cached. */
  async #load(queries: readonly PrefixQuery[]): Promise<Loaded> {
    const loaded = new Map<TileId, PrefixTile>();
    let wave: Visit[] = queries
      .filter(({ root }) => root !== 0)
      .map(({ root, keys }) => ({ id: root, depth: 0, keys }));
    while (wave.length > 0) {
      const missing = new Set<TileId>();
      for (const { id } of wave) {
        // Versions of a tree share most of their tiles.
        if (loaded.has(id)) continue;
        const cached = this.#cache.get(id);
        if (cached === undefined) missing.add(id);
        else loaded.set(id, cached);
      }
      if (missing.size > 0) {
        const ids = [...missing];
        const read = await this.#reader.tiles(ids);
        ids.forEach((id, i) => {
          const bytes = read[i];
          if (bytes === undefined) throw lost(id);
          const tile = PrefixTile.decode(this.#hasher, bytes);
          loaded.set(id, tile);
          this.#cache.set(id, tile);
        });
      }
      wave = wave.flatMap((visit) => nextVisits(tileOf(loaded, visit.id), visit));
    }
    return loaded;
  }
}

/** Keys whose paths enter the tile `id` at `depth`. */
interface Visit {
  readonly id: TileId;
  readonly depth: number;
  readonly keys: readonly Uint8Array[];
}

function nextVisits(tile: PrefixTile, { depth, keys }: Visit): Visit[] {
  const below = new Map<TileId, Uint8Array[]>();
  for (const key of keys) {
    let node = 1;
    let at = depth;
    while (tile.codeAt(node) === NodeCode.parent) node = 2 * node + bitAt(key, at++);
    if (tile.codeAt(node) !== NodeCode.link) continue;
    const id = tile.linkAt(node);
    const others = below.get(id);
    if (others === undefined) below.set(id, [key]);
    else others.push(key);
  }
  return [...below].map(([id, belowKeys]) => ({ id, depth: depth + 4, keys: belowKeys }));
}

function tileOf(loaded: Loaded, id: TileId): PrefixTile {
  const tile = loaded.get(id);
  if (tile === undefined) throw lost(id);
  return tile;
}
/** The leaf of a key in a version whose tiles on its path are loaded. */
function leafOf(loaded: Loaded, root: TileId, key: Uint8Array): Uint8Array | undefined {
  let tile = root === 0 ? undefined : tileOf(loaded, root);
  for (let depth = 0, node = 1; tile !== undefined;) {
    switch (tile.codeAt(node)) {
      case NodeCode.parent:
        node = 2 * node + bitAt(key, depth++);
        break;
      case NodeCode.link:
        tile = tileOf(loaded, tile.linkAt(node));
        node = 1;
        break;
      case NodeCode.leaf: {
        const leaf = tile.leafAt(node);
        return sameBytes(keyOf(leaf), key) ? leaf : undefined;
      }
      default:
        return undefined;
    }
  }
  return undefined;
}
function lost(id: TileId): DataLossError {
  return new DataLossError('STORE_CHANGED', `prefix tile ${id} is missing`);
}

/** Section 12.2: results in the order of the keys; elements left to right, the fewest that do. */
function searchLoaded(loaded: Loaded, { root, keys }: PrefixQuery): PrefixAnswer {
  const order = keys.map((_, i) => i).sort((a, b) => compareBytes(keyAt(a), keyAt(b)));
  const results: PrefixSearchResult[] = [];
  const commitments: (Uint8Array | undefined)[] = keys.map(() => undefined);
  const elements: Hash[] = [];
  function keyAt(index: number): Uint8Array {
    return keys[index] ?? zeroHash;
  }
  const end = (tile: PrefixTile | undefined, node: number, depth: number, at: number): void => {
    const leaf = tile?.codeAt(node) === NodeCode.leaf ? tile.leafAt(node) : undefined;
    const vrfOutput = leaf?.subarray(0, hashBytes);
    const commitment = leaf?.subarray(hashBytes);
    if (vrfOutput === undefined || commitment === undefined) {
      results[at] = { type: 'nonInclusionParent', depth };
    } else if (sameBytes(vrfOutput, keyAt(at))) {
      results[at] = { type: 'inclusion', depth };
      commitments[at] = commitment;
    } else {
      results[at] = { type: 'nonInclusionLeaf', leaf: { vrfOutput, commitment }, depth };
    }
  };
  const walk = (tile: PrefixTile, node: number, depth: number, low: number, high: number): void => {
    if (low === high) {
      elements.push(tile.hashAt(node));
      return;
    }
    const code = tile.codeAt(node);
    if (code === NodeCode.link) {
      walk(tileOf(loaded, tile.linkAt(node)), 1, depth, low, high);
    } else if (code === NodeCode.parent) {
      let middle = low;
      while (middle < high && bitAt(keyAt(order[middle] ?? 0), depth) === 0) middle++;
      walk(tile, 2 * node, depth + 1, low, middle);
      walk(tile, 2 * node + 1, depth + 1, middle, high);
    } else {
      for (let i = low; i < high; i++) end(tile, node, depth, order[i] ?? 0);
    }
  };
  if (root === 0) order.forEach((at) => end(undefined, 1, 0, at));
  else walk(tileOf(loaded, root), 1, 0, 0, keys.length);
  return { proof: { results, elements: pack(elements) }, commitments };
}

/** Hashes side by side. */
export function pack(hashes: readonly Hash[]): Uint8Array {
  const packed = new Uint8Array(hashes.length * hashBytes);
  hashes.forEach((hash, i) => packed.set(hash, i * hashBytes));
  return packed;
}

/** Leaves as tiles keep them: VRF output and commitment side by side, 64 bytes. */
function packLeaf(leaf: PrefixLeaf): Uint8Array {
  return pack([leaf.vrfOutput, leaf.commitment]);
}
const keyOf = (leaf: Uint8Array): Uint8Array => leaf.subarray(0, hashBytes);
// The key comes first, so the order of packed leaves is the order of their keys.
const compareKeys = compareBytes;

/** Splits packed leaves, sorted, by bit `depth` of their keys. */
function split(leaves: readonly Uint8Array[], depth: number): [Uint8Array[], Uint8Array[]] {
  const firstOne = leaves.findIndex((leaf) => bitAt(leaf, depth) === 1);
  const middle = firstOne < 0 ? leaves.length : firstOne;
  return [leaves.slice(0, middle), leaves.slice(middle)];
}

/** One insertion: copies of the tiles on its paths, under new ids, children before parents. */
class TileWriter {
  readonly tiles = new Map<TileId, PrefixTile>();
  readonly superseded: TileId[] = [];
  readonly #hasher: PrefixHasher;
  readonly #loaded: Loaded;
  #nextId: TileId;

  constructor(hasher: PrefixHasher, loaded: Loaded, nextId: TileId) {
    this.#hasher = hasher;
    this.#loaded = loaded;
    this.#nextId = nextId;
  }

  /** The new version of tile `id` (0: a fresh one) at `depth` with `leaves` in it. */
  insertInto(
    id: TileId,
    depth: number,
    leaves: readonly Uint8Array[],
  ): { readonly id: TileId; readonly hash: Hash } {
    if (id !== 0) this.superseded.push(id);
    const tile = id === 0 ? PrefixTile.empty(this.#hasher) : tileOf(this.#loaded, id).copy();
    this.#place(tile, 1, depth, leaves);
    const newId = this.#nextId++;
    this.tiles.set(newId, tile);
    return { id: newId, hash: tile.hashAt(1) };
  }

  #place(tile: PrefixTile, node: number, depth: number, leaves: readonly Uint8Array[]): void {
    if (leaves.length === 0) return;
    switch (tile.codeAt(node)) {
      case NodeCode.empty:
        this.#build(tile, node, depth, leaves);
        return;
      case NodeCode.leaf:
        // The leaf that stands here moves down until it is alone again.
        this.#build(tile, node, depth, [...leaves, tile.leafAt(node)].sort(compareKeys));
        return;
      case NodeCode.parent: {
        const [left, right] = split(leaves, depth);
        this.#place(tile, 2 * node, depth + 1, left);
        this.#place(tile, 2 * node + 1, depth + 1, right);
        tile.setParent(node);
        return;
      }
      default: {
        const child = this.insertInto(tile.linkAt(node), depth, leaves);
        tile.setLink(node, child.id, child.hash);
      }
    }
  }

  /** Fills a place that has nothing below it. */
  #build(tile: PrefixTile, node: number, depth: number, leaves: readonly Uint8Array[]): void {
    const [first] = leaves;
    if (first === undefined) return;
    if (leaves.length === 1) {
      tile.setLeaf(node, first);
    } else if (node >= firstEdgeNode) {
      const child = this.insertInto(0, depth, leaves);
      tile.setLink(node, child.id, child.hash);
    } else {
      const [left, right] = split(leaves, depth);
      tile.setParent(node);
      this.#build(tile, 2 * node, depth + 1, left);
      this.#build(tile, 2 * node + 1, depth + 1, right);
    }
  }
}
