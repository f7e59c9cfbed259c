/** Copies that wait for a prekey: what a message with some of them counts as, how long they wait, and how many may. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SendState } from './message-rows.ts';
import { outboxBounds } from './outbox-bounds.ts';
import type { OutboxTarget } from './outbox-copies.ts';
import { openMemoryStore } from './sqlite-store.ts';
import type { ClientStore } from './store.ts';

const id = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);
const conversationId = id(32, 9);
const about = { kind: 'MESSAGE', groupId: conversationId, epoch: 1n } as const;
const own = { rid: id(32, 1), userId: 'alice@red.example', domain: 'red.example' };
const bob = { rid: id(32, 2), userId: 'bob@blue.example', domain: 'blue.example' };
const carol = { rid: id(32, 3), userId: 'carol@red.example', domain: 'red.example' };

/** A message of alice's with a copy that the node has for some devices, and one that waits for others. */
function sent(
  { messages, outbox }: ClientStore,
  to: { readonly sealed?: readonly OutboxTarget[]; readonly unsealed: readonly OutboxTarget[] },
  nowMs = 0,
): number {
  const n = messages.history(conversationId, 9_999).length + 1;
  const innerId = id(16, n % 256);
  innerId[0] = n >> 8;
  const messageId = messages.add({
    ...{ conversationId, senderUser: own.userId, senderDevice: 'device', innerId },
    ...{ n, lamport: n, text: 'text', sentMs: nowMs, receivedMs: undefined },
  });
  assert(messageId !== undefined);
  for (const target of to.sealed ?? []) {
    outbox.add({ mid: id(16, 1), payload: id(5, 1), targets: [target], messageId, about }, nowMs);
    const entry = outbox.next(Buffer.from(target.rid).toString('hex'), 0);
    assert(entry !== undefined);
    outbox.markAccepted(entry.id, id(8, 1), nowMs);
  }
  const unsealed = { mid: id(16, 2), targets: to.unsealed, messageId, about };
  outbox.addUnsealed(unsealed, 'NO_PREKEY', nowMs);
  return messageId;
}

test('a message has the state of the copies that others can be sent', () => {
  const cases: [Parameters<typeof sent>[1], SendState][] = [
    [{ unsealed: [bob] }, 'sealed'],
    // The own other device is nobody else.
    [{ sealed: [own], unsealed: [bob] }, 'sealed'],
    [{ sealed: [carol], unsealed: [bob] }, 'accepted'],
    [{ sealed: [bob], unsealed: [carol] }, 'accepted'],
  ];
  for (const [to, expected] of cases) {
    const store = openMemoryStore();
    const messageId = sent(store, to);
    assert.equal(store.messages.sendState(messageId), expected);
    const [message] = store.messages.history(conversationId, 1);
    assert.equal(message?.waitsForPrekey, true);
    store.outbox.markRelayed(id(16, 1), bob.rid);
    const isRelayed = to.sealed?.includes(bob) === true;
    assert.equal(store.messages.sendState(messageId), isRelayed ? 'relayed' : expected);
  }
});

test('nothing sends them, whichever way', () => {
  const store = openMemoryStore();
  const { outbox } = store;
  sent(store, { unsealed: [bob] });
  const target = Buffer.from(bob.rid).toString('hex');
  assert.deepEqual([outbox.openTargets(), outbox.next(target, 0)], [[], undefined]);
  for (const at of ['node', 'device'] as const) {
    assert.equal(outbox.undelivered(target, 0, at), undefined);
    assert.equal(outbox.undelivered(target, 0, at, 'green.example'), undefined);
  }
  for (const which of ['all', 'sealed'] as const) {
    assert.deepEqual(outbox.undeliveredTargets(0, which).targets, []);
  }
  assert.deepEqual([outbox.sendableCount(0), outbox.openCount()], [0, 1]);
});

test('all of a device are due together, and again when it is heard of; who has a prekey waits for something else', () => {
  const store = openMemoryStore();
  const { outbox } = store;
  const { prekeyWaitMinMs } = outboxBounds;
  sent(store, { unsealed: [bob] }, 0);
  sent(store, { unsealed: [bob, carol] }, 10);
  const due = (nowMs: number): string[] => outbox.prekeyWaits(nowMs).map(({ userId }) => userId);
  assert.deepEqual(due(prekeyWaitMinMs - 1), []);
  assert.deepEqual(due(prekeyWaitMinMs), [bob.userId]);
  assert.equal(outbox.prekeyWaits(prekeyWaitMinMs)[0]?.sinceMs, 0);
  outbox.postponePrekeyWaits(bob.rid, 9 * prekeyWaitMinMs, prekeyWaitMinMs);
  assert.deepEqual(due(2 * prekeyWaitMinMs), [carol.userId]);
  assert.equal(outbox.prekeyWaitsDue(bob.rid, 3 * prekeyWaitMinMs), 2);
  assert.deepEqual(due(3 * prekeyWaitMinMs), [bob.userId, carol.userId]);
  // What was heard of a device meanwhile is not put off.
  outbox.postponePrekeyWaits(bob.rid, 9 * prekeyWaitMinMs, 3 * prekeyWaitMinMs - 1);
  assert.deepEqual(due(3 * prekeyWaitMinMs), [bob.userId, carol.userId]);
});

test('they end after 30 days, and so does at once what is beyond the bound of a device', () => {
  const store = openMemoryStore();
  const { prekeyWaitsPerDevice, bytesKeptMs } = outboxBounds;
  for (let n = 0; n < prekeyWaitsPerDevice; n += 1) sent(store, { unsealed: [bob] }, n);
  const last = sent(store, { unsealed: [bob, carol] }, prekeyWaitsPerDevice);
  assert.deepEqual(
    store.outbox.failures().map(({ messageId, rid, failure }) => [messageId, rid, failure]),
    [[last, bob.rid, 'NO_PREKEY']],
  );
  assert.deepEqual(store.outbox.endPrekeyWaits(bob.rid, 'NO_PREKEY', bytesKeptMs - 1), []);
  assert.equal(store.outbox.endPrekeyWaits(bob.rid, 'NO_PREKEY', bytesKeptMs + 9).length, 10);
  assert.equal(store.outbox.failures().length, 11);
});
