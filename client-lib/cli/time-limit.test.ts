/** A command's time limit: what the user reads when it is over. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TimeLimit } from './cli.ts';
import { CommandError, exitFailed } from './failure.ts';

const never = new AbortController().signal;
const untilAborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new Error('dial: cancelled')));
  });

test('a limit that is over is told by what was waited for, not by what a lower layer says', async () => {
  using limit = new TimeLimit(never, 0.01);
  limit.waitsFor(() => 'the node did not answer in time');
  await assert.rejects(limit.guard(untilAborted(limit.signal)), {
    reason: 'TIMEOUT',
    message: 'the node did not answer in time (gave up after 0.01 s, see --timeout)',
  });
});

test('what a command says of it itself is kept', async () => {
  using limit = new TimeLimit(never, 0.01);
  const work = untilAborted(limit.signal).catch((cause: unknown) => {
    throw new CommandError(exitFailed, 'TIMEOUT', 'the node has the message', { cause });
  });
  await assert.rejects(limit.guard(work), { message: 'the node has the message' });
});
