/** How copies are put into requests; what comes of them is looked at against a node: tests/client/outbox.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxAnonymousBatchBytes, maxBatchBytes, methods } from '@quicprochat/proto';
import {
  BatchEnqueueRequestSchema,
  create,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import type { OutboxEntry } from '../store/outbox-copies.ts';
import { Courier, type CourierSession } from './courier.ts';

/** Bytes of the batches in which a courier brings copies, and how many of them went alone. */
async function requests(
  entries: readonly OutboxEntry[],
  bytesMax?: number,
): Promise<{ readonly batches: readonly number[]; readonly singles: number }> {
  const batches: number[] = [];
  let singles = 0;
  const call = async (
    method: unknown,
    request: MessageInitShape<typeof BatchEnqueueRequestSchema>,
  ): Promise<unknown> => {
    const receipt = { outcome: 1, reason: '', receivedMs: 1n, proof: new Uint8Array(64) };
    if (method !== methods.batchEnqueue) {
      singles += 1;
      return receipt;
    }
    const message = create(BatchEnqueueRequestSchema, request);
    batches.push(toBinary(BatchEnqueueRequestSchema, message).length);
    return { statuses: message.targets.map(() => receipt) };
  };
  const session = { hello: { capabilities: ['batch'] }, call } as unknown as CourierSession;
  const courier = new Courier(session, bytesMax);
  await Promise.all(entries.map((entry) => courier.send(entry, new Uint8Array(16))));
  return { batches, singles };
}

function entryOf(id: number, device: number, bytes: number, domain: string): OutboxEntry {
  const rid = new Uint8Array(32);
  new DataView(rid.buffer).setUint32(0, device);
  const mid = new Uint8Array(16).fill(id);
  const rest = { messageId: undefined, createdMs: 0, tokenWaits: 0, post: undefined };
  return { id, rid, domain, mid, payload: new Uint8Array(bytes), ...rest };
}

test('a batch is no larger than the node takes it, of a caller without a login too', async () => {
  const entries = Array.from({ length: 32 }, (_, n) => entryOf(n, n % 8, 10_000, 'blue.example'));
  const named = await requests(entries);
  assert.equal(named.batches.length, 1);
  const unnamed = await requests(entries, maxAnonymousBatchBytes);
  assert.deepEqual([unnamed.batches.length, unnamed.singles], [2, 0]);
  for (const bytes of unnamed.batches) assert.ok(bytes <= maxAnonymousBatchBytes, `${bytes}`);
});

test('long names of domains count', async () => {
  const domain = `${'a'.repeat(63)}.${'b'.repeat(63)}.${'c'.repeat(63)}.example`;
  const payloads = Array.from({ length: 60 }, (_, n) => entryOf(n, n, 30_000, domain));
  const [first] = payloads;
  assert(first !== undefined);
  const others = Array.from({ length: 1_900 }, (_, n) => {
    const { rid } = entryOf(0, 60 + n, 0, domain);
    return { ...first, rid };
  });
  const { batches } = await requests([...payloads, ...others]);
  for (const bytes of batches) assert.ok(bytes <= maxBatchBytes, `${bytes}`);
});
