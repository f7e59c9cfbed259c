/** What the ephemeral lane keeps for a reader that is slow, and for how long. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PushEvent, silentLog, systemClock, type Clock, type PushFrame } from '@quicprochat/proto';
import type { Connection, PushWriter } from '@quicprochat/proto/transport';
import { EphemeralLane, ephemeralLimits } from './ephemeral-lane.ts';

/** A lane whose stream opens when the test says so. */
function slowLane(): {
  readonly lane: EphemeralLane;
  readonly wait: (ms: number) => void;
  readonly open: () => Promise<void>;
  readonly end: () => Promise<readonly PushFrame[]>;
  readonly openAndEnd: () => Promise<readonly PushFrame[]>;
} {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, monotonic: () => nowMs };
  const frames: PushFrame[] = [];
  const gate = Promise.withResolvers<void>();
  const writer: PushWriter = {
    write: async (frame) => void frames.push(frame),
    close: async () => undefined,
  };
  const openPushStream = async (): Promise<PushWriter> => {
    await gate.promise;
    return writer;
  };
  const lane = new EphemeralLane({ openPushStream } as unknown as Connection, clock, silentLog);
  const running = lane.run(1);
  const open = async (): Promise<void> => {
    gate.resolve();
    await systemClock.sleep(0);
  };
  const end = async (): Promise<readonly PushFrame[]> => {
    lane.close();
    await running;
    return frames.slice(1);
  };
  return {
    ...{ lane, open, end },
    wait: (ms) => void (nowMs += ms),
    openAndEnd: () => {
      gate.resolve();
      return end();
    },
  };
}

const numbered = (n: number): Uint8Array => Uint8Array.of(n);

test('32 hints wait; typing never pushes anything out, and gives way to what lasts', async () => {
  const { lane, openAndEnd } = slowLane();
  for (let n = 0; n < 40; n += 1) lane.offer(PushEvent.Typing, numbered(n));
  lane.offer(PushEvent.KeyChange, numbered(100));
  lane.offer(PushEvent.DeviceChange, numbered(101));
  const frames = await openAndEnd();
  assert.equal(frames.length, ephemeralLimits.queued);
  assert.deepEqual(
    frames.map(({ payload }) => payload[0]),
    [...Array.from({ length: 30 }, (_, index) => index + 2), 100, 101],
  );
});

test('typing that waited for ten seconds is not sent, other hints are', async () => {
  const { lane, wait, openAndEnd } = slowLane();
  lane.offer(PushEvent.Typing, numbered(1));
  lane.offer(PushEvent.KeyChange, numbered(2));
  wait(ephemeralLimits.typingMs - 1);
  lane.offer(PushEvent.Typing, numbered(3));
  wait(1);
  const frames = await openAndEnd();
  assert.deepEqual(
    frames.map(({ payload }) => payload[0]),
    [2, 3],
  );
});

test('a flood of typing reaches a device at a bounded rate', async () => {
  const { lane, wait, open, end } = slowLane();
  await open();
  const { perSecond, burst } = ephemeralLimits.typing;
  for (let second = 0; second < 10; second += 1) {
    for (let n = 0; n < 1_000; n += 1) {
      lane.offer(PushEvent.Typing, numbered(n & 0xff));
      if (n % 32 === 31) await systemClock.sleep(0);
    }
    wait(1_000);
  }
  const { length } = await end();
  assert.ok(length > perSecond && length <= burst + 10 * perSecond, `${length}`);
});
