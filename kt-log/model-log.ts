/**
 * Test support: a log in memory with given timestamps and search keys that are plain hashes, so
 * that thousands of random histories can be proved and replayed without VRFs. Not library code.
 */
import type { CombinedTreeProof } from './codec.ts';
import type { Steps, Tree } from './combined-tree.ts';
import { runNow, runWith } from './combined-tree.ts';
import type { Hash } from './hash.ts';
import { keytransHasher, logEntry, prefixHasher, zeroHash } from './hash.ts';
import { frontier } from './ladder.ts';
import type { NodeId } from './log-tree.ts';
import { Frontier, fullSubtrees, leavesOf } from './log-tree.ts';
import { nativeSha256 } from './native-hash.ts';
import type { TileReader } from './prefix-tree.ts';
import { PrefixTree } from './prefix-tree.ts';
import type { LogSource, StoredEntry } from './recorder.ts';
import { Recorder } from './recorder.ts';
import type { KnownVersion, LogView, ReplayedTree } from './replayer.ts';
import { Replayer } from './replayer.ts';

export const treeHasher = keytransHasher(nativeSha256);
const text = (s: string): Uint8Array => new TextEncoder().encode(s);

/** What one entry of the model adds: its time, and how many versions of which labels. */
export interface ModelEntry {
  readonly timestampMs: number;
  readonly adds: Readonly<Record<string, number>>;
}

export class ModelLog implements LogSource, TileReader {
  readonly prefixTree: PrefixTree = new PrefixTree(prefixHasher(nativeSha256), this);
  readonly entries: StoredEntry[] = [];
  readonly #leaves: Hash[] = [];
  readonly #tiles = new Map<number, Uint8Array>();
  readonly #positions = new Map<string, number[]>();

  async append({ timestampMs, adds }: ModelEntry): Promise<void> {
    const position = this.entries.length;
    const leaves = Object.entries(adds).flatMap(([label, count]) => {
      const positions = this.#positions.get(label) ?? [];
      this.#positions.set(label, positions);
      return Array.from({ length: count }, () => {
        const version = positions.push(position) - 1;
        return { vrfOutput: this.key(label, version), commitment: this.commitment(label, version) };
      });
    });
    const old = this.entries.at(-1) ?? { rootTile: 0, prefixRoot: zeroHash };
    const inserted =
      leaves.length === 0
        ? { root: old.rootTile, rootHash: old.prefixRoot, written: [] }
        : await this.prefixTree.insert(old.rootTile, leaves, this.#tiles.size + 1);
    for (const { id, bytes } of inserted.written) this.#tiles.set(id, bytes);
    const prefixRoot = inserted.rootHash;
    this.entries.push({ timestampMs, prefixRoot, rootTile: inserted.root });
    this.#leaves.push(treeHasher.leaf(logEntry(timestampMs, prefixRoot)));
  }

  key(label: string, version: number): Hash {
    return nativeSha256(text(`${label}/${version}`));
  }
  commitment(label: string, version: number): Hash {
    return nativeSha256(text(`${label}=${version}`));
  }
  /** Position of each version of a label. */
  positions(label: string): readonly number[] {
    return this.#positions.get(label) ?? [];
  }
  greatestAt(label: string, position: number): number {
    return this.positions(label).filter((at) => at <= position).length - 1;
  }

  tiles(ids: readonly number[]): Promise<Uint8Array[]> {
    return Promise.resolve(ids.map((id) => this.#tiles.get(id) ?? zeroHash));
  }
  entry(position: number): Promise<StoredEntry> {
    const entry = this.entries[position];
    return entry === undefined
      ? Promise.reject(new Error(`no entry ${position}`))
      : Promise.resolve(entry);
  }
  nodes(ids: readonly NodeId[]): Promise<Hash[]> {
    return Promise.resolve(ids.map((id) => this.#node(id)));
  }
  #node(id: NodeId): Hash {
    const { start, length } = leavesOf(id);
    const tree = new Frontier(treeHasher);
    for (const leaf of this.#leaves.slice(start, start + length)) tree.append(leaf);
    return tree.root();
  }
  root(size: number): Hash {
    const tree = new Frontier(treeHasher);
    for (const leaf of this.#leaves.slice(0, size)) tree.append(leaf);
    return tree.root();
  }

  /** What an honest user retains of the tree at `size`. */
  view(size: number | undefined): LogView | undefined {
    if (size === undefined) return undefined;
    return {
      size,
      heads: fullSubtrees(size).map((id) => this.#node(id)),
      frontier: frontier(size).map((position) => {
        const entry = this.entries[position];
        if (entry === undefined) throw new Error(`no entry ${position}`);
        return { position, timestampMs: entry.timestampMs, prefixRoot: entry.prefixRoot };
      }),
    };
  }

  /** Versions of a label as a user who knows `count` of them and some keys beyond has them. */
  versions(label: string, count: number, beyond = 400): Map<number, KnownVersion> {
    const known = new Map<number, KnownVersion>();
    for (let version = 0; version < count + beyond; version++) {
      const vrfOutput = this.key(label, version);
      const commitment = version < count ? this.commitment(label, version) : undefined;
      known.set(version, { vrfOutput, commitment });
    }
    return known;
  }
}

export interface Windows {
  readonly windowMs: number;
  readonly lifetimeMs?: number | undefined;
}
export type Algorithm<T> = (tree: Tree) => Steps<T>;

/** The log's proof for an algorithm about `label`, as seen at `size` by a user who knew `last`. */
export async function record<T>(
  log: ModelLog,
  label: string,
  at: Windows & { readonly size: number; readonly last?: number | undefined },
  algorithm: Algorithm<T>,
  stopsBefore?: (position: number, proofsSoFar: number) => boolean,
): Promise<{ result: T; proof: CombinedTreeProof }> {
  const history = {
    greatestAt: (position: number) => log.greatestAt(label, position),
    prepare: () => Promise.resolve(),
    searchKey: (version: number) => log.key(label, version),
  };
  const provider = new Recorder(at.size, at.last, log, history, stopsBefore);
  const tree = { provider, size: at.size, windowMs: at.windowMs, lifetimeMs: at.lifetimeMs };
  const result = await runWith(algorithm(tree), (position) => provider.fetch(position));
  return { result, proof: await provider.finish() };
}

/** Replays a proof with what the user knows. */
export function replay<T>(
  at: Windows & { readonly size: number },
  view: LogView | undefined,
  versions: ReadonlyMap<number, KnownVersion>,
  proof: CombinedTreeProof,
  algorithm: Algorithm<T>,
): { result: T; tree: ReplayedTree } {
  const provider = new Replayer(nativeSha256, at.size, view, versions, proof);
  const tree = { provider, size: at.size, windowMs: at.windowMs, lifetimeMs: at.lifetimeMs };
  const result = runNow(algorithm(tree));
  return { result, tree: provider.finish() };
}
