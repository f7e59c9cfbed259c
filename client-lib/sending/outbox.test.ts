/** What an error of Enqueue means for a copy (the outbox against a node: tests/client/outbox.test.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  maxMessageBytes,
  PermissionDeniedError,
  ResourceExhaustedError,
  silentLog,
  systemClock,
  systemRandom,
  TransportError,
  UnauthenticatedError,
  UnavailableError,
  type Clock,
} from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import { Outbox } from './outbox.ts';
import { sealedTokenWaitMs, sealedVerdict, sendVerdict } from './send-verdict.ts';
import type { SealedReceipt } from './sealed-sender.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { LaterClock } from '../test-runtime.ts';
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
  // Whatever reason another node gives.
  const expired = new UnauthenticatedError('BAD_CREDENTIAL', 'log in');
  assert.equal(sealedVerdict(expired, 0), 'temporary');
  assert.equal(sealedVerdict(expired, sealedTokenWaitMs), 'temporary');
  assert.equal(sendVerdict(expired), 'expired');
});

test('a refusal is nothing to a copy that came to its device another way meanwhile', async () => {
  using store = openMemoryStore();
  const targets = [{ rid: new Uint8Array(32).fill(1), domain: 'blue.example' }];
  const [mid, payload] = [new Uint8Array(16), Uint8Array.of(1)];
  store.transaction(() => store.outbox.add({ mid, payload, targets, messageId: undefined }, 0));
  const events = new EventBus();
  const told: string[] = [];
  using _listening = events.listen(({ type }) => void told.push(type));
  const outbox = new Outbox({
    ...{ userId: 'a@red.example', store, events },
    runtime: { clock: systemClock, random: systemRandom, log: silentLog },
    proofs: { isProven: async () => false },
    onDueAgain: () => undefined,
  });
  const target = Buffer.from(targets[0]?.rid ?? []).toString('hex');
  const session = {
    signal: new AbortController().signal,
    hello: { capabilities: [] },
    call: async () => {
      const row = store.outbox.next(target, 0);
      assert(row !== undefined);
      outbox.delivered(row, 'direct');
      throw new PermissionDeniedError('PEER_DENIED', 'no peer');
    },
  };
  outbox.open(session as unknown as Session, new Uint8Array(8));
  try {
    await outbox.flush();
    assert.deepEqual(store.outbox.failures(), []);
    assert.deepEqual(told, []);
  } finally {
    outbox.close();
  }
});

for (const way of ['the own node', 'a sealed sender'] as const) {
  test(`a copy that ${way} cannot bring to its node is given up after 30 days, and none before`, async () => {
    using store = openMemoryStore();
    const clock = new LaterClock();
    const targets = [{ rid: new Uint8Array(32).fill(1), domain: 'gone.example' }];
    for (const n of [1, 2]) {
      const [mid, payload] = [new Uint8Array(16).fill(n), Uint8Array.of(n)];
      const entry = { mid, payload, targets, messageId: undefined };
      store.transaction(() => store.outbox.add(entry, clock.now()));
      if (n === 1) clock.advance(outboxBounds.bytesKeptMs);
    }
    const failures = (): string[] => store.outbox.failures().map(({ failure }) => failure);
    const events = new EventBus();
    const failed = Promise.withResolvers<void>();
    using _listening = events.listen(({ type }) => type === 'sendFailed' && failed.resolve());
    if (way === 'a sealed sender')
      store.tokens.put(targets[0]?.rid ?? new Uint8Array(0), new Uint8Array(16), true, 0);
    const refuse = (): never => {
      if (way === 'the own node') throw new UnavailableError('PEER_UNREACHABLE', 'away for weeks');
      throw new TransportError('timeout', 'nobody answers');
    };
    let tries = 0;
    const triedAgain = Promise.withResolvers<void>();
    const send = async (): Promise<never> => {
      tries += 1;
      if (failures().length > 0 && tries > 3) triedAgain.resolve();
      return refuse();
    };
    const ended = new AbortController();
    const outbox = new Outbox({
      ...{ userId: 'a@red.example', store, events },
      runtime: { clock, random: systemRandom, log: silentLog },
      proofs: { isProven: async () => false },
      onDueAgain: () => undefined,
      ...(way === 'the own node'
        ? {}
        : { sealed: { send, caller: () => Promise.reject(new Error('nobody asks')) } }),
    });
    const session = { signal: ended.signal, hello: { capabilities: [] }, call: send };
    outbox.open(session as unknown as Session, new Uint8Array(8));
    try {
      await failed.promise;
      await triedAgain.promise;
      assert.deepEqual(failures(), ['PEER_UNREACHABLE']);
      clock.advance(outboxBounds.bytesKeptMs);
      await outbox.flush();
      assert.deepEqual(failures(), ['PEER_UNREACHABLE', 'PEER_UNREACHABLE']);
    } finally {
      ended.abort();
      outbox.close();
    }
  });
}

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
    onDueAgain: () => undefined,
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

test('a node that refuses every token and names another one each time makes a copy rest all the same', async () => {
  using store = openMemoryStore();
  const rid = new Uint8Array(32).fill(1);
  const tokenOf = (index: number): Uint8Array => new Uint8Array(16).fill(index);
  store.transaction(() => {
    const targets = [{ rid, domain: 'blue.example' }];
    const [mid, payload] = [new Uint8Array(16), Uint8Array.of(1)];
    store.outbox.add({ mid, payload, targets, messageId: undefined }, systemClock.now());
    store.tokens.put(rid, tokenOf(0), true, 0);
  });
  const tried: number[] = [];
  const rests = Promise.withResolvers<void>();
  const clock: Clock = {
    ...systemClock,
    // It rests for ever.
    sleep: () => {
      rests.resolve();
      return new Promise<void>(() => undefined);
    },
  };
  const outbox = new Outbox({
    ...{ userId: 'a@red.example', store, events: new EventBus() },
    runtime: { clock, random: systemRandom, log: silentLog },
    proofs: { isProven: async () => false },
    sealed: {
      caller: async () => ({
        call: () => Promise.reject(new Error('nobody asks')),
        clientSpki: new Uint8Array(32),
        nodeSpki: new Uint8Array(32),
      }),
      async send(_entry: OutboxEntry, token: Uint8Array): Promise<SealedReceipt> {
        tried.push(token[0] ?? 0);
        throw new PermissionDeniedError('BLOCKED', 'not this one');
      },
    },
    renew: async (_at, of, token) => {
      store.transaction(() => store.tokens.put(of, tokenOf((token[0] ?? 0) + 1), false, 0));
      return true;
    },
    onDueAgain: () => undefined,
  });
  const session = { signal: new AbortController().signal, hello: { capabilities: [] } };
  outbox.open(session as unknown as Session, new Uint8Array(8));
  try {
    await rests.promise;
    assert.deepEqual(tried, [0, 1, 2]);
  } finally {
    outbox.close();
  }
});

test('a Welcome that is larger than any node takes without a login goes to the own node, and alone', async () => {
  using store = openMemoryStore();
  const rid = new Uint8Array(32).fill(1);
  const sizes = [maxMessageBytes, maxMessageBytes, maxMessageBytes + 1, 1];
  store.transaction(() => {
    store.tokens.put(rid, new Uint8Array(16), true, 0);
    for (const [index, size] of sizes.entries()) {
      const targets = [{ rid, domain: 'blue.example' }];
      const [mid, payload] = [new Uint8Array(16).fill(index), new Uint8Array(size)];
      store.outbox.add({ mid, payload, targets, messageId: undefined }, systemClock.now());
    }
  });
  const ways: string[] = [];
  const ok = { outcome: Outcome.STORED, proof: new Uint8Array(64), receivedMs: 1n };
  const caller = {
    call: () => Promise.reject(new Error('nobody asks')),
    clientSpki: new Uint8Array(32),
    nodeSpki: new Uint8Array(32),
  };
  const outbox = new Outbox({
    ...{ userId: 'a@red.example', store, events: new EventBus() },
    runtime: { clock: systemClock, random: systemRandom, log: silentLog },
    proofs: { isProven: async () => true },
    sealed: {
      caller: async () => caller,
      async send({ payload }: OutboxEntry): Promise<SealedReceipt> {
        ways.push(`sealed ${payload.length}`);
        return { ...ok, caller };
      },
    },
    onDueAgain: () => undefined,
  });
  const session = {
    signal: new AbortController().signal,
    hello: { capabilities: [] },
    async call(_method: unknown, { payload }: { readonly payload: Uint8Array }) {
      ways.push(`named ${payload.length}`);
      return ok;
    },
  };
  outbox.open(session as unknown as Session, new Uint8Array(8));
  await outbox.flush();
  outbox.close();
  const expected = ['sealed 81920', 'sealed 81920', 'named 81921', 'sealed 1'];
  assert.deepEqual(ways, expected);
});
