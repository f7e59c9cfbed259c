/** What an error of Enqueue means for a copy (the outbox against a node: tests/client/outbox.test.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  PermissionDeniedError,
  ResourceExhaustedError,
  silentLog,
  systemClock,
  systemRandom,
  TransportError,
  UnauthenticatedError,
} from '@quicprochat/proto';
import { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import { Outbox } from './outbox.ts';
import { sealedTokenWaitMs, sealedVerdict, sendVerdict } from './send-verdict.ts';
import type { SealedReceipt } from './sealed-sender.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';

test('a full inbox is for good where the node names no time', () => {
  const full = (options = {}): Error => new ResourceExhaustedError('QUEUE_FULL', 'full', options);
  assert.equal(sendVerdict(full()), 'permanent');
  assert.equal(sendVerdict(full({ retryAfterMs: 10_000 })), 'temporary');
  assert.equal(sendVerdict(new ResourceExhaustedError('QUOTA', 'enough')), 'temporary');
});

test('a copy of a sealed sender waits a day for a token, and never ends the session', () => {
  const blocked = new PermissionDeniedError('BLOCKED', 'no valid token');
  const unknown = new UnauthenticatedError('NOT_LOGGED_IN', 'who are you');
  for (const error of [blocked, unknown]) {
    assert.equal(sealedVerdict(error, 0), 'temporary');
    assert.equal(sealedVerdict(error, sealedTokenWaitMs), 'permanent');
  }
  assert.equal(sendVerdict(blocked), 'permanent');
  assert.equal(sendVerdict(unknown), 'expired');
  assert.equal(sealedVerdict(new TransportError('closed', 'gone'), 0), 'disconnected');
});

test('the node of one recipient does not stop what goes to others', async () => {
  using store = openMemoryStore();
  const [first, second] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  store.transaction(() => {
    for (const [index, rid] of [first, second].entries()) {
      const [mid, payload] = [new Uint8Array(16).fill(index), Uint8Array.of(index)];
      const targets = [{ rid, domain: 'blue.example' }];
      store.outbox.add({ mid, payload, targets, messageId: undefined }, 0);
      store.tokens.put(rid, new Uint8Array(16), true, 0);
    }
  });
  const sent = new Map<string, number>();
  const sealed = {
    caller: () => Promise.reject(new Error('nobody asks')),
    async send({ rid }: OutboxEntry): Promise<SealedReceipt> {
      const key = String(rid[0]);
      sent.set(key, (sent.get(key) ?? 0) + 1);
      const retryAfterMs = Number.MAX_SAFE_INTEGER;
      throw new ResourceExhaustedError('RATE_LIMITED', 'wait for ever', { retryAfterMs });
    },
  };
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const ended = new AbortController();
  const outbox = new Outbox({
    ...{ userId: 'a@red.example', sealed, store, runtime, events: new EventBus() },
    proofs: { isProven: async () => false },
    onOvertaken: () => undefined,
  });
  outbox.open(
    {
      signal: ended.signal,
      hello: { capabilities: [] },
    } as unknown as Session,
    new Uint8Array(8),
  );
  try {
    const untilMs = systemClock.monotonic() + 5_000;
    while ((sent.get('1') ?? 0) < 2 || (sent.get('2') ?? 0) < 2) {
      assert.ok(systemClock.monotonic() < untilMs, 'both are tried again');
      await systemClock.sleep(20);
    }
  } finally {
    outbox.close();
    ended.abort();
  }
});
