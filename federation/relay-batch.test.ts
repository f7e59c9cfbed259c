/** Relay batches: what fits, and that every field of a request is checked. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { hasReason, maxRelayBytes, maxTtlS, RowKind } from '@quicprochat/proto';
import {
  create,
  FedRelayRequestSchema,
  Lane,
  type RelayItemSchema,
  RelayRejectSchema,
  toBinary,
  type FedRelayRequest,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import {
  acceptedKinds,
  itemToWire,
  parseRelay,
  rejectsFromWire,
  takeBatch,
} from './relay-batch.ts';
import type { OutboxRow } from './store.ts';

function row(seq: number, payloadBytes = 10, rids = 1): OutboxRow {
  return {
    seq,
    kind: 1,
    mid: new Uint8Array(16).fill(seq),
    payload: new Uint8Array(payloadBytes).fill(1),
    rids: Array.from({ length: rids }, () => new Uint8Array(32)),
    ttlLeftMs: 60_000,
    chain: new Uint8Array(16),
  };
}

type Item = MessageInitShape<typeof RelayItemSchema>;
const goodItem: Item = {
  kind: 1,
  mid: new Uint8Array(16),
  payload: new Uint8Array(10),
  rids: [new Uint8Array(32)],
  ttlS: 60,
};

interface Changes {
  readonly lane?: Lane;
  readonly streamId?: Uint8Array;
  readonly acked?: bigint;
  readonly firstSeq?: bigint;
  readonly items?: Item[];
}

function request(changes: Changes = {}): FedRelayRequest {
  return create(FedRelayRequestSchema, {
    lane: Lane.BULK,
    streamId: new Uint8Array(16),
    acked: 0n,
    firstSeq: 1n,
    items: [goodItem],
    ...changes,
  });
}
const kinds = new Set([1, 4]);

test('a batch is the longest run of rows that fits', () => {
  const rows = [row(5), row(6), row(8)];
  const batch = takeBatch(rows, 4, maxRelayBytes, false);
  assert.deepEqual([batch?.firstSeq, batch?.lastSeq, batch?.rows.length], [5, 6, 2]);
  assert.equal(takeBatch(rows, 3, maxRelayBytes, true), undefined, 'the first row is missing');
  assert.equal(takeBatch([], 4, maxRelayBytes, true), undefined);
});

test('a lone row may exceed the room that is left, but never a batch', () => {
  assert.equal(takeBatch([row(1, 5_000)], 0, 1_000, false), undefined);
  assert.equal(takeBatch([row(1, 5_000), row(2)], 0, 1_000, true)?.rows.length, 1);
  assert.equal(takeBatch([row(1, maxRelayBytes)], 0, maxRelayBytes, true), undefined);
  assert.equal(takeBatch([row(1, 700_000, 2_048)], 0, maxRelayBytes, true)?.rows.length, 1);
  assert.equal(takeBatch([row(1, 750_000, 2_048)], 0, maxRelayBytes, true), undefined);
});

test('a batch is for no more devices than one reply has room for', () => {
  const rows = Array.from({ length: 40 }, (_, index) => row(index + 1, 1, 256));
  assert.equal(takeBatch(rows, 0, maxRelayBytes, true)?.rows.length, 32);
  assert.equal(takeBatch(rows, 32, maxRelayBytes, true)?.rows.length, undefined);
  assert.equal(takeBatch(rows.slice(32), 32, maxRelayBytes, true)?.rows.length, 8);
});

test('what is counted for a batch bounds what its request weighs', () => {
  const rows = fc.array(fc.tuple(fc.nat(40_000), fc.integer({ min: 1, max: 50 })), {
    minLength: 1,
  });
  fc.assert(
    fc.property(rows, (shapes) => {
      const all = shapes.map(([bytes, rids], index) => row(index + 1, bytes + 1, rids));
      const batch = takeBatch(all, 0, maxRelayBytes, true);
      assert.ok(batch !== undefined && batch.bytes <= maxRelayBytes);
      const wire = request({ items: batch.rows.map(itemToWire) });
      assert.ok(toBinary(FedRelayRequestSchema, wire).length <= batch.bytes + 64);
      assert.equal(parseRelay(wire, kinds).items.length, batch.rows.length);
    }),
    { numRuns: 50 },
  );
});

test('a row past its time travels with one second, never with none', () => {
  assert.equal(itemToWire({ ...row(1), ttlLeftMs: -5 }).ttlS, 1);
  assert.equal(itemToWire({ ...row(1), ttlLeftMs: 61_999 }).ttlS, 61);
  assert.equal(itemToWire({ ...row(1), ttlLeftMs: 1e15 }).ttlS, maxTtlS);
});

test('every field that breaks the protocol refuses the request', () => {
  const huge = { ...goodItem, payload: new Uint8Array(maxRelayBytes / 2 + 1) };
  const one16 = new Uint8Array(16);
  const bad: [Changes, RegExp][] = [
    [{ lane: Lane.UNSPECIFIED }, /^lane/],
    [{ streamId: new Uint8Array(15) }, /^streamId: 15 bytes/],
    [{ firstSeq: 0n }, /^firstSeq/],
    [{ firstSeq: 2n ** 53n }, /^firstSeq/],
    [{ acked: 1n }, /^acked: 1/],
    [{ items: [] }, /^items: 0/],
    [{ items: Array.from({ length: 257 }, () => goodItem) }, /^items: 257/],
    [{ items: [huge, huge] }, /payload bytes/],
    [{ items: [goodItem, { ...goodItem, mid: new Uint8Array(17) }] }, /^items\[1\]\.mid: 17/],
    [{ items: [{ ...goodItem, payload: new Uint8Array(0) }] }, /payload: is empty/],
    [{ items: [{ ...goodItem, rids: [] }] }, /rids: 0/],
    [{ items: [{ ...goodItem, rids: [new Uint8Array(31)] }] }, /rids: need 32/],
    [{ items: [{ ...goodItem, tokens: [one16, one16] }] }, /tokens: 2 for 1/],
    [{ items: [{ ...goodItem, tokens: [new Uint8Array(15)] }] }, /tokens: need 16/],
    [{ items: [{ ...goodItem, slips: [one16, one16] }] }, /slips: 2 for 1/],
    [{ items: [{ ...goodItem, slips: [new Uint8Array(65)] }] }, /slips: at most 64/],
    [{ items: [{ ...goodItem, ttlS: 0 }] }, /ttlS/],
    [{ items: [{ ...goodItem, kind: 0 }] }, /kind: 0/],
    [{ items: [{ ...goodItem, kind: 256 }] }, /kind: 256/],
  ];
  for (const [changes, message] of bad) {
    assert.throws(
      () => parseRelay(request(changes), kinds),
      (error: unknown) => hasReason(error, 'BAD_FIELD') && message.test(error.message),
      String(message),
    );
  }
});

test('an item that cannot be taken is refused alone', () => {
  const items: Item[] = [
    goodItem,
    { ...goodItem, kind: 77 },
    { ...goodItem, kind: 4 },
    { ...goodItem, payload: new Uint8Array(512 * 1024 + 1) },
    { ...goodItem, ttlS: 2 ** 31 },
  ];
  const parsed = parseRelay(request({ items }), kinds);
  assert.deepEqual(
    parsed.items.map(({ refused }) => refused),
    [
      undefined,
      { reason: 'UNIMPLEMENTED', temporary: true },
      { reason: 'BAD_FIELD', temporary: false },
      { reason: 'TOO_LARGE', temporary: false },
      undefined,
    ],
  );
  assert.equal(parsed.items.at(-1)?.ttlMs, maxTtlS * 1000, 'a ttl beyond the bound is cut');
});

test('a peer cannot send notices: those a node makes for its own devices', () => {
  const items: Item[] = [{ ...goodItem, kind: RowKind.Notice }];
  const { items: parsed } = parseRelay(request({ lane: Lane.CONTROL, items }), acceptedKinds);
  assert.deepEqual(parsed[0]?.refused, { reason: 'UNIMPLEMENTED', temporary: true });
});

test('only rejects of rows that a reply settles are taken', () => {
  const reject = (seq: bigint, ridBytes = 32, reason = 'UNKNOWN_DEVICE') =>
    create(RelayRejectSchema, { seq, rid: new Uint8Array(ridBytes), reason, temporary: false });
  const taken = rejectsFromWire(
    [
      reject(3n),
      reject(4n),
      reject(9n),
      reject(10n),
      reject(5n, 31),
      reject(6n, 32, 'x'.repeat(99)),
    ],
    3,
    9,
  );
  assert.deepEqual(
    taken.map(({ seq, reason }) => [seq, reason.length]),
    [
      [4, 14],
      [9, 14],
      [6, 64],
    ],
  );
});
