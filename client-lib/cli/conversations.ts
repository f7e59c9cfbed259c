/**
 * `qpc conversations`, `qpc create`, `qpc add`, and how a conversation is named on the command line:
 * by id, by the beginning of its id, by its name, or by the other user of a conversation of two.
 */
import type { Command } from 'commander';
import { parseUserId } from '@quicprochat/proto';
import type { Conversation, QpcClient } from '../index.ts';
import {
  withClient,
  withCommonOptions,
  withOnlineClient,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { usage } from './failure.ts';
import { hexOf, visible } from './output.ts';

/** Digits of an id that people see, and the fewest that they may type. */
const shownIdDigits = 12;
const typedIdDigits = 4;

export function addConversationCommands(program: Command, cli: Cli): void {
  withCommonOptions(program.command('conversations'), cli)
    .description('list the conversations of this device')
    .action((options: CommonOptions) => list(cli, options));
  withTimedOptions(program.command('create <name> <members...>'), cli)
    .description('create a conversation with these users (user@domain)')
    .action((name: string, members: string[], options: TimedOptions) =>
      create(cli, name, members, options),
    );
  withTimedOptions(program.command('add <conversation> <members...>'), cli)
    .description('add users to a conversation')
    .action((conversation: string, members: string[], options: TimedOptions) =>
      add(cli, conversation, members, options),
    );
}

/** The beginning of an id, as people see it. */
export function shortId(id: Uint8Array): string {
  return hexOf(id).slice(0, shownIdDigits);
}

/** A name of somebody's making, safe to print; conversations of two have none. */
export function shownName(name: string, id: Uint8Array): string {
  return name === '' ? shortId(id) : visible(name);
}

/**
 * The conversation that an argument names. Throws CommandError when none or several do.
 */
export function findConversation(client: QpcClient, text: string): Conversation {
  const all = client.conversations();
  const byName = all.filter(({ name }) => name !== '' && name === text);
  const byId = isIdPrefix(text) ? all.filter(({ id }) => hexOf(id).startsWith(text)) : [];
  const found = [...new Set([...byName, ...byId])];
  const [first, second] = found;
  if (first === undefined) {
    throw usage(`no conversation ${text} on this device; see: qpc conversations`);
  }
  if (second !== undefined) {
    const ids = found.map(({ id }) => shortId(id)).join(', ');
    throw usage(`${text} names ${found.length} conversations; use an id: ${ids}`);
  }
  return first;
}

/**
 * The conversation of just this user and ours; the bytewise lowest id where both sides made one,
 * so that both choose the same (docs/protocol/wire.md).
 */
export async function findDirect(
  client: QpcClient,
  userId: string,
): Promise<Conversation | undefined> {
  // One that cannot be written to any more is not the one to write to.
  const unnamed = client
    .conversations()
    .filter(({ name, isStale, ended }) => name === '' && !isStale && ended === undefined);
  const direct: Conversation[] = [];
  for (const conversation of unnamed) {
    const members = await client.members(conversation.id);
    if (members.length === 2 && members.includes(userId)) direct.push(conversation);
  }
  return direct.sort((a, b) => Buffer.compare(a.id, b.id))[0];
}

function isIdPrefix(text: string): boolean {
  return text.length >= typedIdDigits && text.length <= 64 && /^[0-9a-f]+$/.test(text);
}

async function list(cli: Cli, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    for (const conversation of client.conversations()) {
      const { id, name, creator, joinedMs } = conversation;
      const members = await client.members(id);
      await cli.output.result(
        `${shortId(id)}  ${name === '' ? '-' : visible(name)}  ${members.join(' ')}`,
        {
          type: 'conversation',
          conversation: hexOf(id),
          name,
          creator,
          members,
          joinedMs,
        },
      );
    }
  });
}

async function create(
  cli: Cli,
  name: string,
  members: readonly string[],
  options: TimedOptions,
): Promise<void> {
  if (name === '') throw usage('a conversation needs a name; qpc send makes those of two');
  for (const member of members) parseUserId(member);
  await withOnlineClient(cli, options, async (client, signal) => {
    const id = await client.createConversation({ name, members }, signal);
    await client.flush(signal);
    await reportMembers(cli, client, 'created', id);
  });
}

async function add(
  cli: Cli,
  conversation: string,
  members: readonly string[],
  options: TimedOptions,
): Promise<void> {
  for (const member of members) parseUserId(member);
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.addMembers(id, members, signal);
    await client.flush(signal);
    await reportMembers(cli, client, 'added', id);
  });
}

async function reportMembers(
  cli: Cli,
  client: QpcClient,
  type: 'created' | 'added',
  id: Uint8Array,
): Promise<void> {
  const members = await client.members(id);
  await cli.output.result(`${type} ${shortId(id)}: ${members.join(' ')}`, {
    type,
    conversation: hexOf(id),
    members,
  });
}
