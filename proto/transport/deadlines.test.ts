/** Deadlines of several lengths, met and missed, on one hand-driven clock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../runtime.ts';
import { Deadlines } from './deadlines.ts';

/** Time stands still until it is moved. */
class HandClock implements Clock {
  readonly timers = new Map<object, { at: number; callback: () => void }>();
  time = 0;
  now = (): number => this.time;
  monotonic = (): number => this.time;
  sleep = (): Promise<void> => Promise.reject(new Error('nobody sleeps here'));

  timer(ms: number, callback: () => void) {
    const key = {};
    this.timers.set(key, { at: this.time + ms, callback });
    return { cancel: () => void this.timers.delete(key) };
  }

  moveTo(time: number): void {
    for (;;) {
      const due = [...this.timers].toSorted(([, a], [, b]) => a.at - b.at)[0];
      if (!due || due[1].at > time) break;
      this.timers.delete(due[0]);
      this.time = due[1].at;
      due[1].callback();
    }
    this.time = time;
  }
}

test('each deadline passes at its time, once, unless it was met', () => {
  const clock = new HandClock();
  const deadlines = new Deadlines(clock);
  const passed: string[] = [];
  const add = (name: string, ms: number): (() => void) =>
    deadlines.add(ms, () => void passed.push(`${name} ${clock.time}`));
  const first = add('first', 100);
  add('short', 30);
  clock.moveTo(50);
  add('second', 100);
  const met = add('met', 100);
  first();
  clock.moveTo(149);
  met();
  met();
  assert.deepEqual(passed, ['short 30']);
  clock.moveTo(1000);
  assert.deepEqual(passed, ['short 30', 'second 150']);
});

test('a thousand deadlines take one timer, and none when all are met', () => {
  const clock = new HandClock();
  const deadlines = new Deadlines(clock);
  const met = Array.from({ length: 1000 }, () => deadlines.add(100, () => assert.fail('met')));
  assert.equal(clock.timers.size, 1);
  for (const meet of met) meet();
  assert.equal(clock.timers.size, 0);
  clock.moveTo(1000);
});

test('what passes may begin and meet others', () => {
  const clock = new HandClock();
  const deadlines = new Deadlines(clock);
  const passed: number[] = [];
  let meetLast = (): void => {};
  deadlines.add(10, () => {
    passed.push(clock.time);
    // Empties the line, then begins a new one of the same length.
    meetLast();
    deadlines.add(10, () => passed.push(clock.time));
  });
  meetLast = deadlines.add(10, () => assert.fail('met'));
  clock.moveTo(100);
  assert.deepEqual(passed, [10, 20]);
  assert.equal(clock.timers.size, 0);
});
