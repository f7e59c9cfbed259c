/** What a node says about its clock when peers have another time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnavailableError, type Clock, type LogFields } from '@quicprochat/proto';
import type { LinkSession } from '@quicprochat/federation';
import { clockLimits, PeerClocks } from './peer-clocks.ts';

const nowMs = Date.UTC(2026, 0, 1);

/** What is told of a peer that answers with these times, one after the other, 5 s after it was asked. */
async function told(times: readonly (number | undefined)[]): Promise<readonly unknown[]> {
  const lines: unknown[] = [];
  const ended = new AbortController();
  const answers = [...times];
  let readMs = nowMs;
  const clock = {
    now: () => readMs,
    sleep: async (ms: number) => {
      assert.equal(ms, clockLimits.everyMs);
      if (answers.length === 0) ended.abort();
    },
  } as Pick<Clock, 'now' | 'sleep'> as Clock;
  const warn = (event: string, fields?: LogFields): void => void lines.push([event, fields]);
  const log = { debug() {}, info() {}, error() {}, warn };
  const session = {
    signal: ended.signal,
    call: async () => {
      readMs = nowMs + 5_000;
      const serverTimeMs = answers.shift();
      if (serverTimeMs === undefined) throw new UnavailableError('DISCONNECTED', 'gone');
      return { serverTimeMs: BigInt(serverTimeMs) };
    },
  } as unknown as LinkSession;
  const clocks = new PeerClocks({ clock, log });
  assert.equal(clocks.hasWork(), false);
  await clocks.serve('blue.example', session);
  return lines;
}

test('a clock that is a minute off is told with the peer and by how much', async () => {
  const line = (aheadMs: number) => [
    ['clock differs from that of a peer', { peer: 'blue.example', aheadMs }],
  ];
  assert.deepEqual(await told([nowMs - 61_000]), line(61_000));
  assert.deepEqual(await told([nowMs + 5_000 + 61_000]), line(-61_000));
});

test('a minute or less, the time that an answer takes, and a peer that says nothing are not', async () => {
  const times = [nowMs - 60_000, nowMs, nowMs + 2_500, nowMs + 5_000, nowMs + 65_000];
  for (const time of times) assert.deepEqual(await told([time]), []);
  assert.deepEqual(await told([undefined]), []);
});
