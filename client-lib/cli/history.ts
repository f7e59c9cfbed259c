/** `qpc history`: what was said in a conversation, how far own messages came, and what is missing. */
import type { Command } from 'commander';
import type { MessageRecord, MissingMessages } from '../index.ts';
import { countOf, withClient, withCommonOptions, type Cli, type CommonOptions } from './cli.ts';
import { findConversation } from './conversations.ts';
import { hexOf, visible } from './output.ts';

interface HistoryOptions extends CommonOptions {
  readonly count: number;
}

export function addHistoryCommand(program: Command, cli: Cli): void {
  withCommonOptions(program.command('history <conversation>'), cli)
    .description('print the newest messages of a conversation, sent and received, without the node')
    .option('--count <number>', 'at most this many messages', countOf, 50)
    .action((conversation: string, options: HistoryOptions) => history(cli, conversation, options));
}

async function history(cli: Cli, name: string, options: HistoryOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const { id } = findConversation(client, name);
    for (const message of client.history(id, options.count)) await print(cli, message);
    for (const missing of client.missing(id)) await printMissing(cli, missing);
  });
}

async function print(cli: Cli, message: MessageRecord): Promise<void> {
  const { conversationId, innerId, senderUser, senderDevice, text, sentMs, receivedMs } = message;
  const shown = message.goneMs === undefined ? visible(text) : '(gone, as its timer said)';
  const when = new Date(receivedMs ?? sentMs).toISOString();
  const state = message.sendState === undefined ? '' : ` (${message.sendState})`;
  await cli.output.result(`${when} ${senderUser}${state}: ${shown}`, {
    type: 'history',
    conversation: hexOf(conversationId),
    message: hexOf(innerId),
    senderUserId: senderUser,
    senderDeviceId: senderDevice,
    text,
    sentMs,
    receivedMs: receivedMs ?? null,
    state: message.sendState ?? null,
    paths: message.paths,
    goneMs: message.goneMs ?? null,
  });
}

async function printMissing(cli: Cli, missing: MissingMessages): Promise<void> {
  const { conversationId, senderDeviceId, from, to, reason } = missing;
  const count = to - from + 1;
  await cli.output.result(
    `-- ${count} messages of device ${senderDeviceId} are missing (${reason})`,
    {
      type: 'missing',
      conversation: hexOf(conversationId),
      senderDeviceId,
      from,
      to,
      reason,
    },
  );
}
