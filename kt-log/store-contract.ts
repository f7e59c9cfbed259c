/**
 * The suite that every TreeStore has to pass: what is committed is there as a whole, nothing is
 * replaced, erasing forgets one label. Called from a test file with a way to make an empty store.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogBatch, TreeStore } from './store.ts';

const bytes = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);
const label = new TextEncoder().encode('alice@red.example');

/** Batch `position` of a history in which each entry adds one version. */
function batchAt(position: number): LogBatch {
  return {
    position,
    entry: {
      timestampMs: 1000 + position,
      prefixRoot: bytes(32, position),
      rootTile: position + 1,
    },
    head: {
      size: position + 1,
      root: bytes(32, 100 + position),
      signature: bytes(64, position),
      rfc6962Root: bytes(32, 200),
      noteSignature: bytes(64, 201),
    },
    tiles: [{ id: position + 1, bytes: bytes(40, position) }],
    superseded: position === 0 ? [] : [position],
    logTiles: [{ tree: 'keytrans', tile: { level: 0, index: position, bytes: bytes(8192, 7) } }],
    versions: [
      {
        label,
        version: position,
        commitment: bytes(32, 50 + position),
        opening: bytes(16, 60 + position),
        value: bytes(10, 70 + position),
      },
    ],
    effects: [],
  };
}

/** How the suite uses the effects of a store; which rows they are is the store's own affair. */
export interface EffectsUnderTest {
  /** An effect that a fresh store accepts once, and refuses with ConflictError from then on. */
  readonly once: unknown;
  /** Whether `once` is in the store. */
  isThere(store: TreeStore): Promise<boolean>;
}

export function treeStoreContract(
  name: string,
  open: () => Promise<TreeStore>,
  effects: EffectsUnderTest,
): void {
  test(`${name}: an empty store has nothing`, async () => {
    const store = await open();
    assert.equal(await store.newestHead(), undefined);
    assert.deepEqual(await store.positions(label), []);
    assert.deepEqual(await store.versions(label, [0]), [undefined]);
    assert.deepEqual(await store.evaluations(label, [0, 1]), [undefined, undefined]);
    assert.deepEqual(await store.entries(0, 0), []);
    const lost = { name: 'DataLossError', reason: 'STORE_CHANGED' };
    await assert.rejects(store.entries(0, 1), lost);
    await assert.rejects(store.tiles([1]), lost);
    await assert.rejects(store.logTile('keytrans', 0, 0), lost);
  });

  test(`${name}: all parts of each batch are there`, async () => {
    const store = await open();
    for (const position of [0, 1, 2]) await store.commit(batchAt(position));
    const [, second, third] = [0, 1, 2].map(batchAt);
    assert.ok(second && third);
    assert.deepEqual(await store.newestHead(), third.head);
    assert.deepEqual(await store.head(2), second.head);
    assert.deepEqual(await store.entries(1, 3), [second.entry, third.entry]);
    assert.deepEqual(await store.tiles([3, 2]), [third.tiles[0]?.bytes, second.tiles[0]?.bytes]);
    assert.deepEqual(await store.logTile('keytrans', 0, 1), bytes(8192, 7));
    await assert.rejects(store.logTile('rfc6962', 0, 1), { name: 'DataLossError' });
    assert.deepEqual(await store.positions(label), [0, 1, 2]);
    const [version] = second.versions;
    assert.ok(version);
    const { commitment, opening, value } = version;
    const stored = { position: 1, commitment, opening, value };
    assert.deepEqual(await store.versions(label, [1, 9]), [stored, undefined]);
    assert.deepEqual(await store.evaluations(label, [2, 9]), [undefined, undefined]);
  });

  test(`${name}: a batch that is not the next one changes nothing`, async () => {
    const store = await open();
    await store.commit(batchAt(0));
    const conflict = { name: 'ConflictError', reason: 'SEQ_CONFLICT' };
    const other = { ...batchAt(0), entry: { ...batchAt(0).entry, timestampMs: 5 } };
    await assert.rejects(store.commit(other), conflict);
    await assert.rejects(store.commit(batchAt(2)), conflict);
    // The next entry, but a tile, then a version, that is there already.
    await assert.rejects(store.commit({ ...batchAt(1), tiles: batchAt(0).tiles }), conflict);
    await assert.rejects(store.commit({ ...batchAt(1), versions: batchAt(0).versions }), conflict);
    assert.deepEqual(await store.newestHead(), batchAt(0).head);
    assert.deepEqual(await store.entries(0, 1), [batchAt(0).entry]);
    await store.commit(batchAt(1));
    assert.deepEqual(await store.newestHead(), batchAt(1).head);
  });

  test(`${name}: erasing a label forgets all of it, and nothing of the trees`, async () => {
    const store = await open();
    await store.commit(batchAt(0));
    await store.commit(batchAt(1));
    const evaluation = { output: bytes(32, 80), proof: bytes(80, 90) };
    await store.addEvaluations([{ label, version: 0, evaluation }]);
    const nobody = new TextEncoder().encode('nobody@red.example');
    await store.erase(nobody);
    assert.deepEqual(await store.evaluations(label, [0]), [evaluation]);
    assert.deepEqual(await store.positions(label), [0, 1]);
    await store.erase(label);
    assert.deepEqual(await store.positions(label), []);
    assert.deepEqual(await store.versions(label, [0, 1]), [undefined, undefined]);
    assert.deepEqual(await store.evaluations(label, [0, 1]), [undefined, undefined]);
    assert.deepEqual(await store.newestHead(), batchAt(1).head);
    assert.deepEqual(await store.entries(0, 2), [batchAt(0).entry, batchAt(1).entry]);
    assert.deepEqual(await store.tiles([1]), [batchAt(0).tiles[0]?.bytes]);
    await store.erase(label);
  });

  test(`${name}: VRFs are kept for labels that are there, and the first of a version stays`, async () => {
    const store = await open();
    await store.commit(batchAt(0));
    const of = (version: number, fill: number, of = label) => ({
      label: of,
      version,
      evaluation: { output: bytes(32, fill), proof: bytes(80, fill) },
    });
    const nobody = new TextEncoder().encode('nobody@red.example');
    await store.addEvaluations([]);
    await store.addEvaluations([of(1, 1), of(0, 2), of(1, 3, nobody), of(3, 4)]);
    await store.addEvaluations([of(3, 5)]);
    const found = await store.evaluations(label, [0, 1, 2, 3]);
    const [first, second, fourth] = [of(0, 2), of(1, 1), of(3, 4)].map((one) => one.evaluation);
    assert.deepEqual(found, [first, second, undefined, fourth]);
    assert.deepEqual(await store.positions(label), [0]);
    assert.deepEqual(await store.evaluations(nobody, [1]), [undefined]);
    await store.commit(batchAt(1));
    assert.deepEqual(await store.evaluations(label, [1]), [of(1, 1).evaluation]);
    await store.erase(label);
    await store.addEvaluations([of(3, 4)]);
    assert.deepEqual(await store.evaluations(label, [0, 1, 3]), [undefined, undefined, undefined]);
    assert.deepEqual(await store.positions(label), []);
  });

  test(`${name}: effects are written with their batch or refuse all of it`, async () => {
    const store = await open();
    assert.equal(await effects.isThere(store), false);
    const late = { ...batchAt(1), effects: [effects.once] };
    await assert.rejects(store.commit(late), { name: 'ConflictError', reason: 'SEQ_CONFLICT' });
    assert.equal(await effects.isThere(store), false);
    await store.commit({ ...batchAt(0), effects: [effects.once] });
    assert.equal(await effects.isThere(store), true);
    await assert.rejects(store.commit(late), { name: 'ConflictError' });
    assert.deepEqual(await store.newestHead(), batchAt(0).head);
    assert.deepEqual(await store.positions(label), [0]);
    await assert.rejects(store.tiles([2]), { name: 'DataLossError' });
    await store.commit(batchAt(1));
    assert.deepEqual(await store.newestHead(), batchAt(1).head);
  });

  test(`${name}: the first cosignature of each cosigner and size stays`, async () => {
    const store = await open();
    await store.commit(batchAt(0));
    await store.commit(batchAt(1));
    assert.deepEqual(await store.cosignatures(1), []);
    const of = (cosigner: string, keyId: number, fill: number) => ({
      ...{ name: cosigner, keyId },
      signature: bytes(72, fill),
    });
    const blue = of('blue.example/auditor', 0xfffffffe, 1);
    const green = of('green.example/auditor', 7, 2);
    const rotated = of('blue.example/auditor', 8, 3);
    await store.addCosignatures(1, [blue]);
    await store.addCosignatures(1, [of('blue.example/auditor', 0xfffffffe, 9), green]);
    await store.addCosignatures(1, [rotated, rotated]);
    await store.addCosignatures(1, []);
    assert.deepEqual(await store.cosignatures(1), [blue, green, rotated]);
    assert.deepEqual(await store.cosignatures(2), []);
    await store.addCosignatures(2, [blue]);
    assert.deepEqual(await store.cosignatures(2), [blue]);
  });
}
