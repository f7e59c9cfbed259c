/**
 * The path from one balanced node of a log tree to its root, for either tree: what shows that a head
 * contains a node, and so what shows that two heads contain different ones. Pure; browser-safe.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import type { Hash, TreeHasher } from './hash.ts';
import { powerOfTwoAtMost } from './ladder.ts';
import type { NodeId, RetainedLog } from './log-tree.ts';
import { fullSubtrees, leavesOf, leftLength, nodeId } from './log-tree.ts';
import { verify } from './verification-error.ts';

/** Most siblings on a path: trees have at most 2^52 leaves. */
export const pathElementsMax = 52;

/** Whether the tree of `size` leaves has this balanced node. */
export function hasNode(size: number, node: NodeId): boolean {
  const { start, length } = leavesOf(node);
  return start >= 0 && start + length <= size;
}

/**
 * Root of the tree of `size` leaves that has `value` at `node` and `path` beside it, from the node's
 * sibling upwards. Throws VerificationError COUNT unless the node is there and the path as long as
 * it has to be.
 */
export function rootOverNode(
  hasher: TreeHasher,
  size: number,
  node: NodeId,
  value: Hash,
  path: readonly Hash[],
): Hash {
  verify(hasNode(size, node), 'COUNT', 'tree node', 'one inside the tree');
  const wanted = leavesOf(node);
  let used = 0;
  const walk = (start: number, length: number): Hash => {
    if (length === wanted.length) return value;
    const left = leftLength(length);
    const isLeft = wanted.start < start + left;
    const below = isLeft ? walk(start, left) : walk(start + left, length - left);
    const beside = path[used++];
    verify(beside !== undefined, 'COUNT', 'path of a tree node', 'siblings up to the root');
    return isLeft
      ? hasher.parent(below, left === 1, beside, length - left === 1)
      : hasher.parent(beside, left === 1, below, length - left === 1);
  };
  const root = walk(0, size);
  verify(used === path.length, 'COUNT', 'path of a tree node', 'no sibling above the root');
  return root;
}

/** A tree of which the full subtrees up to some size and all later leaves are known. */
export class GrownTree {
  readonly size: number;
  readonly #hasher: TreeHasher;
  readonly #nodes = new Map<NodeId, Hash>();

  /** `entries` are the 40-byte log entries from `retained.size` on. */
  constructor(hasher: TreeHasher, retained: RetainedLog, entries: readonly Uint8Array[]) {
    this.#hasher = hasher;
    this.size = retained.size + entries.length;
    fullSubtrees(retained.size).forEach((id, i) => {
      const head = retained.heads[i];
      if (head !== undefined) this.#nodes.set(id, head);
    });
    entries.forEach((entry, i) => {
      this.#nodes.set(nodeId(retained.size + i, 1), hasher.leaf(entry));
    });
  }

  /** The value over leaves [start, start + length); undefined inside what was only retained. */
  valueOver(start: number, length: number): Hash | undefined {
    const id = powerOfTwoAtMost(length) === length ? nodeId(start, length) : undefined;
    const known = id === undefined ? undefined : this.#nodes.get(id);
    if (known !== undefined || length === 1) return known;
    const left = leftLength(length);
    const one = this.valueOver(start, left);
    const other = one && this.valueOver(start + left, length - left);
    if (one === undefined || other === undefined) return undefined;
    const value = this.#hasher.parent(one, left === 1, other, length - left === 1);
    if (id !== undefined) this.#nodes.set(id, value);
    return value;
  }

  /** Root when the tree had `size` leaves, at least one; undefined if it is not known. */
  rootAt(size: number): Hash | undefined {
    return this.valueOver(0, size);
  }

  /** The path of `node` in the tree of `size` leaves; undefined if a sibling is not known. */
  pathOf(size: number, node: NodeId): Hash[] | undefined {
    if (size > this.size || !hasNode(size, node)) {
      throw new InvalidArgumentError('BAD_FIELD', 'tree node: not in this tree');
    }
    const wanted = leavesOf(node);
    const path: (Hash | undefined)[] = [];
    let start = 0;
    for (let length = size; length > wanted.length;) {
      const left = leftLength(length);
      if (wanted.start < start + left) {
        path.push(this.valueOver(start + left, length - left));
        length = left;
      } else {
        path.push(this.valueOver(start, left));
        start += left;
        length -= left;
      }
    }
    const known = path.filter((value) => value !== undefined);
    return known.length === path.length ? known.toReversed() : undefined;
  }
}
