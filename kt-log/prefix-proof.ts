/**
 * What a verifier computes from a PrefixProof (protocol sections 3.3, 11.9, 12.2, 15.2): the root
 * that a batch of lookups implies, and for an auditor the roots before and after an insertion.
 * Knows the tree only as far as the proof shows it; browser-safe.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import type { PrefixLeaf, PrefixProof, PrefixSearchResult } from './codec.ts';
import type { Hash, PrefixHasher } from './hash.ts';
import { bitAt, compareBytes, hashBytes, sameBytes, zeroHash } from './hash.ts';
import { VerificationError } from './verification-error.ts';

/** One search: its key, and the commitment that an inclusion would show. */
export interface PrefixLookup {
  readonly vrfOutput: Uint8Array;
  readonly commitment?: Uint8Array | undefined;
}

/** Where a search ended: the node at `depth` on the path of `key`. */
interface Terminal {
  readonly key: Uint8Array;
  readonly depth: number;
  /** Value of the terminal node; the stand-in's zeros for an empty slot. */
  readonly value: Hash;
  /** The leaf there, when it is not the one searched for. */
  readonly otherLeaf: PrefixLeaf | undefined;
}

const keyBits = 8 * hashBytes;

function sharesPrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  for (let i = 0; i < bits; i++) if (bitAt(a, i) !== bitAt(b, i)) return false;
  return true;
}

function terminalOf(
  hasher: PrefixHasher,
  lookup: PrefixLookup,
  result: PrefixSearchResult,
): Terminal {
  const { vrfOutput: key, commitment } = lookup;
  const { depth } = result;
  switch (result.type) {
    case 'inclusion':
      if (commitment === undefined) {
        throw new VerificationError('LADDER', 'prefix proof result', 'a version known to exist');
      }
      return { key, depth, value: hasher.leaf(key, commitment), otherLeaf: undefined };
    case 'nonInclusionParent':
      return { key, depth, value: zeroHash, otherLeaf: undefined };
    case 'nonInclusionLeaf': {
      const { leaf } = result;
      const isOther = !sameBytes(leaf.vrfOutput, key) && sharesPrefix(leaf.vrfOutput, key, depth);
      if (!isOther) {
        throw new VerificationError('LADDER', 'non-inclusion leaf', 'another leaf on this path');
      }
      return { key, depth, value: hasher.leaf(leaf.vrfOutput, leaf.commitment), otherLeaf: leaf };
    }
  }
}

/** The terminals of a proof in order of their keys. Throws VerificationError COUNT, LADDER. */
function sortedTerminals(
  hasher: PrefixHasher,
  lookups: readonly PrefixLookup[],
  proof: PrefixProof,
): Terminal[] {
  if (proof.results.length !== lookups.length) {
    const found = proof.results.length;
    throw new VerificationError(
      'COUNT',
      'prefix proof',
      `${lookups.length} results, found ${found}`,
    );
  }
  const terminals: Terminal[] = [];
  proof.results.forEach((result, i) => {
    const lookup = lookups[i];
    if (lookup !== undefined) terminals.push(terminalOf(hasher, lookup, result));
  });
  return terminals.sort((a, b) => compareBytes(a.key, b.key));
}

/** Index of the first of items[low, high), sorted by key, whose key has bit `depth` set. */
function firstOne<T>(
  items: readonly T[],
  keyOf: (item: T) => Uint8Array,
  depth: number,
  low: number,
  high: number,
): number {
  let index = low;
  while (index < high) {
    const item = items[index];
    if (item === undefined || bitAt(keyOf(item), depth) === 1) break;
    index++;
  }
  return index;
}
const terminalKey = (terminal: Terminal): Uint8Array => terminal.key;

/** What the evaluation puts in the place of a terminal, of a given hash, and of a parent. */
interface Fold<T> {
  terminal(all: readonly Terminal[], depth: number): T;
  element(hash: Hash): T;
  parent(left: T, right: T): T;
}

/**
 * Folds the part of the tree that a proof shows, left to right: where no search goes, the next
 * element stands. Every element must be used.
 */
function fold<T>(terminals: readonly Terminal[], elements: Uint8Array, how: Fold<T>): T {
  let used = 0;
  const wrongCount = (): VerificationError =>
    new VerificationError(
      'COUNT',
      'prefix proof elements',
      'one per subtree that no search enters',
    );
  const walk = (depth: number, low: number, high: number): T => {
    if (low === high) {
      const at = used;
      used += hashBytes;
      if (used > elements.length) throw wrongCount();
      return how.element(elements.subarray(at, used));
    }
    const here = terminals.slice(low, high);
    const [first] = here;
    if (first !== undefined && here.some((terminal) => terminal.depth <= depth)) {
      const agree = here.every(
        (terminal) => terminal.depth === depth && sameBytes(terminal.value, first.value),
      );
      if (!agree) {
        throw new VerificationError('LADDER', 'prefix proof results', 'one node at each place');
      }
      return how.terminal(here, depth);
    }
    if (depth >= keyBits) {
      throw new VerificationError('LADDER', 'prefix proof depth', `less than ${keyBits}`);
    }
    const middle = firstOne(terminals, terminalKey, depth, low, high);
    const left = walk(depth + 1, low, middle);
    return how.parent(left, walk(depth + 1, middle, high));
  };
  const root = walk(0, 0, terminals.length);
  if (used !== elements.length) throw wrongCount();
  return root;
}

/**
 * Section 12.2: the root of the prefix tree in which the searches end as `proof` says. `lookups`
 * are in the order requested. Throws VerificationError COUNT or LADDER; whether the root is the
 * right one is the caller's to check.
 */
export function evaluatePrefixProof(
  hasher: PrefixHasher,
  lookups: readonly PrefixLookup[],
  proof: PrefixProof,
): Hash {
  const terminals = sortedTerminals(hasher, lookups, proof);
  return fold<Hash>(terminals, proof.elements, {
    terminal: ([first]) => first?.value ?? zeroHash,
    element: (hash) => hash,
    parent: (left, right) => hasher.parent(left, right),
  });
}

/** Root of the subtree at `depth` that holds exactly these leaves, sorted by VRF output. */
export function subtreeRoot(
  hasher: PrefixHasher,
  leaves: readonly PrefixLeaf[],
  depth: number,
  low = 0,
  high = leaves.length,
): Hash {
  const first = leaves[low];
  if (first === undefined || low === high) return zeroHash;
  if (high - low === 1) return hasher.leaf(first.vrfOutput, first.commitment);
  if (depth >= keyBits) throw new InvalidArgumentError('BAD_FIELD', 'leaves: the same key twice');
  const middle = firstOne(leaves, (leaf) => leaf.vrfOutput, depth, low, high);
  return hasher.parent(
    subtreeRoot(hasher, leaves, depth + 1, low, middle),
    subtreeRoot(hasher, leaves, depth + 1, middle, high),
  );
}

/**
 * Section 15.2, steps 3, 6 and 7 for a log that never removes: the roots of the tree before and
 * after `added` (ascending, no key twice), both from the batch lookup proof in the old tree. A leaf
 * found in the place of a new one is pushed down. Throws VerificationError when a key was already
 * there or the proof is not about these keys.
 */
export function evaluateInsertion(
  hasher: PrefixHasher,
  added: readonly PrefixLeaf[],
  proof: PrefixProof,
): { readonly before: Hash; readonly after: Hash } {
  if (proof.results.some((result) => result.type === 'inclusion')) {
    throw new VerificationError('CHAIN', 'added leaf', 'a key that was not in the tree before');
  }
  const byKey = new Map(added.map((leaf) => [leaf.vrfOutput, leaf]));
  const terminals = sortedTerminals(hasher, added, proof);
  return fold<{ before: Hash; after: Hash }>(terminals, proof.elements, {
    terminal(all, depth) {
      const leaves = all.flatMap(({ key }) => byKey.get(key) ?? []);
      const other = all[0]?.otherLeaf;
      if (other !== undefined) leaves.push(other);
      leaves.sort((a, b) => compareBytes(a.vrfOutput, b.vrfOutput));
      return { before: all[0]?.value ?? zeroHash, after: subtreeRoot(hasher, leaves, depth) };
    },
    element: (hash) => ({ before: hash, after: hash }),
    parent: (left, right) => ({
      before: hasher.parent(left.before, right.before),
      after: hasher.parent(left.after, right.after),
    }),
  });
}
