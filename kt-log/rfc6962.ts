/**
 * Inclusion and consistency proofs of RFC 6962 (RFC 9162 section 2.1.3 and 2.1.4) for the tree that
 * witnesses know. As in log-tree.ts, one function lists the nodes and one computes. Verification is
 * browser-safe.
 */
import type { Hash, TreeHasher } from './hash.ts';
import { sameBytes } from './hash.ts';
import { powerOfTwoAtMost } from './ladder.ts';
import type { NodeId } from './log-tree.ts';
import { leavesOf, nodeId } from './log-tree.ts';
import { verify } from './verification-error.ts';

/** Heads of balanced subtrees that make up one element of a proof, left to right. */
export type ElementNodes = readonly NodeId[];

/** The balanced subtrees of leaves [start, end), a subtree of a larger tree. */
function balancedParts(start: number, end: number): NodeId[] {
  const ids: NodeId[] = [];
  for (let at = start; at < end;) {
    const length = powerOfTwoAtMost(end - at);
    ids.push(nodeId(at, length));
    at += length;
  }
  return ids;
}

/** Where a tree of `length` > 1 leaves splits: the largest power of two below it. */
function splitOf(length: number): number {
  const power = powerOfTwoAtMost(length);
  return power === length ? power / 2 : power;
}

/** Elements of the inclusion proof of a leaf, from its sibling up to the root's child. */
export function inclusionNodes(leaf: number, size: number): ElementNodes[] {
  const elements: NodeId[][] = [];
  let start = 0;
  let length = size;
  while (length > 1) {
    const left = splitOf(length);
    if (leaf < start + left) {
      elements.push(balancedParts(start + left, start + length));
      length = left;
    } else {
      elements.push(balancedParts(start, start + left));
      start += left;
      length -= left;
    }
  }
  return elements.toReversed();
}

/** Elements of the consistency proof from the tree of `first` leaves to that of `second`. */
export function consistencyNodes(first: number, second: number): ElementNodes[] {
  const walk = (start: number, m: number, n: number, isWhole: boolean): NodeId[][] => {
    if (m === n) return isWhole ? [] : [balancedParts(start, start + n)];
    const left = splitOf(n);
    return m <= left
      ? [...walk(start, m, left, isWhole), balancedParts(start + left, start + n)]
      : [...walk(start + left, m - left, n - left, false), balancedParts(start, start + left)];
  };
  return first === 0 || first === second ? [] : walk(0, first, second, true);
}

/** One element's value from its parts, as the nodes of a left-balanced tree combine. */
export function elementOf(
  hasher: TreeHasher,
  ids: ElementNodes,
  values: readonly Hash[],
): Hash | undefined {
  return values.reduceRight<Hash | undefined>((right, left, i) => {
    if (right === undefined) return left;
    const isRightLeaf = i === values.length - 2 && leavesOf(ids[i + 1] ?? 0).length === 1;
    return hasher.parent(left, leavesOf(ids[i] ?? 0).length === 1, right, isRightLeaf);
  }, undefined);
}

/** RFC 9162 section 2.1.3.2. Throws VerificationError COUNT or BAD_ROOT. */
export function verifyInclusion6962(
  hasher: TreeHasher,
  leafIndex: number,
  size: number,
  leafHash: Hash,
  proof: readonly Hash[],
  root: Hash,
): void {
  verify(leafIndex >= 0 && leafIndex < size, 'COUNT', 'leaf index', 'one below the tree size');
  let index = leafIndex;
  let last = size - 1;
  let hash = leafHash;
  for (const element of proof) {
    verify(last > 0, 'COUNT', 'inclusion proof', 'no element after the root');
    if (index % 2 === 1 || index === last) {
      hash = hasher.parent(element, false, hash, false);
      // Right edge: climb the levels on which this subtree has no sibling.
      while (index % 2 === 0 && index > 0) {
        index /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      hash = hasher.parent(hash, false, element, false);
    }
    index = Math.floor(index / 2);
    last = Math.floor(last / 2);
  }
  verify(last === 0, 'COUNT', 'inclusion proof', 'elements up to the root');
  verify(sameBytes(hash, root), 'BAD_ROOT', 'inclusion proof', 'the root of the checkpoint');
}

/** RFC 9162 section 2.1.4.2. Throws VerificationError COUNT or BAD_ROOT. */
export function verifyConsistency6962(
  hasher: TreeHasher,
  first: number,
  second: number,
  firstRoot: Hash,
  secondRoot: Hash,
  proof: readonly Hash[],
): void {
  verify(first >= 0 && first <= second, 'COUNT', 'consistency proof', 'sizes that grow');
  if (first === second) {
    verify(proof.length === 0, 'COUNT', 'consistency proof', 'none for the same size');
    verify(sameBytes(firstRoot, secondRoot), 'BAD_ROOT', 'consistency proof', 'the same root');
    return;
  }
  if (first === 0) {
    verify(proof.length === 0, 'COUNT', 'consistency proof', 'none from the empty tree');
    return;
  }
  const isBalanced = powerOfTwoAtMost(first) === first;
  const path = isBalanced ? [firstRoot, ...proof] : proof;
  let index = first - 1;
  let last = second - 1;
  while (index % 2 === 1) {
    index = (index - 1) / 2;
    last = Math.floor(last / 2);
  }
  const [start, ...rest] = path;
  verify(start !== undefined, 'COUNT', 'consistency proof', 'at least one element');
  let oldHash = start;
  let newHash = start;
  for (const element of rest) {
    verify(last > 0, 'COUNT', 'consistency proof', 'no element after the root');
    if (index % 2 === 1 || index === last) {
      oldHash = hasher.parent(element, false, oldHash, false);
      newHash = hasher.parent(element, false, newHash, false);
      while (index % 2 === 0 && index > 0) {
        index /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      newHash = hasher.parent(newHash, false, element, false);
    }
    index = Math.floor(index / 2);
    last = Math.floor(last / 2);
  }
  verify(last === 0, 'COUNT', 'consistency proof', 'elements up to the root');
  verify(sameBytes(oldHash, firstRoot), 'BAD_ROOT', 'consistency proof', 'the first root');
  verify(sameBytes(newHash, secondRoot), 'BAD_ROOT', 'consistency proof', 'the second root');
}
