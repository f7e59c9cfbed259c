/** Work by key: what runs together, what waits, what comes again, and the end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyedWork } from './keyed-work.ts';
import { LaterClock, testRuntime } from './test-runtime.ts';

interface Run {
  readonly key: string;
  readonly end: (isDone: boolean) => void;
}

function rig(atOnce = 2) {
  const waits: number[] = [];
  const clock = new LaterClock();
  const sleeps: (() => void)[] = [];
  const sleep = (ms: number, signal?: AbortSignal): Promise<void> => {
    waits.push(ms);
    return new Promise((resolve, reject) => {
      sleeps.push(resolve);
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
    });
  };
  const runs: Run[] = [];
  const work = new KeyedWork<string>({
    runtime: { random: testRuntime.random, clock: Object.assign(clock, { sleep }) },
    ...{ atOnce, backOffMinMs: 1_000, backOffMaxMs: 8_000 },
    run: (key) => new Promise((end) => runs.push({ key, end })),
  });
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i += 1) await Promise.resolve();
  };
  /** Keys of all runs so far. */
  const started = async (): Promise<string[]> => {
    await settle();
    return runs.map(({ key }) => key);
  };
  return { work, runs, waits, sleeps, started };
}

test('one that hangs or fails holds up no other', async () => {
  const { work, runs, waits, sleeps, started } = rig();
  for (const key of ['hangs', 'fails', 'third', 'fourth']) work.want(key, key);
  assert.deepEqual(await started(), ['hangs', 'fails']);
  runs[1]?.end(false);
  assert.deepEqual(await started(), ['hangs', 'fails', 'third']);
  runs[2]?.end(true);
  assert.deepEqual(await started(), ['hangs', 'fails', 'third', 'fourth']);
  runs[3]?.end(true);
  await started();
  assert.equal(waits.length, 1);
  sleeps[0]?.();
  assert.deepEqual((await started()).slice(4), ['fails']);
  runs[4]?.end(true);
  runs[0]?.end(true);
  await work.idle();
  assert.ok(work.isIdle);
});

test('hurried: what waits after a failure runs at once, and waits as long as ever when it fails again', async () => {
  const { work, runs, waits, sleeps, started } = rig();
  work.want('fails', 'fails');
  await started();
  runs[0]?.end(false);
  await started();
  work.hurry();
  assert.deepEqual(await started(), ['fails', 'fails']);
  runs[1]?.end(false);
  assert.deepEqual(await started(), ['fails', 'fails']);
  assert.equal(waits.length, 2);
  sleeps[1]?.();
  assert.deepEqual(await started(), ['fails', 'fails', 'fails']);
  runs[2]?.end(true);
  await work.idle();
});

test('wanted while it runs: once more, and once only', async () => {
  const { work, runs, started } = rig();
  work.want('a', 'a');
  await started();
  work.want('a', 'a');
  work.want('a', 'a');
  assert.deepEqual(await started(), ['a']);
  runs[0]?.end(true);
  assert.deepEqual(await started(), ['a', 'a']);
  runs[1]?.end(true);
  await work.idle();
  assert.equal(runs.length, 2);
});

test('waits grow up to their limit, and are not hurried', async () => {
  const { work, runs, waits, sleeps, started } = rig();
  work.want('a', 'a');
  for (let i = 0; i < 6; i += 1) {
    await started();
    runs[i]?.end(false);
    await started();
    work.want('a', 'a');
    assert.equal((await started()).length, i + 1);
    sleeps[i]?.();
  }
  for (const [i, ms] of waits.entries()) {
    const boundMs = Math.min(8_000, 1_000 * 2 ** (i + 1));
    assert.ok(ms >= boundMs / 2 && ms <= boundMs, `${i}: ${ms}`);
  }
  await started();
  runs[6]?.end(true);
  await work.idle();
});

test('stop waits for what runs and forgets the rest', async () => {
  const { work, runs, started } = rig(1);
  work.want('a', 'a');
  work.want('b', 'b');
  await started();
  const stopped = work.stop();
  work.want('c', 'c');
  runs[0]?.end(false);
  await stopped;
  assert.deepEqual(await started(), ['a']);
  assert.ok(work.isIdle);
});
