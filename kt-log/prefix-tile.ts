/**
 * Storage format of the prefix tree: tiles of four levels, immutable once written (README.md of this
 * folder). Nodes of a tile are numbered like a heap: root 1, children 2i and 2i + 1, slots 16 to 31 on
 * its lower edge. Encoding: 2-bit codes of the nodes in pre-order, then leaves (64 bytes) and links
 * (32-byte hash, tile id as varint) in the same order. Hashes between are computed when asked for.
 */
import { DataLossError } from '@quicprochat/proto/status';
import type { Hash, PrefixHasher } from './hash.ts';
import { hashBytes, zeroHash } from './hash.ts';

/** What stands at a place of a tile. A link is a parent whose subtree is another tile. */
export const NodeCode = { empty: 0, leaf: 1, parent: 2, link: 3 } as const;

/** A tile spans 4 levels; the nodes on its lower edge have heap numbers from 16 on. */
export const firstEdgeNode = 16;
const heapSize = 32;
export const leafBytes = 2 * hashBytes;

/** Names a tile. Ids grow; 0 stands for the empty tree. */
export type TileId = number;

/** A tile as it is stored, and where the leaf or link of each node starts in it. Never changed. */
interface Encoding {
  readonly bytes: Uint8Array;
  readonly places: Uint16Array;
}

export class PrefixTile {
  readonly #hasher: PrefixHasher;
  readonly #codes: Uint8Array;
  /** Leaves: VRF output and commitment, 64 bytes. */
  readonly #leaves: (Uint8Array | undefined)[];
  readonly #links: (TileId | undefined)[];
  readonly #hashes: (Hash | undefined)[];
  /** Encoding of this tile, or of the one that it differs from in nothing but links. */
  #encoding: Encoding | undefined;
  /** Links in which it differs. */
  readonly #changed: number[] = [];

  private constructor(
    hasher: PrefixHasher,
    codes: Uint8Array,
    leaves: (Uint8Array | undefined)[],
    links: (TileId | undefined)[],
    hashes: (Hash | undefined)[],
    encoding: Encoding | undefined,
  ) {
    this.#hasher = hasher;
    this.#codes = codes;
    this.#leaves = leaves;
    this.#links = links;
    this.#hashes = hashes;
    this.#encoding = encoding;
  }

  static empty(hasher: PrefixHasher): PrefixTile {
    return new PrefixTile(hasher, new Uint8Array(heapSize), [], [], [], undefined);
  }

  /** A tile to be changed; `this` stays as it is. */
  copy(): PrefixTile {
    return new PrefixTile(
      this.#hasher,
      this.#codes.slice(),
      this.#leaves.slice(),
      this.#links.slice(),
      this.#hashes.slice(),
      this.#changed.length === 0 ? this.#encoding : undefined,
    );
  }

  /**
   * About how much memory this tile takes once its hashes are computed, at 120 bytes for a view of an
   * array beside its content and 700 for the tile itself. An estimate: bounds the cache, no more.
   */
  get memoryBytes(): number {
    let bytes = 700 + (this.#encoding?.bytes.length ?? 0);
    for (const code of this.#codes) {
      if (code === NodeCode.leaf) bytes += leafBytes + hashBytes + 240;
      else if (code !== NodeCode.empty) bytes += hashBytes + 120;
    }
    return bytes;
  }

  codeAt(node: number): number {
    return this.#codes[node] ?? NodeCode.empty;
  }
  /** The 64 bytes of the leaf at a node whose code is `leaf`. */
  leafAt(node: number): Uint8Array {
    return this.#leaves[node] ?? corrupt('a leaf');
  }
  linkAt(node: number): TileId {
    return this.#links[node] ?? corrupt('a link');
  }

  /** All leaves of this tile. */
  leaves(): Uint8Array[] {
    return this.#preOrder()
      .filter((node) => this.codeAt(node) === NodeCode.leaf)
      .map((node) => this.leafAt(node));
  }
  /** All links of this tile with their places. */
  links(): (readonly [node: number, id: TileId])[] {
    return this.#preOrder()
      .filter((node) => this.codeAt(node) === NodeCode.link)
      .map((node) => [node, this.linkAt(node)] as const);
  }

  hashAt(node: number): Hash {
    const known = this.#hashes[node];
    if (known !== undefined) return known;
    const hash = this.#compute(node);
    this.#hashes[node] = hash;
    return hash;
  }

  #compute(node: number): Hash {
    switch (this.codeAt(node)) {
      case NodeCode.empty:
        return zeroHash;
      case NodeCode.leaf: {
        const leaf = this.leafAt(node);
        return this.#hasher.leaf(leaf.subarray(0, hashBytes), leaf.subarray(hashBytes));
      }
      case NodeCode.parent:
        return this.#hasher.parent(this.hashAt(2 * node), this.hashAt(2 * node + 1));
      default:
        return corrupt('the hash of a link');
    }
  }

  setLeaf(node: number, leaf: Uint8Array): void {
    this.#encoding = undefined;
    this.#codes[node] = NodeCode.leaf;
    this.#leaves[node] = leaf;
    this.#hashes[node] = undefined;
  }
  setParent(node: number): void {
    if (this.codeAt(node) !== NodeCode.parent) this.#encoding = undefined;
    this.#codes[node] = NodeCode.parent;
    this.#leaves[node] = undefined;
    this.#hashes[node] = undefined;
  }
  setLink(node: number, id: TileId, hash: Hash): void {
    const isAlike =
      this.codeAt(node) === NodeCode.link && varintBytes(this.linkAt(node)) === varintBytes(id);
    if (isAlike) this.#changed.push(node);
    else this.#encoding = undefined;
    this.#codes[node] = NodeCode.link;
    this.#leaves[node] = undefined;
    this.#links[node] = id;
    this.#hashes[node] = hash;
  }

  encode(): Uint8Array {
    const encoding = this.#patched() ?? this.#encoded();
    this.#encoding = encoding;
    this.#changed.length = 0;
    return encoding.bytes;
  }

  /** The encoding that is there with the links put in that changed: one copy instead of one for each link. */
  #patched(): Encoding | undefined {
    const before = this.#encoding;
    if (before === undefined || this.#changed.length === 0) return before;
    const bytes = before.bytes.slice();
    for (const node of this.#changed) {
      const at = before.places[node] ?? 0;
      bytes.set(this.hashAt(node), at);
      writeVarint(bytes, at + hashBytes, this.linkAt(node));
    }
    return { bytes, places: before.places };
  }

  #encoded(): Encoding {
    const order = this.#preOrder();
    const places = new Uint16Array(heapSize);
    let at = Math.ceil(order.length / 4);
    let length = at;
    for (const node of order) {
      const code = this.codeAt(node);
      if (code === NodeCode.leaf) length += leafBytes;
      else if (code === NodeCode.link) length += hashBytes + varintBytes(this.linkAt(node));
    }
    const bytes = new Uint8Array(length);
    for (let i = 0; i < order.length; i++) {
      const node = order[i] ?? 0;
      const code = this.codeAt(node);
      bytes[i >>> 2] = (bytes[i >>> 2] ?? 0) | (code << (2 * (i & 3)));
      places[node] = at;
      if (code === NodeCode.leaf) {
        bytes.set(this.leafAt(node), at);
        at += leafBytes;
      } else if (code === NodeCode.link) {
        bytes.set(this.hashAt(node), at);
        at = writeVarint(bytes, at + hashBytes, this.linkAt(node));
      }
    }
    return { bytes, places };
  }

  #preOrder(node = 1, order: number[] = []): number[] {
    order.push(node);
    if (this.codeAt(node) === NodeCode.parent) {
      this.#preOrder(2 * node, order);
      this.#preOrder(2 * node + 1, order);
    }
    return order;
  }

  /** Reads a stored tile, whose leaves stay views of `bytes`. Throws DataLossError. */
  static decode(hasher: PrefixHasher, bytes: Uint8Array): PrefixTile {
    const tile = PrefixTile.empty(hasher);
    const order: number[] = [];
    const visit = (node: number): void => {
      const index = order.push(node) - 1;
      const code = ((bytes[index >>> 2] ?? corrupt('node codes')) >>> (2 * (index & 3))) & 3;
      tile.#codes[node] = code;
      if (code !== NodeCode.parent) return;
      if (node >= firstEdgeNode) corrupt('no parent on the lower edge');
      visit(2 * node);
      visit(2 * node + 1);
    };
    visit(1);
    let offset = Math.ceil(order.length / 4);
    const take = (length: number): Uint8Array => {
      const part = bytes.subarray(offset, offset + length);
      if (part.length !== length) corrupt('leaves and links in full');
      offset += length;
      return part;
    };
    const places = new Uint16Array(heapSize);
    for (const node of order) {
      const code = tile.codeAt(node);
      places[node] = offset;
      if (code === NodeCode.leaf) {
        tile.#leaves[node] = take(leafBytes);
      } else if (code === NodeCode.link) {
        tile.#hashes[node] = take(hashBytes);
        let id = 0;
        for (let scale = 1; ; scale *= 128) {
          const [byte = 0] = take(1);
          id += (byte & 127) * scale;
          if (byte < 128) break;
          if (scale > 2 ** 42) corrupt('a tile id below 2^53');
        }
        tile.#links[node] = id;
      }
    }
    if (offset !== bytes.length) corrupt('nothing after the last link');
    tile.#encoding = { bytes, places };
    return tile;
  }
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) bytes++;
  return bytes;
}

function writeVarint(bytes: Uint8Array, start: number, value: number): number {
  let at = start;
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes[at++] = (rest % 128) + 128;
  bytes[at++] = rest;
  return at;
}

function corrupt(expected: string): never {
  throw new DataLossError('STORE_CHANGED', `prefix tile: expected ${expected}`);
}
