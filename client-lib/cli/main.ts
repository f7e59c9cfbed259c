#!/usr/bin/env node
/**
 * `qpc`, the command line client: the process around the commands. The only file of client-lib
 * that reads the environment and ends the process.
 */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { addAccountCommands } from './account.ts';
import { addBlockingCommands } from './blocking.ts';
import { addCardCommands } from './cards.ts';
import type { Cli } from './cli.ts';
import { addConversationCommands } from './conversations.ts';
import { addDeviceCommands } from './devices.ts';
import { CommandError, exitFailed, failureOf } from './failure.ts';
import { addForkCommands } from './forks.ts';
import { addGroupCommands } from './groups.ts';
import { addHistoryCommand } from './history.ts';
import { addKeyCommands } from './keys.ts';
import { addMailboxCommands } from './mailboxes.ts';
import { addMessageCommands } from './messages.ts';
import { Output } from './output.ts';
import { SecretInput } from './secret-input.ts';

/** A variable that is empty is as good as none. */
function homeOf(named = ''): string {
  return named === '' ? join(homedir(), '.qpc') : named;
}

const output = new Output(process.stdout, process.stderr);
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The second one means it.
    if (interrupted.signal.aborted) process.exit(exitFailed);
    interrupted.abort(new CommandError(exitFailed, 'INTERRUPTED', 'interrupted'));
  });
}
// Whoever read our output has gone (`qpc listen | head`): nothing is left to do.
process.stdout.on('error', () => process.exit(0));

const cli: Cli = {
  defaultHome: homeOf(process.env['QPC_HOME']),
  output,
  secrets: new SecretInput(process.stdin, process.stderr, interrupted.signal),
  runtime: { clock: systemClock, random: systemRandom, log: silentLog },
  interrupted: interrupted.signal,
};

const program = new Command('qpc')
  .description('end-to-end encrypted messages over federated nodes')
  .version('qpc 0.1.0')
  .exitOverride()
  // Errors are printed below, in one place and one form.
  .configureOutput({ outputError: () => undefined });
addAccountCommands(program, cli);
addMessageCommands(program, cli);
addHistoryCommand(program, cli);
addConversationCommands(program, cli);
addGroupCommands(program, cli);
addForkCommands(program, cli);
addDeviceCommands(program, cli);
addBlockingCommands(program, cli);
addCardCommands(program, cli);
addMailboxCommands(program, cli);
addKeyCommands(program, cli);

let exitCode = 0;
try {
  await program.parseAsync();
} catch (error) {
  const failure = failureOf(error);
  if (failure !== undefined) {
    // Usage errors come before the options are known, so ask the arguments themselves.
    if (process.argv.includes('--json')) output.useJson(true);
    output.failure(failure.reason, failure.message);
    exitCode = failure.exitCode;
  }
}
await output.flush();
if (exitCode !== 0) process.exit(exitCode);
// What a command set, or 0.
process.exit();
