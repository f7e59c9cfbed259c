/**
 * A log tree as C2SP tiles of 256 hashes (../spec/tlog-tiles.md): paths, entry bundles, and a tree
 * that grows and gives out node values. Full tiles are stored; the partial ones on the right edge
 * live in memory and are rebuilt at start. Serves both trees: the RFC 6962 one, whose tiles are
 * public, and the KEYTRANS one.
 */
import { DataLossError, InvalidArgumentError } from '@quicprochat/proto/status';
import type { Hash, TreeHasher } from './hash.ts';
import { hashBytes, logEntryBytes } from './hash.ts';
import type { NodeId } from './log-tree.ts';
import { leavesOf, nodeId } from './log-tree.ts';

export const tileWidth = 256;
export const tileBytes = tileWidth * hashBytes;

/** A full tile: 256 hashes of subtrees with 256^level leaves each. */
export interface LogTile {
  readonly level: number;
  readonly index: number;
  readonly bytes: Uint8Array;
}
/** Reads one full tile. Throws DataLossError when it is missing. */
export type LogTileReader = (level: number, index: number) => Promise<Uint8Array>;

/** `tile/<L>/<N>[.p/<W>]`: `level` undefined for entry bundles, `width` for a partial tile. */
export function tilePath(level: number | undefined, index: number, width?: number): string {
  const isSize = (n: number): boolean => Number.isSafeInteger(n) && n >= 0;
  const isWidth = width === undefined || (isSize(width) && width >= 1 && width < tileWidth);
  if (!isSize(index) || !isWidth || (level !== undefined && !(isSize(level) && level < 64))) {
    throw new InvalidArgumentError('BAD_FIELD', 'tile path: level, index or width out of range');
  }
  const digits = String(index);
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0');
  const groups = padded.match(/.{3}/g) ?? [];
  const last = groups.pop() ?? '000';
  const path = [...groups.map((group) => `x${group}`), last].join('/');
  return `tile/${level ?? 'entries'}/${path}${width === undefined ? '' : `.p/${width}`}`;
}

/** What a tile path names. */
export interface TileName {
  /** Undefined: an entry bundle. */
  readonly level: number | undefined;
  readonly index: number;
  /** Undefined: a full tile. */
  readonly width: number | undefined;
}

/** Reads a path that tilePath could have written; undefined for any other. */
export function parseTilePath(path: string): TileName | undefined {
  const match =
    /^tile\/(entries|0|[1-9]\d?)\/((?:x\d{3}\/){0,4}\d{3})(?:\.p\/([1-9]\d{0,2}))?$/.exec(path);
  const [, kind, groups = '', partial] = match ?? [];
  if (kind === undefined) return undefined;
  const level = kind === 'entries' ? undefined : Number(kind);
  const index = Number(groups.replaceAll(/[x/]/g, ''));
  const width = partial === undefined ? undefined : Number(partial);
  const isValid = (level ?? 0) < 64 && (width ?? 1) < tileWidth;
  // Leading groups of zeros are another spelling of the same index.
  return isValid && tilePath(level, index, width) === path ? { level, index, width } : undefined;
}

/** Hashes in the tile `index` of `level` in a tree of `size` entries; 0: there is no such tile. */
export function tileWidthAt(size: number, level: number, index: number): number {
  const hashes = Math.floor(size / tileWidth ** level);
  return Math.max(0, Math.min(tileWidth, hashes - index * tileWidth));
}

/** An entry bundle: each 40-byte entry behind its uint16 length. */
export function entryBundle(entries: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(entries.length * (2 + logEntryBytes));
  const view = new DataView(bytes.buffer);
  entries.forEach((entry, i) => {
    const at = i * (2 + logEntryBytes);
    view.setUint16(at, logEntryBytes);
    bytes.set(entry, at + 2);
  });
  return bytes;
}

/** The entries of a bundle; undefined for anything that entryBundle does not write. */
export function parseEntryBundle(bytes: Uint8Array): Uint8Array[] | undefined {
  const stride = 2 + logEntryBytes;
  if (bytes.length % stride !== 0 || bytes.length > tileWidth * stride) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += stride) {
    if (view.getUint16(at) !== logEntryBytes) return undefined;
    entries.push(bytes.subarray(at + 2, at + stride));
  }
  return entries;
}

/** What one more leaf makes of a tree. */
export interface Growth {
  /** Tiles that it completes. */
  readonly tiles: readonly LogTile[];
  /** Makes it so. At most one of several growths of the same tree may be kept. */
  readonly keep: () => void;
}

/** Computed nodes inside tiles that are kept; they are asked for again and again. */
const nodesCachedMax = 65_536;

/** A log tree over stored tiles. */
export class TiledLog {
  readonly #hasher: TreeHasher;
  readonly #read: LogTileReader;
  /** Per level: the hashes of the tile on the right edge, fewer than 256. */
  readonly #edges: Hash[][] = [];
  readonly #cache = new Map<NodeId, Hash>();
  #size = 0;

  private constructor(hasher: TreeHasher, read: LogTileReader) {
    this.#hasher = hasher;
    this.#read = read;
  }

  /**
   * The tree of `size` entries, from its stored full tiles and the leaf values of the entries
   * behind the last full tile.
   */
  static async open(
    hasher: TreeHasher,
    read: LogTileReader,
    size: number,
    lastLeaves: readonly Hash[],
  ): Promise<TiledLog> {
    const tree = new TiledLog(hasher, read);
    tree.#size = size;
    tree.#edges[0] = [...lastLeaves];
    for (let level = 1; Math.floor(size / tileWidth ** level) > 0; level++) {
      const hashes = Math.floor(size / tileWidth ** level);
      const edge: Hash[] = [];
      for (let index = hashes - (hashes % tileWidth); index < hashes; index++) {
        const tile = splitHashes(await read(level - 1, index));
        edge.push(tree.#combine(tile, level - 1));
      }
      tree.#edges[level] = edge;
    }
    return tree;
  }

  get size(): number {
    return this.#size;
  }

  /** The tree with one leaf more. Nothing changes until `keep` is called, once its tiles are stored. */
  grow(leaf: Hash): Growth {
    const tiles: LogTile[] = [];
    const edges: Hash[][] = [];
    let value = leaf;
    for (let level = 0; ; level++) {
      const edge = [...(this.#edges[level] ?? []), value];
      if (edge.length < tileWidth) {
        edges.push(edge);
        break;
      }
      const index = (this.#size + 1) / tileWidth ** (level + 1) - 1;
      const bytes = new Uint8Array(tileBytes);
      edge.forEach((hash, i) => bytes.set(hash, i * hashBytes));
      tiles.push({ level, index, bytes });
      edges.push([]);
      value = this.#combine(edge, level);
    }
    return {
      tiles,
      keep: () => {
        this.#size++;
        for (const [level, edge] of edges.entries()) this.#edges[level] = edge;
      },
    };
  }

  /** Root of the subtree over hashes of one level, a power of two of them. */
  #combine(hashes: readonly Hash[], level: number): Hash {
    let row = hashes;
    for (let isLeaf = level === 0; row.length > 1; isLeaf = false) {
      const above: Hash[] = [];
      for (let i = 0; i + 1 < row.length; i += 2) {
        const [left, right] = row.slice(i, i + 2);
        if (left !== undefined && right !== undefined) {
          above.push(this.#hasher.parent(left, isLeaf, right, isLeaf));
        }
      }
      row = above;
    }
    return row[0] ?? missing();
  }

  /** Values of heads of balanced subtrees inside the tree, in the order asked. */
  async nodes(ids: readonly NodeId[]): Promise<Hash[]> {
    const values: Hash[] = [];
    for (const id of ids) {
      const known = this.#cache.get(id);
      values.push(known ?? (await this.#load(id)));
    }
    return values;
  }

  async #load(id: NodeId): Promise<Hash> {
    const { start, length } = leavesOf(id);
    if (start + length > this.#size) missing();
    let level = 0;
    while (tileWidth ** (level + 1) <= length) level++;
    const scale = tileWidth ** level;
    const first = start / scale;
    const index = Math.floor(first / tileWidth);
    const inTile = first % tileWidth;
    const tile = await this.#hashes(level, index);
    const value = this.#combine(tile.slice(inTile, inTile + length / scale), level);
    this.#remember(id, value);
    return value;
  }

  /** The hashes of a tile, full or on the right edge. */
  async #hashes(level: number, index: number): Promise<readonly Hash[]> {
    if (tileWidthAt(this.#size, level, index) < tileWidth) return this.#edges[level] ?? [];
    return splitHashes(await this.#read(level, index));
  }

  #remember(id: NodeId, value: Hash): void {
    this.#cache.set(id, value);
    if (this.#cache.size <= nodesCachedMax) return;
    const [oldest] = this.#cache.keys();
    if (oldest !== undefined) this.#cache.delete(oldest);
  }

  /** The bytes of a public tile of the tree at `size`; undefined if there is no such tile. */
  async tile(
    size: number,
    level: number,
    index: number,
    width = tileWidth,
  ): Promise<Uint8Array | undefined> {
    if (size > this.#size || width > tileWidthAt(size, level, index)) return undefined;
    const scale = tileWidth ** level;
    const first = index * tileWidth;
    const ids = Array.from({ length: width }, (_, i) => nodeId((first + i) * scale, scale));
    const bytes = new Uint8Array(width * hashBytes);
    (await this.nodes(ids)).forEach((hash, i) => bytes.set(hash, i * hashBytes));
    return bytes;
  }
}

function splitHashes(bytes: Uint8Array): Hash[] {
  if (bytes.length !== tileBytes) missing();
  return Array.from({ length: tileWidth }, (_, i) =>
    bytes.subarray(i * hashBytes, (i + 1) * hashBytes),
  );
}

function missing(): never {
  throw new DataLossError('STORE_CHANGED', 'log tree: a node is missing');
}
