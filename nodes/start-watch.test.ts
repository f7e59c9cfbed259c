/** A start says what it waits for, and does not wait for ever. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogFields } from '@quicprochat/proto';
import { StartWatch, type StartStep } from './start-watch.ts';

/** `tenSeconds` lets so much time pass, when something waits for it. */
function watched() {
  let pending: (() => void) | undefined;
  const clock = {
    timer(ms: number, callback: () => void) {
      assert.equal(ms, 10_000);
      assert.equal(pending, undefined, 'one timer at a time');
      pending = callback;
      return { cancel: () => void (pending = undefined) };
    },
  };
  const tenSeconds = (times = 1): void => {
    for (let n = 0; n < times; n += 1) {
      const due = pending;
      pending = undefined;
      due?.();
    }
  };
  const lines: string[] = [];
  const write = (event: string, { step, waitedSeconds = 0 }: LogFields = {}): void => {
    lines.push(`${event}: ${String(step)} ${String(waitedSeconds)}`);
  };
  const log = { debug: write, info: write, warn: write, error: write };
  const givenUp: StartStep[] = [];
  const watch = new StartWatch({ clock, log }, (step) => givenUp.push(step));
  return { tenSeconds, lines, givenUp, watch };
}

test('each step is said when it begins, and again every ten seconds', () => {
  const { tenSeconds, lines, givenUp, watch } = watched();
  watch.begin('secrets');
  watch.begin('listener');
  tenSeconds(2);
  watch[Symbol.dispose]();
  tenSeconds(10_000);
  assert.deepEqual(lines, [
    'starting: secrets 0',
    'starting: listener 0',
    'starting takes long: listener 10',
    'starting takes long: listener 20',
  ]);
  assert.deepEqual(givenUp, []);
});

test('a step is given up after ten minutes, once; each has its own', () => {
  const { tenSeconds, lines, givenUp, watch } = watched();
  watch.begin('listener');
  tenSeconds(59);
  watch.begin('hubs');
  tenSeconds(59);
  assert.deepEqual(givenUp, []);
  tenSeconds();
  assert.deepEqual(givenUp, ['hubs']);
  assert.equal(lines.at(-1), 'start given up: hubs 600');
  tenSeconds(60);
  assert.deepEqual(givenUp, ['hubs']);
});

test('a database gets six hours for its migrations', () => {
  const { tenSeconds, givenUp, watch } = watched();
  watch.begin('database');
  tenSeconds(6 * 360 - 1);
  assert.deepEqual(givenUp, []);
  tenSeconds();
  assert.deepEqual(givenUp, ['database']);
});
