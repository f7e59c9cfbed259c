/** How channels are asked for at a node: each comes first in turn, and a node that refuses all is left alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DataLossError,
  hex,
  methods,
  silentLog,
  systemClock,
  systemRandom,
  type Clock,
} from '@quicprochat/proto';
import {
  create,
  FetchWaitResponseSchema,
  type FetchWaitRequestSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { ChannelSync } from './channel-sync.ts';
import type { Session } from '../link.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';

type Asked = MessageInitShape<typeof FetchWaitRequestSchema>;

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
  const unexpected = () => Promise.reject(new Error('no row came'));
  const sync = new ChannelSync({
    store,
    runtime: { clock, random: systemRandom, log: silentLog },
    receiver: { receive: unexpected, passGap: unexpected, passLost: unexpected },
    onRowsLost: async () => void (losses += 1),
    onStuck: () => undefined,
    isPolling: () => false,
  });
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
