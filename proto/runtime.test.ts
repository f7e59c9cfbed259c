/** The real clock: no wait is too long for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from './runtime.ts';

test('a wait that is too long for a timer of the system ends no sooner for that', async () => {
  const warnings: string[] = [];
  const listener = ({ name }: Error): void => void warnings.push(name);
  process.on('warning', listener);
  const over = new AbortController();
  const timer = systemClock.timer(2 ** 32, () => assert.fail('it is not over'));
  const sleep = systemClock.sleep(2 ** 32, over.signal);
  await systemClock.sleep(0);
  // The system says so where it takes such a wait for a millisecond.
  assert.deepEqual(warnings, []);
  process.off('warning', listener);
  timer.cancel();
  over.abort(new Error('enough'));
  await assert.rejects(sleep, { message: 'enough' });
});
