/** `qpc block`, `qpc unblock`: whose messages are wanted. */
import type { Command } from 'commander';
import { parseUserId } from '@quicprochat/proto';
import {
  withClient,
  withCommonOptions,
  withOnlineClient,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';

export function addBlockingCommands(program: Command, cli: Cli): void {
  withTimedOptions(program.command('block <user@domain>'), cli)
    .description(
      'show nothing of somebody, and have the node take few of their messages (a new delivery token)',
    )
    .action((user: string, options: TimedOptions) => block(cli, user, options));
  withCommonOptions(program.command('unblock <user@domain>'), cli)
    .description('show what somebody writes again, also what was hidden')
    .action((user: string, options: CommonOptions) => unblock(cli, user, options));
}

async function block(cli: Cli, user: string, options: TimedOptions): Promise<void> {
  const { userId } = parseUserId(user);
  await withOnlineClient(cli, options, async (client) => {
    await client.block(userId);
    await report(cli, userId, client.blocked());
  });
}

async function unblock(cli: Cli, user: string, options: CommonOptions): Promise<void> {
  const { userId } = parseUserId(user);
  await withClient(cli, options, async (client) => {
    client.unblock(userId);
    await report(cli, userId, client.blocked());
  });
}

async function report(cli: Cli, userId: string, blocked: readonly string[]): Promise<void> {
  const isBlocked = blocked.includes(userId);
  await cli.output.result(`${userId} is ${isBlocked ? '' : 'not '}blocked`, {
    type: 'blocking',
    userId,
    isBlocked,
    blocked: [...blocked],
  });
}
