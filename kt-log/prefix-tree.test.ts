/** The prefix tree (protocol sections 3.3, 11.9, 12.2, 15.2) against the vectors and a naive trie. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PrefixLeaf } from './codec.ts';
import { prefixProof } from './codec.ts';
import type { Hash } from './hash.ts';
import { bitAt, compareBytes, prefixHasher, zeroHash } from './hash.ts';
import { nativeSha256 } from './native-hash.ts';
import type { PrefixLookup } from './prefix-proof.ts';
import { evaluateInsertion, evaluatePrefixProof } from './prefix-proof.ts';
import { NodeCode, PrefixTile } from './prefix-tile.ts';
import type { Insertion, TileReader } from './prefix-tree.ts';
import { PrefixTree } from './prefix-tree.ts';
import { decode, encode } from './presentation.ts';
import { hex, hexList, toHex, vectorTest } from './spec-vectors.ts';

const hasher = prefixHasher(nativeSha256);

/** Tiles in a map, written as a store would: an id never gets a second content. */
class TileMap implements TileReader {
  readonly #tiles = new Map<number, Uint8Array>();
  reads = 0;
  write(insertion: Insertion): void {
    for (const { id, bytes } of insertion.written) {
      assert.ok(!this.#tiles.has(id), `tile ${id} is written once`);
      this.#tiles.set(id, bytes);
    }
  }
  get nextId(): number {
    return this.#tiles.size + 1;
  }
  tiles(ids: readonly number[]): Promise<Uint8Array[]> {
    this.reads++;
    return Promise.resolve(ids.map((id) => this.#tiles.get(id) ?? assert.fail(`no tile ${id}`)));
  }
}

/** The definition: alone is a leaf, none is zeros, several are split by the next bit. */
function naiveRoot(leaves: readonly PrefixLeaf[], depth = 0): Hash {
  const [first] = leaves;
  if (first === undefined) return zeroHash;
  if (leaves.length === 1) return hasher.leaf(first.vrfOutput, first.commitment);
  const side = (bit: number): Hash =>
    naiveRoot(
      leaves.filter((leaf) => bitAt(leaf.vrfOutput, depth) === bit),
      depth + 1,
    );
  return hasher.parent(side(0), side(1));
}

interface LeafText {
  readonly vrf_output: string;
  readonly commitment: string;
}
const leafOf = ({ vrf_output: key, commitment }: LeafText): PrefixLeaf => ({
  vrfOutput: hex(key),
  commitment: hex(commitment),
});

/** A tree grown by one batch; a cache of one tile, so that everything is read back from bytes. */
async function treeOf(leaves: readonly PrefixLeaf[]) {
  const store = new TileMap();
  const tree = new PrefixTree(hasher, store, { countMax: 1, weightMax: 1e6 });
  const inserted = await tree.insert(0, leaves, store.nextId);
  store.write(inserted);
  return { store, tree, ...inserted };
}

interface TreeCase {
  readonly input: { readonly entries: readonly LeafText[]; readonly searches: readonly string[] };
  readonly expect: {
    readonly root: string;
    readonly proof: string;
    readonly elements: readonly string[];
    readonly commitments: readonly string[];
    readonly results: readonly { readonly depth: number; readonly result_type: number }[];
  };
}
vectorTest<TreeCase>('prefix-tree.json', async (cases) => {
  for (const { name, input, expect } of cases) {
    const { tree, root, rootHash } = await treeOf(input.entries.map(leafOf));
    assert.equal(toHex(rootHash), expect.root, name);
    const keys = input.searches.map(hex);
    const [answer] = await tree.search([{ root, keys }]);
    assert.ok(answer);
    const bytes = encode(prefixProof, answer.proof);
    assert.equal(toHex(bytes), expect.proof, name);
    assert.deepEqual(hexList(answer.proof.elements), expect.elements, name);
    assert.deepEqual(
      answer.proof.results.map(({ depth }) => depth),
      expect.results.map(({ depth }) => depth),
    );
    const commitments = answer.commitments.map((c) => (c === undefined ? '' : toHex(c)));
    assert.deepEqual([...commitments], expect.commitments, name);
    const lookups = keys.map((vrfOutput, i) => ({ vrfOutput, commitment: answer.commitments[i] }));
    const evaluated = evaluatePrefixProof(hasher, lookups, decode(prefixProof, bytes));
    assert.equal(toHex(evaluated), expect.root, name);
  }
  return cases.length;
});

interface MutationCase {
  readonly input: {
    readonly add: readonly LeafText[];
    readonly remove: readonly LeafText[];
    readonly entries: readonly LeafText[];
  };
  readonly expect: { readonly before: string; readonly after: string; readonly proof: string };
}
vectorTest<MutationCase>('prefix-mutation.json', async (cases, context) => {
  let removals = 0;
  for (const { name, input, expect } of cases) {
    const proof = decode(prefixProof, hex(expect.proof));
    const added = input.add.map(leafOf);
    // A key that is added and removed is looked up with the commitment that the old tree holds.
    const old = new Map(input.remove.map((leaf) => [leaf.vrf_output, hex(leaf.commitment)]));
    const lookups: PrefixLookup[] = [...input.add, ...input.remove].map((leaf) => ({
      vrfOutput: hex(leaf.vrf_output),
      commitment: old.get(leaf.vrf_output) ?? hex(leaf.commitment),
    }));
    assert.equal(toHex(evaluatePrefixProof(hasher, lookups, proof)), expect.before, name);
    if (input.remove.length > 0) {
      // kt-log/README.md: removals are refused, so what they leave behind is not computed.
      removals++;
      assert.throws(() => evaluateInsertion(hasher, added, proof), { name: 'VerificationError' });
      continue;
    }
    const { before, after } = evaluateInsertion(hasher, added, proof);
    assert.equal(toHex(before), expect.before, name);
    assert.equal(toHex(after), expect.after, name);
    const { store, tree, root } = await treeOf(input.entries.map(leafOf));
    const inserted = await tree.insert(root, added, store.nextId);
    store.write(inserted);
    assert.equal(toHex(inserted.rootHash), expect.after, name);
    const keys = added.map((leaf) => leaf.vrfOutput);
    const [lookedUp] = await tree.search([{ root, keys }]);
    assert.equal(toHex(encode(prefixProof, lookedUp?.proof ?? assert.fail())), expect.proof, name);
    assert.deepEqual(
      await tree.commitments(inserted.root, keys),
      added.map((leaf) => leaf.commitment),
    );
  }
  context.diagnostic(`prefix-mutation.json: ${removals} cases remove leaves, which we refuse`);
  return cases.length;
});

interface ForeignCase {
  readonly kind: string;
  readonly expect: 'accept' | 'reject';
  readonly searches?: readonly { readonly vrf_output: string; readonly commitment?: string }[];
  readonly added?: readonly LeafText[];
  readonly removed?: readonly LeafText[];
  readonly proof: string;
  readonly root: string;
  readonly before: string;
  readonly after: string;
}
function accepts(vector: Pick<ForeignCase, 'searches' | 'proof' | 'root'>): boolean {
  const lookups = (vector.searches ?? []).map(({ vrf_output: key, commitment }) => ({
    vrfOutput: hex(key),
    commitment: commitment === undefined ? undefined : hex(commitment),
  }));
  try {
    const proof = decode(prefixProof, hex(vector.proof));
    return toHex(evaluatePrefixProof(hasher, lookups, proof)) === vector.root;
  } catch (error) {
    if ((error as Error).name !== 'VerificationError') throw error;
    return false;
  }
}
vectorTest<ForeignCase>('from-kt.json', (cases) => {
  let ran = 0;
  for (const vector of cases) {
    if (vector.kind === 'prefix-tree') {
      assert.equal(accepts(vector), vector.expect === 'accept', vector.name);
      ran++;
    } else if (vector.kind === 'prefix-mutation') {
      const added = (vector.added ?? []).map(leafOf);
      const lookups = [...added, ...(vector.removed ?? []).map(leafOf)];
      const proof = decode(prefixProof, hex(vector.proof));
      assert.equal(toHex(evaluatePrefixProof(hasher, lookups, proof)), vector.before, vector.name);
      if ((vector.removed ?? []).length === 0) {
        const { before, after } = evaluateInsertion(hasher, added, proof);
        assert.deepEqual([toHex(before), toHex(after)], [vector.before, vector.after], vector.name);
      }
      ran++;
    }
  }
  return ran;
});
interface TamperedCase {
  readonly input: Omit<ForeignCase, 'expect'>;
}
vectorTest<TamperedCase>('tampered.json', (cases) => {
  const ours = cases.filter((vector) => vector.input.kind === 'prefix-tree');
  for (const { name, input } of ours) assert.equal(accepts(input), false, name);
  return ours.length;
});

/** Keys that share long prefixes now and then: few distinct leading bytes. */
const keyBytes = fc
  .tuple(fc.constantFrom(0, 1, 0x80, 0xff), fc.constantFrom(0, 3, 0xf0), fc.integer())
  .map(([first, second, seed]) => {
    const key = nativeSha256(Uint8Array.of(seed & 255, (seed >> 8) & 255, (seed >> 16) & 255));
    key[0] = first;
    key[1] = second;
    return key;
  });
const leaves = fc.uniqueArray(
  keyBytes.map((key) => ({ vrfOutput: key, commitment: nativeSha256(key) })),
  { minLength: 1, maxLength: 60, selector: (leaf) => toHex(leaf.vrfOutput) },
);

test('batches give the naive root, and every version stays searchable', async () => {
  await fc.assert(
    fc.asyncProperty(
      leaves,
      fc.integer({ min: 1, max: 9 }),
      keyBytes,
      async (all, batch, other) => {
        const store = new TileMap();
        const tree = new PrefixTree(hasher, store, { countMax: 2, weightMax: 1e6 });
        const versions: { root: number; rootHash: Hash; count: number }[] = [
          { root: 0, rootHash: zeroHash, count: 0 },
        ];
        for (let at = 0; at < all.length; at += batch) {
          const added = all.slice(at, at + batch);
          const old = versions.at(-1) ?? assert.fail('no version');
          const inserted = await tree.insert(old.root, added, store.nextId);
          store.write(inserted);
          const count = at + added.length;
          assert.deepEqual(inserted.rootHash, naiveRoot(all.slice(0, count)));
          const sorted = [...added].sort((a, b) => compareBytes(a.vrfOutput, b.vrfOutput));
          const addedKeys = sorted.map((leaf) => leaf.vrfOutput);
          const [lookedUp] = await tree.search([{ root: old.root, keys: addedKeys }]);
          const { proof: absence } = lookedUp ?? assert.fail('no answer');
          const { before, after } = evaluateInsertion(hasher, sorted, absence);
          const held = await tree.commitments(old.root, addedKeys);
          assert.ok(held.every((commitment) => commitment === undefined));
          assert.deepEqual([before, after], [old.rootHash, inserted.rootHash]);
          versions.push({ root: inserted.root, rootHash: inserted.rootHash, count });
        }
        const keys = [...all.map((leaf) => leaf.vrfOutput), other];
        const answers = await tree.search(versions.map(({ root }) => ({ root, keys })));
        versions.forEach(({ rootHash, count }, i) => {
          const { proof, commitments } = answers[i] ?? assert.fail('no answer');
          all.forEach((leaf, j) =>
            assert.deepEqual(commitments[j], j < count ? leaf.commitment : undefined),
          );
          const lookups = keys.map((vrfOutput, j) => ({ vrfOutput, commitment: commitments[j] }));
          assert.deepEqual(evaluatePrefixProof(hasher, lookups, proof), rootHash);
        });
      },
    ),
    { numRuns: 60 },
  );
});

test('a proof with any byte changed gives another root or is refused', async () => {
  const all = fc.sample(leaves, { seed: 7, numRuns: 1 })[0] ?? assert.fail('no leaves');
  const { tree, root, rootHash } = await treeOf(all);
  const keys = [all[0]?.vrfOutput ?? zeroHash, nativeSha256(zeroHash), new Uint8Array(32).fill(1)];
  const [answer] = await tree.search([{ root, keys }]);
  assert.ok(answer);
  const lookups = keys.map((key, i) => ({ vrfOutput: key, commitment: answer.commitments[i] }));
  const bytes = encode(prefixProof, answer.proof);
  let refused = 0;
  for (let at = 0; at < bytes.length; at++) {
    const mutant = bytes.slice();
    mutant[at] = (mutant[at] ?? 0) ^ 1;
    try {
      const evaluated = evaluatePrefixProof(hasher, lookups, decode(prefixProof, mutant));
      assert.notDeepEqual(evaluated, rootHash, `byte ${at}`);
    } catch (error) {
      assert.equal((error as Error).name, 'VerificationError', `byte ${at}`);
      refused++;
    }
  }
  assert.ok(refused > 0);
});

test('a key that is already there, or given twice, is not inserted', async () => {
  const leaf = { vrfOutput: nativeSha256(zeroHash), commitment: zeroHash };
  const { store, tree, root } = await treeOf([leaf]);
  await assert.rejects(tree.insert(root, [leaf], store.nextId), { name: 'InvalidArgumentError' });
  await assert.rejects(tree.insert(0, [leaf, leaf], store.nextId), {
    name: 'InvalidArgumentError',
  });
});

test('tiles are read once while they are in the cache', async () => {
  const store = new TileMap();
  const tree = new PrefixTree(hasher, store);
  const all = fc.sample(leaves, { seed: 9, numRuns: 1 })[0] ?? assert.fail('no leaves');
  const inserted = await tree.insert(0, all, 1);
  store.write(inserted);
  await tree.search([{ root: inserted.root, keys: all.map((leaf) => leaf.vrfOutput) }]);
  assert.equal(store.reads, 0);
});

test('a stored tile that is cut or extended is reported as lost data', async () => {
  const all = fc.sample(leaves, { seed: 11, numRuns: 1 })[0] ?? assert.fail('no leaves');
  const { written } = await treeOf(all);
  for (const { bytes } of written) {
    assert.deepEqual(madeAnew(PrefixTile.decode(hasher, bytes)).encode(), bytes);
    const lost = { name: 'DataLossError', reason: 'STORE_CHANGED' };
    assert.throws(() => PrefixTile.decode(hasher, bytes.subarray(0, -1)), lost);
    assert.throws(() => PrefixTile.decode(hasher, Uint8Array.of(...bytes, 0)), lost);
  }
});

/** The same tile without anything that it may remember of how it was stored. */
function madeAnew(tile: PrefixTile): PrefixTile {
  const anew = PrefixTile.empty(hasher);
  for (let node = 1; node < 32; node++) {
    const code = tile.codeAt(node);
    if (code === NodeCode.leaf) anew.setLeaf(node, tile.leafAt(node));
    else if (code === NodeCode.parent) anew.setParent(node);
    else if (code === NodeCode.link) anew.setLink(node, tile.linkAt(node), tile.hashAt(node));
  }
  return anew;
}

test('tiles of which links changed are stored as if they had been made anew', async () => {
  const store = new TileMap();
  // Without a cache all tiles are copies of decoded ones, with one of those that were just written.
  for (const weightMax of [0, 2 ** 24]) {
    const tree = new PrefixTree(hasher, store, { countMax: 1000, weightMax });
    let root = 0;
    // Ids pass 127, so a link of one byte becomes one of two.
    for (let i = 0; i < 150; i++) {
      const leaf = { vrfOutput: nativeSha256(Uint8Array.of(i)), commitment: zeroHash };
      const inserted = await tree.insert(root, [leaf], store.nextId);
      store.write(inserted);
      root = inserted.root;
      for (const { bytes } of inserted.written) {
        assert.deepEqual(madeAnew(PrefixTile.decode(hasher, bytes)).encode(), bytes);
      }
    }
  }
});
