/** The log tree (protocol sections 3.2, 11.8, 12.1) against the official vectors and a naive tree. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Hash } from './hash.ts';
import { keytransHasher, logEntry } from './hash.ts';
import type { RetainedLog } from './log-tree.ts';
import { batchPath, evaluateLog, Frontier, fullSubtrees, leavesOf, nodeId } from './log-tree.ts';
import { nativeSha256 } from './native-hash.ts';
import { decode, encode } from './presentation.ts';
import { inclusionProof } from './codec.ts';
import { hex, hexList, packHex, toHex, vectorTest } from './spec-vectors.ts';

const hasher = keytransHasher(nativeSha256);

/** The definition, word for word: the left subtree is the largest balanced one. */
function naiveRoot(leaves: readonly Hash[]): Hash {
  const [only] = leaves;
  if (only === undefined) throw new Error('an empty tree has no root');
  if (leaves.length === 1) return only;
  let split = 1;
  while (split * 2 < leaves.length) split *= 2;
  const left = leaves.slice(0, split);
  const right = leaves.slice(split);
  return hasher.parent(naiveRoot(left), split === 1, naiveRoot(right), right.length === 1);
}
function naiveNode(leaves: readonly Hash[], id: number): Hash {
  const { start, length } = leavesOf(id);
  return naiveRoot(leaves.slice(start, start + length));
}
function retainedAt(leaves: readonly Hash[], size: number): RetainedLog {
  return { size, heads: fullSubtrees(size).map((id) => naiveNode(leaves, id)) };
}
const packed = (hashes: readonly Hash[]): Uint8Array => packHex(hashes.map(toHex));
const chosen = (leaves: readonly Hash[], positions: readonly number[]): Map<number, Hash> =>
  new Map(positions.map((position) => [position, leaves[position] ?? assert.fail('no leaf')]));

interface MathCase {
  readonly input: {
    readonly kind: 'full-subtrees' | 'batch-copath';
    readonly size: number;
    readonly leaves?: readonly number[];
    readonly retained_size?: number;
  };
  readonly expect: { readonly indices: readonly number[] };
}
vectorTest<MathCase>('log-math.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const { size, leaves = [], retained_size: retainedSize } = input;
    const ids =
      input.kind === 'full-subtrees'
        ? fullSubtrees(size)
        : batchPath({ size, leaves, retainedSize });
    assert.deepEqual(ids, expect.indices, name);
  }
  return cases.length;
});

interface Entry {
  readonly prefix_tree: string;
  readonly timestamp: number;
}
interface TreeCase {
  readonly input: {
    readonly entries: readonly Entry[];
    readonly requests: readonly {
      readonly proven_leaves: readonly number[];
      readonly retained_size?: number;
    }[];
  };
  readonly expect: {
    readonly full_subtrees: readonly string[];
    readonly leaf_values: readonly string[];
    readonly proofs: readonly { readonly elements: readonly string[]; readonly proof: string }[];
    readonly root: string;
  };
}
vectorTest<TreeCase>('log-tree.json', (cases, context) => {
  let proofs = 0;
  for (const { name, input, expect } of cases) {
    const size = input.entries.length;
    const leaves = input.entries.map((entry) =>
      hasher.leaf(logEntry(entry.timestamp, hex(entry.prefix_tree))),
    );
    assert.deepEqual(leaves.map(toHex), expect.leaf_values, name);
    assert.equal(toHex(naiveRoot(leaves)), expect.root, name);
    assert.deepEqual(retainedAt(leaves, size).heads.map(toHex), expect.full_subtrees, name);
    input.requests.forEach(({ proven_leaves: proven, retained_size: retainedSize }, i) => {
      const shape = { size, leaves: proven, retainedSize };
      const elements = packed(batchPath(shape).map((id) => naiveNode(leaves, id)));
      assert.deepEqual(hexList(elements), expect.proofs[i]?.elements, `${name} request ${i}`);
      const encoded = encode(inclusionProof, { elements });
      assert.equal(toHex(encoded), expect.proofs[i]?.proof, `${name} request ${i}`);
      assert.deepEqual(decode(inclusionProof, encoded), { elements });
      const retained = retainedSize === undefined ? undefined : retainedAt(leaves, retainedSize);
      const tree = evaluateLog(hasher, { size }, chosen(leaves, proven), retained, elements);
      assert.equal(toHex(tree.root), expect.root, `${name} request ${i}`);
      proofs++;
    });
  }
  context.diagnostic(`log-tree.json: ${proofs} proofs`);
  return cases.length;
});

interface AppendCase {
  readonly input: { readonly leaves: readonly string[]; readonly size: number };
  readonly expect: { readonly full_subtrees: readonly string[]; readonly root: string };
}
vectorTest<AppendCase>('log-append.json', (cases) => {
  const frontier = new Frontier(hasher);
  for (const { name, input, expect } of cases) {
    frontier.append(hex(input.leaves[input.size - 1] ?? ''));
    assert.equal(frontier.size, input.size, name);
    assert.deepEqual(frontier.retained().heads.map(toHex), expect.full_subtrees, name);
    assert.equal(toHex(frontier.root()), expect.root, name);
  }
  return cases.length;
});

interface ForeignCase {
  readonly kind: string;
  readonly expect: 'accept' | 'reject';
  readonly size: number;
  readonly entries?: readonly number[];
  readonly values?: readonly string[];
  readonly elements: readonly string[];
  readonly retained?: readonly string[];
  readonly retained_size?: number;
  readonly root: string;
}
/** The verdict of our verifier on a foreign proof: accepted means the root came out. */
function accepts(proof: Omit<ForeignCase, 'kind' | 'expect'>): boolean {
  const leaves = new Map(
    (proof.entries ?? []).map((position, i) => [position, hex(proof.values?.[i] ?? '')]),
  );
  const retained =
    proof.retained_size === undefined
      ? undefined
      : { size: proof.retained_size, heads: (proof.retained ?? []).map(hex) };
  try {
    const { size, elements } = proof;
    const tree = evaluateLog(hasher, { size }, leaves, retained, packHex(elements));
    return toHex(tree.root) === proof.root;
  } catch (error) {
    if ((error as Error).name !== 'VerificationError') throw error;
    return false;
  }
}
vectorTest<ForeignCase>('from-kt.json', (cases) => {
  const ours = cases.filter((vector) => vector.kind === 'log-tree');
  for (const vector of ours) {
    assert.equal(accepts(vector), vector.expect === 'accept', vector.name);
  }
  return ours.length;
});
interface TamperedCase {
  readonly input: Omit<ForeignCase, 'expect'>;
}
vectorTest<TamperedCase>('tampered.json', (cases) => {
  const ours = cases.filter((vector) => vector.input.kind === 'log-tree');
  for (const { name, input } of ours) assert.equal(accepts(input), false, name);
  return ours.length;
});

const leafOf = (i: number): Hash => nativeSha256(Uint8Array.of(i & 255, i >>> 8));
const allLeaves = Array.from({ length: 200 }, (_, i) => leafOf(i));

test('any batch of leaves, any retained size: the proof gives the root and both frontiers', () => {
  const cases = fc.integer({ min: 1, max: 200 }).chain((size) =>
    fc.record({
      size: fc.constant(size),
      positions: fc.uniqueArray(fc.nat(size - 1), { maxLength: 12 }),
      retainedSize: fc.option(fc.integer({ min: 1, max: size }), { nil: undefined }),
      auditorSize: fc.option(fc.integer({ min: 1, max: size }), { nil: undefined }),
    }),
  );
  fc.assert(
    fc.property(cases, ({ size, positions, retainedSize, auditorSize }) => {
      const leaves = allLeaves.slice(0, size);
      const sorted = [...positions].sort((a, b) => a - b);
      const shape = { size, leaves: sorted, retainedSize, auditorSize };
      const elements = packed(batchPath(shape).map((id) => naiveNode(leaves, id)));
      const retained = retainedSize === undefined ? undefined : retainedAt(leaves, retainedSize);
      const evaluate = (bytes: Uint8Array): ReturnType<typeof evaluateLog> =>
        evaluateLog(hasher, { size, auditorSize }, chosen(leaves, sorted), retained, bytes);
      const tree = evaluate(elements);
      assert.deepEqual(tree.root, naiveRoot(leaves));
      assert.deepEqual(tree.headsAt(size)?.heads, retainedAt(leaves, size).heads);
      if (auditorSize !== undefined) {
        assert.deepEqual(tree.rootAt(auditorSize), naiveRoot(leaves.slice(0, auditorSize)));
      }
      for (const position of sorted) {
        // The tree that ends at a proven leaf is known too, unless it was retained as a whole.
        if (position + 1 > (retainedSize ?? 0)) {
          assert.deepEqual(tree.rootAt(position + 1), naiveRoot(leaves.slice(0, position + 1)));
        }
      }
      if (elements.length > 0) {
        const short = elements.subarray(0, -32);
        assert.throws(() => evaluate(short), { name: 'VerificationError', reason: 'COUNT' });
      }
      assert.throws(() => evaluate(packed([...hexList(elements).map(hex), leafOf(0)])), {
        reason: 'COUNT',
      });
    }),
  );
});

test('a retained head that the proof recomputes differently is refused, whatever the root', () => {
  // Leaf 1 lies inside the retained subtree [0, 4) of a tree of 6.
  const leaves = allLeaves.slice(0, 6);
  const shape = { size: 6, leaves: [1], retainedSize: 4 };
  const elements = packed(batchPath(shape).map((id) => naiveNode(leaves, id)));
  const forged = { size: 4, heads: [leafOf(99)] };
  assert.throws(() => evaluateLog(hasher, { size: 6 }, chosen(leaves, [1]), forged, elements), {
    name: 'VerificationError',
    reason: 'BAD_ROOT',
  });
});

test('node numbers and their leaves are inverse up to the largest tree', () => {
  for (const [start, length] of [
    [0, 1],
    [6, 2],
    [2 ** 51, 2 ** 50],
    [2 ** 52 - 2, 1],
  ] as const) {
    assert.deepEqual(leavesOf(nodeId(start, length)), { start, length });
  }
});
