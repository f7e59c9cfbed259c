/**
 * The left-balanced log tree over a TreeHasher (protocol sections 3.2, 11.8, 12.1; for RFC 6962 the
 * same shape): node numbers, batch proofs of inclusion and consistency, and their evaluation. A
 * proof is three steps: `batchPath` lists the nodes, somebody fetches them, `evaluateLog` computes.
 * Stores nothing and does no I/O.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { maxTreeSize } from './codec.ts';
import type { Hash, TreeHasher } from './hash.ts';
import { hashBytes, sameBytes } from './hash.ts';
import { powerOfTwoAtMost } from './ladder.ts';
import { VerificationError } from './verification-error.ts';

/**
 * Number of the head of the balanced subtree over leaves [start, start + length): leaf i is node
 * 2i, and a parent lies between its children, so `2 start + length - 1`.
 */
export type NodeId = number;

export function nodeId(start: number, length: number): NodeId {
  return 2 * start + length - 1;
}

/** Leaves below a node: the inverse of nodeId. The length is 2^(trailing ones of the number). */
export function leavesOf(id: NodeId): { readonly start: number; readonly length: number } {
  let rest = id;
  let length = 1;
  while (rest % 2 === 1) {
    rest = (rest - 1) / 2;
    length *= 2;
  }
  return { start: (id - length + 1) / 2, length };
}

const isPowerOfTwo = (n: number): boolean => powerOfTwoAtMost(n) === n;

/** Where the subtree of `length` > 1 leaves splits: its left child is as large as it can be. */
export function leftLength(length: number): number {
  const power = powerOfTwoAtMost(length);
  return power === length ? power / 2 : power;
}

/** Heads of the largest balanced subtrees of a tree of `size` leaves, left to right. */
export function fullSubtrees(size: number): NodeId[] {
  const ids: NodeId[] = [];
  for (let start = 0; start < size;) {
    const length = powerOfTwoAtMost(size - start);
    ids.push(nodeId(start, length));
    start += length;
  }
  return ids;
}

/** What a batch proof is about. */
export interface ProofShape {
  readonly size: number;
  /** Positions whose leaves the verifier will have, ascending, no duplicates. */
  readonly leaves: readonly number[];
  /** Size of the tree whose full subtrees the verifier retained. */
  readonly retainedSize?: number | undefined;
  /** Another size whose root the verifier has to compute: the auditor's. */
  readonly auditorSize?: number | undefined;
}

/** What both walks over a proof's tree decide at a node: take its value as a whole, or go below. */
type Step = 'element' | 'retained' | 'leaf' | 'children';

/**
 * The decision is made here once, so that prover and verifier cannot differ. `insideRetained` is
 * true below a node that the verifier retained.
 */
function stepAt(
  shape: ProofShape,
  start: number,
  length: number,
  hasLeaves: boolean,
  insideRetained: boolean,
): Step {
  if (!isPowerOfTwo(length)) return 'children';
  const end = start + length;
  const auditor = shape.auditorSize ?? 0;
  if (!hasLeaves && !(auditor > start && auditor < end)) {
    const retained = shape.retainedSize ?? 0;
    if (insideRetained || start >= retained) return 'element';
    // Wholly below the retained size and not inside a retained node: this is one.
    if (end <= retained) return 'retained';
  }
  return length === 1 ? 'leaf' : 'children';
}

function checkShape(shape: ProofShape): void {
  const { size, leaves, retainedSize, auditorSize } = shape;
  const isSize = (n: number): boolean => Number.isSafeInteger(n) && n >= 1 && n <= size;
  const ascends = leaves.every((leaf, i) => leaf >= 0 && leaf > (leaves[i - 1] ?? -1));
  if (
    size > maxTreeSize ||
    !isSize(size) ||
    !ascends ||
    (leaves.at(-1) ?? 0) >= size ||
    (retainedSize !== undefined && !isSize(retainedSize)) ||
    (auditorSize !== undefined && !isSize(auditorSize))
  ) {
    throw new InvalidArgumentError('BAD_FIELD', 'log proof: leaves ascend, sizes are in the tree');
  }
}

/** Index of the first of leaves[low, high) that is at least `position`. */
function firstAtLeast(
  leaves: readonly number[],
  position: number,
  low: number,
  high: number,
): number {
  let index = low;
  while (index < high && (leaves[index] ?? position) < position) index++;
  return index;
}

/** Section 12.1: the least set of balanced heads that completes the proof, left to right. */
export function batchPath(shape: ProofShape): NodeId[] {
  checkShape(shape);
  const path: NodeId[] = [];
  const walk = (
    start: number,
    length: number,
    low: number,
    high: number,
    insideRetained: boolean,
  ): void => {
    const step = stepAt(shape, start, length, high > low, insideRetained);
    if (step === 'element') path.push(nodeId(start, length));
    if (step !== 'children') return;
    const inside = insideRetained || isRetainedHead(shape, start, length);
    const left = leftLength(length);
    const middle = firstAtLeast(shape.leaves, start + left, low, high);
    walk(start, left, low, middle, inside);
    walk(start + left, length - left, middle, high, inside);
  };
  walk(0, shape.size, 0, shape.leaves.length, false);
  return path;
}

/** Whether a node that is not inside a retained one is itself one of the retained heads. */
function isRetainedHead(shape: ProofShape, start: number, length: number): boolean {
  return start + length <= (shape.retainedSize ?? 0) && isPowerOfTwo(length);
}

/** A tree's root from its full subtrees: the left one is balanced, the rest is the right one. */
export function rootOfHeads(hasher: TreeHasher, size: number, heads: readonly Hash[]): Hash {
  const ids = fullSubtrees(size);
  const last = heads.at(-1);
  if (last === undefined || heads.length !== ids.length) {
    throw new InvalidArgumentError('BAD_FIELD', `full subtrees: need ${ids.length} heads`);
  }
  let root = last;
  let isLeaf = leavesOf(ids.at(-1) ?? 0).length === 1;
  for (let i = heads.length - 2; i >= 0; i--) {
    root = hasher.parent(heads[i] ?? root, leavesOf(ids[i] ?? 0).length === 1, root, isLeaf);
    isLeaf = false;
  }
  return root;
}

/** What a verifier keeps of a tree: its size and the heads of its full subtrees. */
export interface RetainedLog {
  readonly size: number;
  readonly heads: readonly Hash[];
}

/** A tree as one proof shows it: the root, and every balanced head that the proof determines. */
export class EvaluatedLog {
  readonly size: number;
  readonly root: Hash;
  readonly #hasher: TreeHasher;
  readonly #nodes: ReadonlyMap<NodeId, Hash>;

  constructor(hasher: TreeHasher, size: number, root: Hash, nodes: ReadonlyMap<NodeId, Hash>) {
    this.size = size;
    this.root = root;
    this.#hasher = hasher;
    this.#nodes = nodes;
  }

  /** Full subtrees of the tree when it had `size` leaves; undefined if the proof does not show them. */
  headsAt(size: number): RetainedLog | undefined {
    const heads: Hash[] = [];
    for (const id of fullSubtrees(size)) {
      const head = this.#nodes.get(id);
      if (head === undefined) return undefined;
      heads.push(head);
    }
    return { size, heads };
  }

  /** Root of the tree when it had `size` leaves; undefined if the proof does not show it. */
  rootAt(size: number): Hash | undefined {
    const retained = this.headsAt(size);
    return retained && rootOfHeads(this.#hasher, size, retained.heads);
  }
}

/**
 * Section 12.1: computes the root from leaf values, retained heads and the proof's elements
 * (packed, 32 bytes each). A retained head that the proof also recomputes must match, or forged
 * proofs would pass. Throws VerificationError COUNT for too few or too many elements, BAD_ROOT for
 * a retained head that does not match.
 */
export function evaluateLog(
  hasher: TreeHasher,
  shape: Omit<ProofShape, 'leaves' | 'retainedSize'>,
  leaves: ReadonlyMap<number, Hash>,
  retained: RetainedLog | undefined,
  elements: Uint8Array,
): EvaluatedLog {
  const positions = [...leaves.keys()].sort((a, b) => a - b);
  const whole: ProofShape = { ...shape, leaves: positions, retainedSize: retained?.size };
  checkShape(whole);
  const retainedHeads = new Map<NodeId, Hash>();
  const retainedIds = retained === undefined ? [] : fullSubtrees(retained.size);
  retainedIds.forEach((id, i) => {
    const head = retained?.heads[i];
    if (head !== undefined) retainedHeads.set(id, head);
  });
  if (retainedHeads.size !== (retained?.heads.length ?? 0)) {
    throw new InvalidArgumentError('BAD_FIELD', 'retained heads: not those of the retained size');
  }
  const nodes = new Map<NodeId, Hash>();
  let used = 0;
  const walk = (
    start: number,
    length: number,
    low: number,
    high: number,
    insideRetained: boolean,
  ): Hash => {
    const step = stepAt(whole, start, length, high > low, insideRetained);
    const id = nodeId(start, length);
    const balanced = isPowerOfTwo(length);
    const value =
      step === 'children' ? below(start, length, low, high, insideRetained) : take(step, id, start);
    if (!balanced) return value;
    nodes.set(id, value);
    const known = insideRetained ? undefined : retainedHeads.get(id);
    if (known !== undefined && !sameBytes(known, value)) {
      throw new VerificationError('BAD_ROOT', 'retained subtree', 'the head that was retained');
    }
    return value;
  };
  const take = (step: Exclude<Step, 'children'>, id: NodeId, start: number): Hash => {
    switch (step) {
      case 'leaf':
        return leaves.get(start) ?? missing();
      case 'retained':
        return retainedHeads.get(id) ?? missing();
      case 'element': {
        const at = used;
        used += hashBytes;
        if (used > elements.length) throw wrongCount();
        return elements.subarray(at, used);
      }
    }
  };
  const below = (
    start: number,
    length: number,
    low: number,
    high: number,
    insideRetained: boolean,
  ): Hash => {
    const inside = insideRetained || isRetainedHead(whole, start, length);
    const left = leftLength(length);
    const middle = firstAtLeast(positions, start + left, low, high);
    const leftValue = walk(start, left, low, middle, inside);
    const rightValue = walk(start + left, length - left, middle, high, inside);
    return hasher.parent(leftValue, left === 1, rightValue, length - left === 1);
  };
  const wrongCount = (): VerificationError =>
    new VerificationError(
      'COUNT',
      'inclusion.elements',
      `${batchPath(whole).length} hashes, found ${elements.length / hashBytes}`,
    );
  const root = walk(0, shape.size, 0, positions.length, false);
  if (used !== elements.length) throw wrongCount();
  return new EvaluatedLog(hasher, shape.size, root, nodes);
}

function missing(): never {
  throw new InvalidArgumentError('BAD_FIELD', 'log proof: a value that the shape promised');
}

/** A tree that grows by one leaf at a time and keeps its full subtrees only. */
export class Frontier {
  readonly #hasher: TreeHasher;
  readonly #heads: Hash[];
  #size: number;

  /** Throws InvalidArgumentError when the heads are not as many as `retained.size` has. */
  constructor(hasher: TreeHasher, retained: RetainedLog = { size: 0, heads: [] }) {
    if (fullSubtrees(retained.size).length !== retained.heads.length) {
      throw new InvalidArgumentError('BAD_FIELD', 'frontier: heads do not fit the size');
    }
    this.#hasher = hasher;
    this.#size = retained.size;
    this.#heads = [...retained.heads];
  }

  get size(): number {
    return this.#size;
  }

  /** Adds a leaf's value. Each trailing one of the size is a subtree that becomes a left child. */
  append(leaf: Hash): void {
    let head = leaf;
    for (let rest = this.#size, isLeaf = true; rest % 2 === 1; rest = (rest - 1) / 2) {
      const left = this.#heads.pop() ?? missing();
      head = this.#hasher.parent(left, isLeaf, head, isLeaf);
      isLeaf = false;
    }
    this.#heads.push(head);
    this.#size++;
  }

  /** The root; throws InvalidArgumentError for an empty tree. */
  root(): Hash {
    return rootOfHeads(this.#hasher, this.#size, this.#heads);
  }

  /** The full subtrees now, left to right. */
  retained(): RetainedLog {
    return { size: this.#size, heads: [...this.#heads] };
  }
}
