/**
 * The suite that every AuditStore has to pass: what was replayed never goes back and never changes
 * its root, a convicted log stands still, first heads and evidence stay. Called from a test file
 * with a way to make an empty store.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditStore, EvidenceRecord, FollowedLog } from './audit-store.ts';
import type { SignedHead } from './evidence.ts';

const bytes = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);
const red = 'red.example';
const conflict = { name: 'ConflictError', reason: 'SEQ_CONFLICT' };

function followedAt(size: number, root = size, origin = red): FollowedLog {
  const checkpoint = new TextEncoder().encode(`${origin}\n${size}\n`);
  return { origin, size, state: bytes(100, root), rfc6962Root: bytes(32, root), checkpoint };
}
function headAt(size: number, root = size): SignedHead {
  return { size, root: bytes(32, root), signature: bytes(64, root) };
}
function evidenceOf(fill: number, origin = red): EvidenceRecord {
  const record = { hash: bytes(32, fill), bytes: bytes(70_000, fill), foundMs: 1000 + fill };
  return { origin, kind: fill % 2 === 0 ? 'same-size' : 'bad-update', ...record };
}

export function auditStoreContract(name: string, open: () => Promise<AuditStore>): void {
  test(`${name}: an empty store has nothing`, async () => {
    const store = await open();
    assert.equal(await store.followed(red), undefined);
    assert.equal(await store.status(red), undefined);
    assert.deepEqual(await store.heads(red, 0, 10), []);
    assert.deepEqual(await store.evidence(), []);
    assert.deepEqual(await store.evidence(red), []);
  });

  test(`${name}: a replayed log goes forward, and each log on its own`, async () => {
    const store = await open();
    await store.advance(followedAt(1));
    await store.advance(followedAt(300));
    await store.advance(followedAt(300));
    await store.advance(followedAt(7, 9, 'blue.example'));
    assert.deepEqual(await store.followed(red), followedAt(300));
    assert.deepEqual(await store.followed('blue.example'), followedAt(7, 9, 'blue.example'));
  });

  test(`${name}: a smaller size and another root at the same size are refused`, async () => {
    const store = await open();
    await store.advance(followedAt(5));
    await assert.rejects(store.advance(followedAt(4)), conflict);
    await assert.rejects(store.advance(followedAt(5, 6)), conflict);
    assert.deepEqual(await store.followed(red), followedAt(5));
  });

  test(`${name}: a convicted log stands still until its status is set again`, async () => {
    const store = await open();
    await store.setStatus(red, 'behind');
    await store.advance(followedAt(5));
    for (const status of ['forked', 'invalid'] as const) {
      await store.setStatus(red, status);
      assert.equal(await store.status(red), status);
      await assert.rejects(store.advance(followedAt(9)), conflict);
      assert.deepEqual(await store.followed(red), followedAt(5));
      assert.equal(await store.status('blue.example'), undefined);
    }
    await store.setStatus(red, 'suspect');
    await store.advance(followedAt(9));
    assert.equal(await store.status(red), 'suspect');
    assert.deepEqual(await store.followed(red), followedAt(9));
  });

  test(`${name}: two advances at once leave one of them, whole`, async () => {
    const store = await open();
    const both = [followedAt(5, 1), followedAt(5, 2)];
    const results = await Promise.allSettled(both.map((log) => store.advance(log)));
    const at = results.findIndex((result) => result.status === 'fulfilled');
    assert.deepEqual(
      results.map((result) => result.status).toSorted(),
      ['fulfilled', 'rejected'],
      'one of two roots',
    );
    assert.deepEqual(await store.followed(red), both[at]);
  });

  test(`${name}: heads come by size, and the first one of a size stays`, async () => {
    const store = await open();
    await store.putHeads(red, [headAt(3), headAt(1)]);
    await store.putHeads(red, [headAt(2), headAt(4)]);
    await store.putHeads(red, []);
    await store.putHeads('blue.example', [headAt(3, 33)]);
    assert.deepEqual(
      await store.heads(red, 0, 10),
      [1, 2, 3, 4].map((size) => headAt(size)),
    );
    assert.deepEqual(await store.heads(red, 2, 2), [headAt(2), headAt(3)]);
    assert.deepEqual(await store.heads(red, 5, 2), []);
    // The same root under another signature: the one that came first stays.
    await store.putHeads(red, [{ ...headAt(3), signature: bytes(64, 99) }, headAt(6)]);
    assert.deepEqual(await store.heads(red, 3, 1), [headAt(3)]);
    assert.deepEqual(await store.heads(red, 6, 1), [headAt(6)]);
    assert.deepEqual(await store.heads('blue.example', 0, 9), [headAt(3, 33)]);
  });

  test(`${name}: heads with another root are refused as a whole`, async () => {
    const store = await open();
    await store.putHeads(red, [headAt(3)]);
    await assert.rejects(store.putHeads(red, [headAt(2), headAt(3, 4)]), conflict);
    await assert.rejects(store.putHeads(red, [headAt(8), headAt(8, 9)]), conflict);
    assert.deepEqual(await store.heads(red, 0, 10), [headAt(3)]);
  });

  test(`${name}: evidence stays as it came first, in order`, async () => {
    const store = await open();
    const [first, second] = [evidenceOf(2), evidenceOf(1, 'blue.example')];
    await store.putEvidence(first, 'forked');
    await store.putEvidence(second, 'invalid');
    assert.deepEqual(await Promise.all([red, 'blue.example'].map((one) => store.status(one))), [
      'forked',
      'invalid',
    ]);
    await store.setStatus(red, 'ok');
    await store.putEvidence({ ...first, foundMs: 9 }, 'forked');
    assert.equal(await store.status(red), 'forked');
    const same = (found: readonly EvidenceRecord[], expected: readonly EvidenceRecord[]): void => {
      // Without the contents first: a difference in those is too long to be printed.
      const plain = (all: readonly EvidenceRecord[]) => all.map((one) => ({ ...one, bytes: 0 }));
      assert.deepEqual(plain(found), plain(expected));
      const isSame = found.every(
        (one, i) => Buffer.compare(one.bytes, expected[i]?.bytes ?? one.bytes) === 0,
      );
      assert.ok(isSame, 'the bytes of the evidence');
    };
    same(await store.evidence(), [first, second]);
    same(await store.evidence(red), [first]);
    same(await store.evidence('green.example'), []);
  });
}
