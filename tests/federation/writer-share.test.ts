/**
 * The share of the writer that all peers get, when they ask for more: what a peer was granted is taken and
 * owed, what goes beyond is refused, and a refusal keeps nothing waiting that stands behind it.
 */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { hasReason, silentLog } from '@quicprochat/proto';
import { create, FedRelayRequestSchema, Lane } from '@quicprochat/proto/messages';
import { RelayInbox } from '@quicprochat/federation';
import { SimulatedClock } from '../simulated-clock.ts';
import { MemoryStream } from './memory-stream.ts';
import { seededRandom } from './sim-node.ts';

/** An inbox whose writer takes a millisecond for each row. */
function slowInbox() {
  const clock = new SimulatedClock();
  const random = seededRandom(1);
  const store = new MemoryStream(random);
  const apply = store.applyRelay.bind(store);
  store.applyRelay = async (peer, batch) => {
    await clock.sleep(batch.items.length);
    return apply(peer, batch);
  };
  const inbox = new RelayInbox({ store, runtime: { clock, random, log: silentLog } });
  let made = 0;
  /** The reply, or the reason of the refusal. */
  const relay = async (firstSeq: number, items: number) => {
    const request = create(FedRelayRequestSchema, {
      lane: Lane.BULK,
      streamId: new Uint8Array(16).fill(5),
      firstSeq: BigInt(firstSeq),
      items: Array.from({ length: items }, () => {
        made += 1;
        const mid = new Uint8Array(16);
        new DataView(mid.buffer).setUint32(0, made);
        const payload = new TextEncoder().encode(`row ${made}`);
        return { kind: 1, mid, payload, rids: [new Uint8Array(32)], ttlS: 60 };
      }),
    });
    try {
      return await inbox.relay('red.example', request);
    } catch (error) {
      if (!hasReason(error, 'OVERLOADED', 'STREAM_GAP')) throw error;
      return error.reason;
    }
  };
  inbox.credit('red.example', 'bulk');
  return { clock, store, relay };
}

test('what a peer was granted is taken, also when the share is used up meanwhile', async () => {
  const { clock, store, relay } = slowInbox();
  let nextSeq = 1;
  const send = async (items: number) => {
    const reply = relay(nextSeq, items);
    nextSeq += items;
    await clock.advance(items);
    return reply;
  };
  for (const items of [64, 128, 256, 256]) {
    const reply = await send(items);
    assert.notEqual(typeof reply, 'string');
    await clock.advance(2_000);
  }
  // Four batches under way, as a sender does: each of them is more than a second's worth of the share.
  const window = Array.from({ length: 4 }, (_, index) => relay(nextSeq + 256 * index, 256));
  await clock.advance(1_024);
  const replies = await Promise.all(window);
  for (const reply of replies) assert.notEqual(typeof reply, 'string');
  assert.equal(store.received.length, 64 + 128 + 2 * 256 + 1_024);
  const last = replies.at(-1);
  assert.ok(typeof last !== 'string' && Number(last?.retryAfterMs) > 0, 'it is owed');
  nextSeq += 1_024;
  // Who does not wait is refused when as much again is owed, and what overtook that batch is not kept for
  // three seconds.
  assert.notEqual(typeof (await send(256)), 'string');
  const overtaking = relay(nextSeq + 256, 1);
  assert.equal(await relay(nextSeq, 256), 'OVERLOADED');
  assert.equal(await overtaking, 'STREAM_GAP');
  await clock.advance(2_000);
  assert.notEqual(typeof (await send(256)), 'string');
});
