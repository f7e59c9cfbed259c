/**
 * How channels are asked for at a node: each comes first in turn, a node that refuses all is left alone, and
 * what is taken in is acked.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DataLossError,
  hex,
  methods,
  NotFoundError,
  ResourceExhaustedError,
  sameBytes,
  silentLog,
  systemClock,
  systemRandom,
  UnavailableError,
  type Clock,
  type Timer,
} from '@quicprochat/proto';
import {
  AckResponseSchema,
  create,
  FetchResponseSchema,
  FetchWaitResponseSchema,
  type AckRequestSchema,
  type FetchRequestSchema,
  type FetchWaitRequestSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { ChannelSync, channelSyncLimits, type ChannelSyncParts } from './channel-sync.ts';
import type { Session } from '../session.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import type { ClientStore } from '../store/store.ts';

type Asked = MessageInitShape<typeof FetchWaitRequestSchema>;

/** Time that goes by only where somebody sleeps. */
class SleptClock implements Clock {
  nowMs = 0;
  now(): number {
    return this.nowMs;
  }
  monotonic(): number {
    return this.nowMs;
  }
  timer(ms: number, callback: () => void): Timer {
    return systemClock.timer(ms, callback);
  }
  async sleep(ms: number): Promise<void> {
    this.nowMs += ms;
  }
}

/** Of a device that no row comes to. */
function syncOf(
  store: ClientStore,
  clock: Clock,
  parts: Pick<ChannelSyncParts, 'onRowsLost' | 'onStuck'>,
): ChannelSync {
  const unexpected = () => Promise.reject(new Error('no row came'));
  const receiver = { receive: unexpected, passGap: unexpected, passLost: unexpected };
  const runtime = { clock, random: systemRandom, log: silentLog };
  return new ChannelSync({ store, runtime, receiver, isPolling: () => false, ...parts });
}

/** Follows `count` channels; `answer` is the node's to each FetchWait. Returns how often the device rested. */
async function follow(count: number, answer: (asked: Asked, end: () => void) => void) {
  const store = openMemoryStore();
  store.transaction(() => {
    for (let n = 0; n < count; n += 1) {
      store.channels.follow(systemRandom.bytes(32), systemRandom.bytes(32), n);
    }
  });
  let [rests, losses] = [0, 0];
  const clock: Clock = {
    now: () => systemClock.now(),
    monotonic: () => systemClock.monotonic(),
    timer: (ms, callback) => systemClock.timer(ms, callback),
    sleep: async () => void (rests += 1),
  };
  const onRowsLost = async () => void (losses += 1);
  const sync = syncOf(store, clock, { onRowsLost, onStuck: () => undefined });
  const ended = new AbortController();
  const session = {
    signal: ended.signal,
    async call(method: unknown, request: unknown) {
      assert.equal(method, methods.fetchWait);
      answer(request as Asked, () => ended.abort());
      return create(FetchWaitResponseSchema, {});
    },
  };
  await sync.follow(session as unknown as Session);
  return { rests, losses };
}

test('the channel that is asked for first is another one each time, so that a loud one stops no other', async () => {
  const first: string[] = [];
  await follow(3, ({ cursors = [] }, end) => {
    assert.equal(cursors.length, 3);
    first.push(hex(cursors[0]?.log?.cid ?? new Uint8Array(0)));
    if (first.length === 6) end();
  });
  assert.equal(new Set(first.slice(0, 3)).size, 3);
  assert.deepEqual(first.slice(3), first.slice(0, 3));
});

test('a node that refuses even the start of a log is asked after rests, and nobody is asked for what was lost', async () => {
  let asked = 0;
  const { rests, losses } = await follow(2, (_, end) => {
    asked += 1;
    if (asked === 5) end();
    throw new DataLossError('STORE_CHANGED', 'another one, as ever');
  });
  assert.deepEqual([asked, rests, losses], [5, 4, 0]);
});

/** A node with one channel of two rows that loses so many acks; resolves with the acks that it heard of. */
async function acksAt(lost: number, lives: number): Promise<{ heard: number[]; acked: number }> {
  const store = openMemoryStore();
  const [cid, storeId] = [systemRandom.bytes(32), systemRandom.bytes(8)];
  store.transaction(() => store.channels.follow(systemRandom.bytes(32), cid, 0));
  const heard: number[] = [];
  let acked = 0;
  let left = lost;
  for (let life = 0; life < lives; life += 1) {
    const ended = new AbortController();
    const fetched = (after: bigint, maxRows: number) => ({
      storeId,
      head: 2n,
      acked: BigInt(acked),
      rows: [1n, 2n]
        .filter((seq) => seq > after)
        .slice(0, maxRows)
        .map((seq) => ({ seq, mid: new Uint8Array(16), kind: 1, payload: new Uint8Array(1) })),
    });
    let questions = 0;
    const session = {
      signal: ended.signal,
      async call(method: unknown, request: unknown): Promise<unknown> {
        if (method === methods.ack) {
          const { upTo = 0n } = request as MessageInitShape<typeof AckRequestSchema>;
          heard.push(Number(upTo));
          if ((left -= 1) >= 0) {
            // The second one breaks the connection with it.
            if (heard.length === 2) ended.abort();
            throw new UnavailableError('DISCONNECTED', 'lost');
          }
          acked = Number(upTo);
          return create(AckResponseSchema, {});
        }
        if (method === methods.fetch) {
          const { after = 0n } = request as MessageInitShape<typeof FetchRequestSchema>;
          return create(FetchResponseSchema, fetched(after, 1));
        }
        const { cursors = [] } = request as Asked;
        questions += 1;
        if (questions === 3) ended.abort();
        const { rows, ...rest } = fetched(cursors[0]?.after ?? 0n, 8);
        return create(FetchWaitResponseSchema, {
          logs: rows.length === 0 ? [] : [{ log: { cid }, fetched: { ...rest, rows } }],
        });
      },
    };
    const clock: Clock = {
      now: () => systemClock.now(),
      monotonic: () => systemClock.monotonic(),
      timer: (ms, callback) => systemClock.timer(ms, callback),
      sleep: async () => undefined,
    };
    const receiver = {
      async receive({ seq }: { seq: number }) {
        store.transaction(() => store.inbox.putCursor(cid, { storeId, seq }));
      },
      passGap: () => Promise.reject(new Error('no gap')),
      passLost: () => Promise.reject(new Error('nothing is lost')),
    };
    const sync = new ChannelSync({
      store,
      runtime: { clock, random: systemRandom, log: silentLog },
      receiver,
      onRowsLost: () => Promise.reject(new Error('nothing is lost')),
      onStuck: () => undefined,
      isPolling: () => false,
    });
    await sync.follow(session as unknown as Session);
  }
  return { heard, acked };
}

test('an ack that came to nothing is sent again though no row comes, in this life and the next', async () => {
  assert.deepEqual(await acksAt(0, 2), { heard: [2], acked: 2 });
  assert.deepEqual(await acksAt(1, 1), { heard: [2, 2], acked: 2 });
  assert.deepEqual(await acksAt(2, 2), { heard: [2, 2, 2], acked: 2 });
});

/** A channel that was left unseen, at a node that hears of it after so long (ms): what is taken, and how long it is asked for. */
async function leftUnseen(heardMs: number): Promise<{ taken: number[]; askedMs: number }> {
  const store = openMemoryStore();
  const [groupId, cid, storeId] = [32, 32, 8].map((bytes) => systemRandom.bytes(bytes));
  assert(groupId !== undefined && cid !== undefined && storeId !== undefined);
  let nowMs = 1_000_000_000;
  store.transaction(() => {
    store.channels.follow(groupId, cid, nowMs);
    store.channels.follow(groupId, undefined, nowMs);
  });
  const clock: Clock = {
    now: () => nowMs,
    monotonic: () => nowMs,
    timer: (ms, callback) => systemClock.timer(ms, callback),
    sleep: async (ms) => void (nowMs += ms),
  };
  const taken: number[] = [];
  const sync = new ChannelSync({
    store,
    runtime: { clock, random: systemRandom, log: silentLog },
    receiver: {
      async receive({ seq }: { seq: number }) {
        taken.push(seq);
        store.transaction(() => store.inbox.putCursor(cid, { storeId, seq }));
      },
      passGap: () => Promise.reject(new Error('no gap')),
      passLost: () => Promise.reject(new Error('nothing is lost')),
    },
    onRowsLost: () => Promise.reject(new Error('nothing is lost')),
    onStuck: () => assert.fail('nobody needs another one'),
    isPolling: () => false,
  });
  const startMs = nowMs;
  const ended = new AbortController();
  const session = {
    signal: ended.signal,
    async call(method: unknown): Promise<unknown> {
      if (method === methods.ack) return create(AckResponseSchema, {});
      const isKnown = nowMs - startMs > heardMs;
      if (!isKnown || taken.length > 0) {
        throw new NotFoundError('UNKNOWN_CHANNEL', 'not here', { details: cid });
      }
      const row = { seq: 1n, mid: new Uint8Array(16), kind: 1, payload: new Uint8Array(1) };
      const fetched = { storeId, head: 1n, acked: 0n, rows: [row] };
      return create(FetchWaitResponseSchema, { logs: [{ log: { cid }, fetched }] });
    },
  };
  const following = sync.follow(session as unknown as Session);
  while (store.channels.get(cid) !== undefined) {
    assert(nowMs - startMs < 2 * channelSyncLimits.lateMs);
    await systemClock.sleep(1);
  }
  const askedMs = nowMs - startMs;
  ended.abort();
  sync.wake();
  await following;
  return { taken, askedMs };
}

test('a channel that the group left before its node heard of it is read when it does, for a day', async () => {
  const { lateMs, lateRestMs } = channelSyncLimits;
  const heard = await leftUnseen(3 * 3_600_000);
  assert.deepEqual(heard.taken, [1]);
  assert(heard.askedMs < lateMs);
  const unheard = await leftUnseen(Number.POSITIVE_INFINITY);
  assert.deepEqual(unheard.taken, []);
  assert(unheard.askedMs > lateMs && unheard.askedMs <= lateMs + lateRestMs);
});

test('what is said in a channel that a node has no room to show is asked for, less and less often, until it has', async () => {
  const store = openMemoryStore();
  const [groupId, crowded, other] = [32, 32, 32].map((bytes) => systemRandom.bytes(bytes));
  assert(groupId !== undefined && crowded !== undefined && other !== undefined);
  store.transaction(() => {
    store.channels.follow(groupId, crowded, 0);
    store.channels.follow(systemRandom.bytes(32), other, 0);
  });
  const { crowdedMinMs, crowdedMaxMs } = channelSyncLimits;
  let shown = 0;
  const asked: number[] = [];
  const stuck: number[] = [];
  const clock = new SleptClock();
  const sync = syncOf(store, clock, {
    onRowsLost: async (of) => {
      assert.deepEqual(of, groupId);
      asked.push(clock.nowMs);
    },
    onStuck: (of) => {
      assert.deepEqual(of, groupId);
      stuck.push(clock.nowMs);
    },
  });
  const roomMs = 5 * crowdedMaxMs;
  const ended = new AbortController();
  const session = {
    signal: ended.signal,
    async call(_: unknown, { cursors = [] }: Asked): Promise<unknown> {
      assert(shown < 100_000, 'it never ends');
      const isAsked = cursors.some(({ log }) => sameBytes(log?.cid ?? crowded, crowded));
      const details = isAsked ? crowded : undefined;
      if (details !== undefined && clock.nowMs < roomMs) {
        throw new ResourceExhaustedError('QUOTA', 'too many', { details });
      }
      if (details !== undefined) {
        if (stuck.length === 2) ended.abort();
        throw new NotFoundError('UNKNOWN_CHANNEL', 'not here', { details });
      }
      shown += 1;
      clock.nowMs += 1_000;
      return create(FetchWaitResponseSchema, {});
    },
  };
  await sync.follow(session as unknown as Session);
  const waits = asked.slice(1).map((ms, index) => (ms - (asked[index] ?? 0)) / crowdedMinMs);
  assert.deepEqual(asked[0], 0);
  // Each as long as it has to be, and at most a rest of the channel more.
  for (const [index, wait] of waits.entries()) {
    const leastMs = Math.min(crowdedMaxMs, crowdedMinMs * 2 ** index);
    assert(wait * crowdedMinMs >= leastMs && wait * crowdedMinMs < leastMs + 62_000, waits.join());
  }
  assert(waits.length >= 9, 'hourly in the end');
  assert(shown > 1_000, 'the other channel is read all the time');
  assert(stuck.every((ms) => ms >= roomMs) && stuck.length > 0);
});

for (const end of ['is left', 'is shown after all', 'is shown after a restart'] as const) {
  test(`what was said in a channel without room since members were asked last is asked for once when it ${end}`, async () => {
    const store = openMemoryStore();
    const [groupId, crowded, next] = [32, 32, 32].map((bytes) => systemRandom.bytes(bytes));
    assert(groupId !== undefined && crowded !== undefined && next !== undefined);
    store.transaction(() => store.channels.follow(groupId, crowded, 0));
    let asked = 0;
    let askedBefore: number | undefined;
    const clock = new SleptClock();
    const endMs = 3 * channelSyncLimits.crowdedMinMs;
    const isOver = (): boolean => clock.nowMs > endMs + 2 * channelSyncLimits.lateMs;
    while (!isOver()) {
      const sync = syncOf(store, clock, {
        onRowsLost: async () => void (asked += 1),
        onStuck: () => assert.fail('it has no room'),
      });
      const ended = new AbortController();
      const session = {
        signal: ended.signal,
        async call(_: unknown, { cursors = [] }: Asked): Promise<unknown> {
          const isAsked = cursors.some(({ log }) => sameBytes(log?.cid ?? crowded, crowded));
          if (askedBefore === undefined && clock.nowMs >= endMs) {
            askedBefore = asked;
            if (end === 'is left')
              store.transaction(() => store.channels.follow(groupId, next, clock.nowMs));
            if (end === 'is shown after a restart') {
              ended.abort();
              throw new UnavailableError('DISCONNECTED', 'lost');
            }
          }
          const isShown = askedBefore !== undefined && end !== 'is left';
          if (isAsked && !isShown) {
            throw new ResourceExhaustedError('QUOTA', 'too many', { details: crowded });
          }
          clock.nowMs += 60_000;
          if (isOver()) ended.abort();
          return create(FetchWaitResponseSchema, {});
        },
      };
      await sync.follow(session as unknown as Session);
    }
    assert.equal(asked, (askedBefore ?? 0) + 1);
  });
}

test('a gap at which the device dies is told again, until it has what it asks for on its disk', async () => {
  const store = openMemoryStore();
  const [cid, storeId] = [systemRandom.bytes(32), systemRandom.bytes(8)];
  const seqAt = (): number => store.inbox.cursor(cid)?.seq ?? 0;
  store.transaction(() => {
    store.channels.follow(systemRandom.bytes(32), cid, 0);
    store.inbox.putCursor(cid, { storeId, seq: 0 });
  });
  const seqs: number[] = [];
  for (const dies of [true, true, false]) {
    const ended = new AbortController();
    const session = {
      signal: ended.signal,
      async call(method: unknown, request: unknown): Promise<unknown> {
        if (method === methods.fetch) return create(FetchResponseSchema, { storeId });
        if (method === methods.ack) return create(AckResponseSchema, {});
        const { cursors = [] } = request as Asked;
        if (cursors[0]?.after === 7n) ended.abort();
        const fetched = { storeId, gap: { from: 1n, to: 7n }, head: 7n };
        const logs = ended.signal.aborted ? [] : [{ log: { cid }, fetched }];
        return create(FetchWaitResponseSchema, { logs });
      },
    };
    const sync = new ChannelSync({
      store,
      runtime: { clock: new SleptClock(), random: systemRandom, log: silentLog },
      receiver: {
        receive: () => Promise.reject(new Error('no row came')),
        async passGap(_from, to) {
          store.transaction(() => store.inbox.putCursor(cid, { storeId, seq: to }));
        },
        passLost: () => Promise.reject(new Error('nothing is lost')),
      },
      async onRowsLost() {
        seqs.push(seqAt());
        if (!dies) return;
        ended.abort();
        throw new Error('the process dies here');
      },
      onStuck: () => undefined,
      isPolling: () => false,
    });
    await sync.follow(session as unknown as Session);
    assert.equal(seqAt(), dies ? 0 : 7);
  }
  assert.deepEqual(seqs, [0, 0, 0]);
});
