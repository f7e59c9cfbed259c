/** `qpc mailbox list`, `qpc mailbox give-back`: the mailboxes of this device at other nodes. */
import type { Command } from 'commander';
import { TransportError } from '@quicprochat/proto';
import {
  TimeLimit,
  withClient,
  withCommonOptions,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { CommandError, exitFailed } from './failure.ts';

export function addMailboxCommands(program: Command, cli: Cli): void {
  const mailbox = program
    .command('mailbox')
    .description('mailboxes at other nodes, that contacts write to while your node is away');
  withCommonOptions(mailbox.command('list'), cli)
    .description('where they are, and until when they are kept; asks no node')
    .action((options: CommonOptions) => list(cli, options));
  withTimedOptions(mailbox.command('give-back [domains...]'), cli)
    .description(
      'take in what lies there and have the node delete the mailbox; all of them, unless told',
    )
    .action((domains: string[], options: TimedOptions) => giveBack(cli, domains, options));
}

async function list(cli: Cli, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    for (const { domain, expiresMs } of client.mailboxes.list()) {
      const until = new Date(expiresMs).toISOString();
      await cli.output.result(`${domain}  until ${until}`, { type: 'mailbox', domain, expiresMs });
    }
  });
}

async function giveBack(cli: Cli, named: readonly string[], options: TimedOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    using limit = new TimeLimit(cli.interrupted, options.timeout);
    const domains = named.length > 0 ? named : client.mailboxes.list().map(({ domain }) => domain);
    for (const domain of domains) {
      const advice = `${domain} does not answer; the mailbox ends by itself, see: qpc mailbox list`;
      limit.waitsFor(() => advice);
      try {
        await limit.guard(client.mailboxes.giveBack(domain, limit.signal));
      } catch (cause) {
        if (!(cause instanceof TransportError)) throw cause;
        throw new CommandError(exitFailed, cause.reason, advice, { cause });
      }
      await cli.output.result(`${domain}  given back`, { type: 'mailboxGivenBack', domain });
    }
  });
}
