/** RFC 6962 shapes (RFC 9162 section 2.1) and C2SP tiles: the texts' examples, and a naive tree. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Hash, TreeHasher } from './hash.ts';
import { keytransHasher, rfc6962Hasher } from './hash.ts';
import { fullSubtrees, leavesOf, rootOfHeads } from './log-tree.ts';
import { nativeSha256 } from './native-hash.ts';
import {
  consistencyNodes,
  elementOf,
  inclusionNodes,
  verifyConsistency6962,
  verifyInclusion6962,
} from './rfc6962.ts';
import { hex, toHex } from './spec-vectors.ts';
import type { LogTile } from './tiles.ts';
import {
  entryBundle,
  parseEntryBundle,
  parseTilePath,
  TiledLog,
  tilePath,
  tileWidthAt,
} from './tiles.ts';

const rfc = rfc6962Hasher(nativeSha256);
const keytrans = keytransHasher(nativeSha256);

/** RFC 9162 section 2.1.1, word for word. */
function naiveRoot(hasher: TreeHasher, leaves: readonly Hash[]): Hash {
  const [only] = leaves;
  if (only === undefined) throw new Error('empty');
  if (leaves.length === 1) return only;
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  const right = leaves.slice(k);
  return hasher.parent(
    naiveRoot(hasher, leaves.slice(0, k)),
    k === 1,
    naiveRoot(hasher, right),
    right.length === 1,
  );
}

/** The inputs and roots that certificate transparency's reference tests use for their tree. */
const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657'].concat(
  '606162636465666768696a6b6c6d6e6f',
);
const roots = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];
test('RFC 6962: the eight roots of the reference tests', () => {
  const leaves = inputs.map((input) => rfc.leaf(hex(input)));
  roots.forEach((root, i) => {
    assert.equal(toHex(naiveRoot(rfc, leaves.slice(0, i + 1))), root);
  });
});

function append(tree: TiledLog, leaf: Hash): readonly LogTile[] {
  const { tiles, keep } = tree.grow(leaf);
  keep();
  return tiles;
}
const leafAt = (i: number): Hash => rfc.leaf(Uint8Array.of(i & 255, i >>> 8, 7));

test('inclusion and consistency proofs of every pair of sizes verify, and no others', async () => {
  const leaves = Array.from({ length: 40 }, (_, i) => leafAt(i));
  const tree = await TiledLog.open(rfc, () => assert.fail('no tile is full'), 0, []);
  for (const leaf of leaves) append(tree, leaf);
  const elements = async (lists: readonly (readonly number[])[]): Promise<Hash[]> =>
    Promise.all(
      lists.map(async (ids) => elementOf(rfc, ids, await tree.nodes(ids)) ?? assert.fail('empty')),
    );
  const refused = { name: 'VerificationError' };
  for (let size = 1; size <= leaves.length; size++) {
    const root = naiveRoot(rfc, leaves.slice(0, size));
    for (let i = 0; i < size; i++) {
      const proof = await elements(inclusionNodes(i, size));
      const leaf = leafAt(i);
      verifyInclusion6962(rfc, i, size, leaf, proof, root);
      assert.throws(() => verifyInclusion6962(rfc, i, size, leafAt(i + 1), proof, root), refused);
      assert.throws(() => verifyInclusion6962(rfc, i, size, leaf, [...proof, root], root), refused);
      assert.throws(() => verifyInclusion6962(rfc, size, size, leaf, proof, root), refused);
    }
    for (let first = 1; first <= size; first++) {
      const before = naiveRoot(rfc, leaves.slice(0, first));
      const proof = await elements(consistencyNodes(first, size));
      verifyConsistency6962(rfc, first, size, before, root, proof);
      const longer = [...proof, root];
      assert.throws(() => verifyConsistency6962(rfc, first, size, before, root, longer), refused);
      assert.throws(
        () => verifyConsistency6962(rfc, first, size, leafAt(99), root, proof),
        refused,
      );
      if (first < size) {
        const lie = leafAt(99);
        assert.throws(() => verifyConsistency6962(rfc, first, size, before, lie, proof), refused);
      }
    }
  }
});

test('tile paths: the examples of the text, and back', () => {
  assert.equal(tilePath(0, 1_234_067), 'tile/0/x001/x234/067');
  assert.equal(tilePath(undefined, 0), 'tile/entries/000');
  assert.equal(tilePath(1, 0, 17), 'tile/1/000.p/17');
  for (const path of [
    'tile/0/x000/067',
    'tile/00/067',
    'tile/64/067',
    'tile/0/67',
    'tile/0/067.p/256',
    'tile/0/067.p/0',
    'tile/0/067.p/01',
    'tile/entry/000',
    'tile/0/x001/x234',
    '/tile/0/000',
  ]) {
    assert.equal(parseTilePath(path), undefined, path);
  }
  fc.assert(
    fc.property(
      fc.option(fc.nat(63), { nil: undefined }),
      fc.nat(2 ** 31),
      fc.option(fc.integer({ min: 1, max: 255 }), { nil: undefined }),
      (level, index, width) => {
        const name = { level, index, width };
        assert.deepEqual(parseTilePath(tilePath(level, index, width)), name);
      },
    ),
  );
});

test('a tree of 70 000 has the tiles that the text counts', () => {
  assert.equal(tileWidthAt(70_000, 0, 272), 256);
  assert.equal(tileWidthAt(70_000, 0, 273), 112);
  assert.equal(tileWidthAt(70_000, 0, 274), 0);
  assert.equal(tileWidthAt(70_000, 1, 0), 256);
  assert.equal(tileWidthAt(70_000, 1, 1), 17);
  assert.equal(tileWidthAt(70_000, 2, 0), 1);
  assert.equal(tileWidthAt(256, 1, 0), 1);
});

for (const [name, hasher] of [
  ['RFC 6962', rfc],
  ['KEYTRANS', keytrans],
] as const) {
  test(`${name}: a tree of 66 000 leaves gives its nodes, and again after a restart`, async () => {
    const stored = new Map<string, Uint8Array>();
    const read = (level: number, index: number): Promise<Uint8Array> =>
      Promise.resolve(stored.get(`${level}/${index}`) ?? assert.fail(`no tile ${level}/${index}`));
    const tree = await TiledLog.open(hasher, read, 0, []);
    const size = 66_000;
    const leaves: Hash[] = [];
    const write = ({ level, index, bytes }: LogTile): void => {
      assert.ok(!stored.has(`${level}/${index}`));
      stored.set(`${level}/${index}`, bytes);
    };
    for (let i = 0; i < size; i++) {
      const leaf = leafAt(i);
      leaves.push(leaf);
      append(tree, leaf).forEach(write);
    }
    const root = toHex(naiveRoot(hasher, leaves));
    const again = await TiledLog.open(hasher, read, size, leaves.slice(size - (size % 256)));
    for (const one of [tree, again]) {
      const heads = await one.nodes(fullSubtrees(size));
      assert.equal(toHex(rootOfHeads(hasher, size, heads)), root);
      for (const id of [0, 2, 511, 1023, 65_535, 131_327, 131_711, 131_998]) {
        const { start, length } = leavesOf(id);
        const [value] = await one.nodes([id]);
        assert.deepEqual(value, naiveRoot(hasher, leaves.slice(start, start + length)), `${id}`);
      }
      const partial = await one.tile(size, 0, 257, 208);
      assert.equal(partial?.length, 208 * 32);
      assert.deepEqual(partial.subarray(0, 32), leaves[257 * 256]);
      assert.equal(await one.tile(size, 0, 257, 209), undefined);
      assert.deepEqual(await one.tile(size, 0, 3), stored.get('0/3'));
      await assert.rejects(one.nodes([2 * size]), { name: 'DataLossError' });
    }
    // Both go on alike.
    for (let i = size; i < size + 300; i++) {
      // A growth that is not kept changes nothing.
      tree.grow(leafAt(i + 1));
      assert.deepEqual(append(tree, leafAt(i)), append(again, leafAt(i)));
    }
  });
}

test('entry bundles carry each entry behind its length', () => {
  const entries = [new Uint8Array(40).fill(1), new Uint8Array(40).fill(2)];
  const bundle = entryBundle(entries);
  assert.equal(toHex(bundle.subarray(0, 4)), '00280101');
  assert.deepEqual(parseEntryBundle(bundle), entries);
  assert.equal(parseEntryBundle(bundle.subarray(1)), undefined);
  assert.equal(parseEntryBundle(bundle.with(1, 41)), undefined);
});
