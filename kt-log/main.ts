#!/usr/bin/env node
/**
 * `qpc-audit`, the auditor's command: the process around the commands in cli/. The only file of
 * kt-log that reads the environment and ends the process.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { run } from './cli/commands.ts';
import { exitCodes } from './cli/usage.ts';

const stopped = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The second one means it.
    if (stopped.signal.aborted) process.exit(1);
    stopped.abort(new Error('stopped'));
  });
}
// Whoever read our output has gone, or its disk is full: nothing is left to do, and a verdict that
// nobody got must not pass for a good one.
process.stdout.on('error', () => process.exit(exitCodes.failed));

const code = await run(process.argv.slice(2), join(homedir(), '.qpc-audit'), {
  runtime: { clock: systemClock, random: systemRandom, log: silentLog },
  stopped: stopped.signal,
  print: (text) => void process.stdout.write(text),
  warn: (text) => void process.stderr.write(text),
});
// Kept-alive connections would hold the process; what was printed has to leave it first.
process.stdout.write('', (error) => process.exit(error ? exitCodes.failed : code));
