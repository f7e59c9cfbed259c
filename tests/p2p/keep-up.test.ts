/** What shall be up for ever: tried again for ever, spread over time, and at once when asked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeepUp, keepUpLimits } from '@quicprochat/p2p/keep-up';
import { SimulatedClock } from '../simulated-clock.ts';

/** Jitter always waits as long as it may. */
const slowest = { bytes: (length: number) => new Uint8Array(length).fill(0xff) };

function kept(clock: SimulatedClock) {
  const state = { isUp: false, works: false, tries: 0, waits: [] as number[], lastMs: 0 };
  const keep = new KeepUp({
    runtime: { clock, random: slowest },
    connect: () => {
      state.tries += 1;
      state.waits.push(clock.monotonic() - state.lastMs);
      state.lastMs = clock.monotonic();
      if (!state.works) return Promise.reject(new Error('nobody there'));
      state.isUp = true;
      return Promise.resolve();
    },
    isUp: () => state.isUp,
    onChange: () => undefined,
  });
  return { keep, state };
}

test('waits double up to a minute and never end; up for a minute, they begin anew', async () => {
  const clock = new SimulatedClock();
  const { keep, state } = kept(clock);
  await clock.settle();
  await clock.advance(24 * 3_600_000);
  assert.deepEqual(state.waits.slice(0, 9), [0, 1e3, 2e3, 4e3, 8e3, 16e3, 32e3, 60e3, 60e3]);
  assert.ok(state.tries > 1_000);
  state.works = true;
  await clock.advance(keepUpLimits.capMs);
  assert.equal(keep.isUp, true);
  await clock.advance(keepUpLimits.steadyMs);
  // It ended, and nobody said so.
  state.isUp = false;
  state.works = false;
  const endedMs = clock.monotonic();
  while (keep.isUp) await clock.advance(10);
  assert.ok(clock.monotonic() - endedMs <= keepUpLimits.lookMs);
  const before = state.tries;
  await clock.advance(3_000);
  assert.equal(state.tries - before, 2);
  keep.close();
  await clock.advance(3_600_000);
  assert.equal(state.tries - before, 2);
});

test('woken, it tries at once', async () => {
  const clock = new SimulatedClock();
  const { keep, state } = kept(clock);
  await clock.settle();
  await clock.advance(600_000);
  state.works = true;
  keep.wake();
  await clock.settle();
  assert.equal(keep.isUp, true);
  state.isUp = false;
  keep.look();
  await clock.advance(1_000);
  assert.equal(keep.isUp, true);
  keep.close();
});

test('what hangs is given up', async () => {
  const clock = new SimulatedClock();
  let given = 0;
  const keep = new KeepUp({
    runtime: { clock, random: slowest },
    connect: (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          given += 1;
          reject(signal.reason as Error);
        });
      }),
    isUp: () => false,
    onChange: () => undefined,
  });
  await clock.settle();
  await clock.advance(keepUpLimits.tryMs + 1);
  assert.equal(given, 1);
  keep.close();
});

test('what hangs and does not hear that it is given up is followed by another try', async () => {
  const clock = new SimulatedClock();
  let tries = 0;
  const keep = new KeepUp({
    runtime: { clock, random: slowest },
    connect: () => {
      tries += 1;
      return tries === 1 ? new Promise(() => undefined) : Promise.resolve();
    },
    isUp: () => tries > 1,
    onChange: () => undefined,
  });
  await clock.settle();
  await clock.advance(keepUpLimits.tryMs + keepUpLimits.firstMs + 1);
  assert.equal(keep.isUp, true);
  keep.close();
});
