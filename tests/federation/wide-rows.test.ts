/**
 * Rows for many devices: what they cost a peer counts by the device, and what is refused of them fits into a
 * reply. One such row may name 2 048 devices, so counting rows alone would bound nothing.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason } from '@quicprochat/proto';
import {
  create,
  FedRelayRequestSchema,
  FedRelayResponseSchema,
  Lane,
  toBinary,
} from '@quicprochat/proto/messages';
import { makePair, type Pair } from './pair.ts';

const MiB = 1024 ** 2;

function device(number: number): Uint8Array {
  const rid = new Uint8Array(32).fill(0xee);
  new DataView(rid.buffer).setUint32(0, number);
  return rid;
}
const devices = (count: number): Uint8Array[] =>
  Array.from({ length: count }, (_, number) => device(number));

/** Red's batch of wide rows, straight into blue. */
function relay(
  { blue }: Pair,
  firstSeq: number,
  items: readonly (readonly Uint8Array[])[],
  acked = 0,
) {
  const request = create(FedRelayRequestSchema, {
    lane: Lane.BULK,
    streamId: new Uint8Array(16).fill(5),
    acked: BigInt(acked),
    firstSeq: BigInt(firstSeq),
    items: items.map((rids, index) => {
      const mid = new Uint8Array(16);
      new DataView(mid.buffer).setUint32(0, firstSeq + index);
      return { kind: 1, mid, payload: mid, rids: [...rids], ttlS: 60 };
    }),
  });
  return blue.federation.relay('red.example', request);
}

test('a batch for too many devices together is refused before anything is written', async () => {
  await using pair = await makePair();
  const { commits } = await pair.blue.store.storeMark();
  const wide = devices(2_048);
  const sent = relay(pair, 1, [wide, wide, wide, wide, [device(0)]]);
  await assert.rejects(sent, (error) => hasReason(error, 'BAD_FIELD'));
  assert.equal((await pair.blue.store.storeMark()).commits, commits);
});

test('a flood of rows for the same devices is held at the ceiling like any other', async () => {
  await using pair = await makePair({ ceilings: { itemsPerSecond: 100 } });
  const { blue, clock } = pair;
  const wide = Array.from({ length: 512 }, () => blue.rid);
  let nextSeq = 1;
  for (let tenth = 0; tenth < 30; tenth += 1) {
    for (let again = 0; again < 2; again += 1) {
      const isTaken = await relay(pair, nextSeq, [wide]).then(
        () => true,
        (error: unknown) => {
          if (hasReason(error, 'OVERLOADED')) return false;
          throw error;
        },
      );
      if (isTaken) nextSeq += 1;
    }
    await clock.advance(100);
  }
  // Each is worth 64 items: 3 s at 100 items/s, a second's worth at the begin, and the debt of the last one.
  const most = Math.ceil((3 * 100 + 100) / 64) + 1;
  assert.ok(nextSeq - 1 <= most && nextSeq > 3, `${nextSeq - 1} of 60 were taken, at most ${most}`);
});

test('verdicts that are not settled are bounded, and fit into a reply', async () => {
  const ceilings = { itemsPerSecond: 1e9, recipientsPerMinute: 1e9, rejectPercent: 100 };
  await using pair = await makePair({ ceilings });
  const wide = devices(2_048);
  for (const firstSeq of [1, 5]) {
    const reply = await relay(pair, firstSeq, [wide, wide, wide, wide]);
    const { length } = toBinary(FedRelayResponseSchema, create(FedRelayResponseSchema, reply));
    assert.ok(length <= MiB, `${length} bytes`);
  }
  await assert.rejects(relay(pair, 9, [wide]), (error) => hasReason(error, 'OVERLOADED'));
  // What it has heard of makes room.
  assert.equal((await relay(pair, 9, [wide], 4)).cursor, 9n);
});
