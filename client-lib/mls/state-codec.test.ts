/** Group state in rows: restore in the middle of everything, sizes, damage, rows that do not fit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MlsGroup, stateOf } from './group.ts';
import {
  MlsError,
  acceptCommit,
  encodeCold,
  encodeGroup,
  encodeHot,
  encodePast,
  mandatorySuite,
  restoreGroup,
  xwingSuite,
} from './index.ts';
import { TestWorld, groupOf, refused } from './test-members.ts';

const none = new Uint8Array(0);

function contains(haystack: Uint8Array, needle: Uint8Array): boolean {
  return Buffer.from(haystack).includes(Buffer.from(needle));
}

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`suite ${suite}: rows written as a client writes them restore the same group`, async () => {
    const world = new TestWorld();
    const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
    let [a, b] = await groupOf(suite, [alice, bob, carol]);
    assert.ok(b);
    // Bob keeps rows only; each step restores, works, and writes what the step changed.
    let cold = encodeCold(b);
    let hot = encodeHot(b);
    const past = new Map<bigint, Uint8Array>();
    const restore = (): MlsGroup => restoreGroup({ cold, hot, past: [...past.values()] });

    const early = await alice.mls.encrypt(a, new Uint8Array(50), none);
    const later = await alice.mls.encrypt(early.next, new Uint8Array(60), none);
    a = later.next;
    b = (await bob.mls.process(restore(), later.ciphertext)).next;
    hot = encodeHot(b);

    const made = await alice.mls.rekey(a);
    a = acceptCommit(a, made.pending).next;
    b = (await bob.mls.process(restore(), made.commit)).next;
    cold = encodeCold(b);
    hot = encodeHot(b);
    past.set(1n, encodePast(b, 1n));

    const late = await bob.mls.process(restore(), early.ciphertext);
    assert.equal(late.kind, 'application');
    past.set(1n, encodePast(late.next, 1n));
    await assert.rejects(bob.mls.process(restore(), early.ciphertext), refused('DUPLICATE'));

    const sent = await bob.mls.encrypt(restore(), new Uint8Array(10), none);
    hot = encodeHot(sent.next);
    assert.equal((await bob.mls.encrypt(restore(), none, none)).generation, 1);
    assert.equal((await alice.mls.process(a, sent.ciphertext)).kind, 'application');
    assert.deepEqual(restore().members(), a.members());
    assert.deepEqual(restore().epochAuthenticator, a.epochAuthenticator);
  });
}

test('cold rows hold no message key, hot rows no past epoch', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const sent = await bob.mls.encrypt(b, none, none);
  a = (await alice.mls.process(a, sent.ciphertext)).next;
  const made = await alice.mls.rekey(a);
  a = acceptCommit(a, made.pending).next;
  b = (await bob.mls.process(sent.next, made.commit)).next;
  a = (await alice.mls.process(a, (await bob.mls.encrypt(b, none, none)).ciphertext)).next;

  const { secretTree, historicalReceiverData, keySchedule } = stateOf(a);
  const ratchet = secretTree.leafNodes[2]?.application.secret;
  const pastSecret = historicalReceiverData.get(1n)?.senderDataSecret;
  assert.ok(ratchet && pastSecret);
  assert.ok(contains(encodeHot(a), ratchet));
  assert.ok(!contains(encodeCold(a), ratchet));
  assert.ok(!contains(encodeCold(a), pastSecret) && !contains(encodeHot(a), pastSecret));
  assert.ok(contains(encodePast(a, 1n), pastSecret));
  assert.ok(!contains(encodePast(a, 1n), keySchedule.exporterSecret));
});

test('hot rows stay small: under 2 KB for 64 members', async () => {
  const world = new TestWorld();
  const alice = world.device('alice');
  const others = Array.from({ length: 63 }, (_, i) => world.device(`member${i}`));
  for (const suite of [mandatorySuite, xwingSuite]) {
    const [a, b] = await groupOf(suite, [alice, ...others]);
    const [bob] = others;
    assert.ok(b && bob);
    const sent = await bob.mls.encrypt(b, new Uint8Array(100), none);
    const received = await alice.mls.process(a, sent.ciphertext);
    for (const group of [sent.next, received.next]) {
      assert.ok(encodeHot(group).length < 2048, `${encodeHot(group).length} bytes`);
      assert.ok(encodeCold(group).length > 10_000, 'the tree is in the cold row');
    }
  }
});

test('damaged, cut, lengthened, swapped and foreign rows are refused', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a] = await groupOf(mandatorySuite, [alice, bob]);
  const before = encodeGroup(a);
  a = acceptCommit(a, (await alice.mls.rekey(a)).pending).next;
  a = acceptCommit(a, (await alice.mls.rekey(a)).pending).next;
  const rows = encodeGroup(a);
  const [other] = await groupOf(mandatorySuite, [alice]);
  const foreign = encodeGroup(acceptCommit(other, (await alice.mls.rekey(other)).pending).next);
  assert.deepEqual(restoreGroup(rows).pastEpochs(), [0n, 1n, 2n]);

  const bad = refused('BAD_STATE');
  assert.throws(() => restoreGroup({ ...rows, cold: rows.hot }), bad);
  assert.throws(() => restoreGroup({ ...rows, hot: rows.cold }), bad);
  assert.throws(() => restoreGroup({ ...rows, hot: before.hot }), bad);
  assert.throws(() => restoreGroup({ ...rows, cold: before.cold }), bad);
  assert.throws(() => restoreGroup({ ...rows, hot: foreign.hot }), bad);
  assert.throws(() => restoreGroup({ ...rows, past: [...rows.past, ...foreign.past] }), bad);
  assert.throws(() => restoreGroup({ ...rows, past: [...rows.past, ...rows.past] }), bad);
  assert.throws(() => restoreGroup({ ...before, past: rows.past }), bad);
  for (const kind of ['cold', 'hot'] as const) {
    const row = rows[kind];
    for (let cut = 0; cut < row.length; cut++) {
      assert.throws(() => restoreGroup({ ...rows, [kind]: row.subarray(0, cut) }), bad);
    }
    const longer = new Uint8Array(row.length + 1);
    longer.set(row);
    assert.throws(() => restoreGroup({ ...rows, [kind]: longer }), bad);
  }
});

test('no row of arbitrary bytes is anything but BAD_STATE', async () => {
  const world = new TestWorld();
  const alice = world.device('alice');
  const [a] = await groupOf(mandatorySuite, [alice]);
  const rows = encodeGroup(a);
  const changed = fc
    .tuple(
      fc.constantFrom('cold' as const, 'hot' as const),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
    )
    .map(([kind, position, mask]) => {
      const row = Uint8Array.from(rows[kind]);
      const at = position % row.length;
      row[at] = (row[at] ?? 0) ^ mask;
      return { ...rows, [kind]: row };
    });
  const arbitrary = fc
    .uint8Array({ maxLength: 300 })
    .map((bytes) => ({ ...rows, cold: Uint8Array.from(bytes) }));
  fc.assert(
    fc.property(fc.oneof(changed, arbitrary), (input) => {
      try {
        // A changed secret cannot be noticed here: SQLCipher's page MACs are for that.
        assert.ok(restoreGroup(input) instanceof MlsGroup);
      } catch (error) {
        assert.ok(error instanceof MlsError, String(error));
        assert.ok(['BAD_STATE', 'MALFORMED'].includes(error.reason), error.reason);
      }
    }),
    { numRuns: 2000 },
  );
});
