/**
 * What makes up a group besides its messages: `qpc members`, `rename`, `timer`, `role`, `remove`, `leave`,
 * `rotate`. What `qpc listen` says of such changes is here too, in the same words.
 */
import { InvalidArgumentError as InvalidOption, type Command } from 'commander';
import { parseUserId } from '@quicprochat/proto';
import type { ClientEvent, QpcClient } from '../index.ts';
import {
  withClient,
  withCommonOptions,
  withOnlineClient,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { findConversation, shortId, shownName } from './conversations.ts';
import { usage } from './failure.ts';
import { hexOf, type JsonRecord } from './output.ts';

export function addGroupCommands(program: Command, cli: Cli): void {
  withCommonOptions(program.command('members <conversation>'), cli)
    .description('list the users of a conversation with their roles and devices')
    .action((conversation: string, options: CommonOptions) => members(cli, conversation, options));
  withTimedOptions(program.command('rename <conversation> <name>'), cli)
    .description('give a conversation another name')
    .action((conversation: string, name: string, options: TimedOptions) =>
      rename(cli, conversation, name, options),
    );
  withTimedOptions(
    program.command('timer <conversation>').argument('[time]', '30s, 5m, 8h, 7d, or off', timeOf),
    cli,
  )
    .description('let messages disappear after a time; without one, print it')
    .action((conversation: string, seconds: number | undefined, options: TimedOptions) =>
      setTimer(cli, conversation, seconds, options),
    );
  withTimedOptions(program.command('role <conversation> <user@domain> <role>'), cli)
    .description('make a user owner, admin or member')
    .action((conversation: string, user: string, role: string, options: TimedOptions) =>
      setRole(cli, conversation, [user, role], options),
    );
  withTimedOptions(program.command('remove <conversation> <members...>'), cli)
    .description('remove users (user@domain), or single devices (user@domain/device)')
    .action((conversation: string, gone: string[], options: TimedOptions) =>
      remove(cli, conversation, gone, options),
    );
  withTimedOptions(program.command('leave <conversation>'), cli)
    .description('ask the others to remove all devices of this user')
    .action((conversation: string, options: TimedOptions) => leave(cli, conversation, options));
  withTimedOptions(program.command('rotate <conversation>'), cli)
    .description('give this device and the conversation fresh keys')
    .action((conversation: string, options: TimedOptions) => rotate(cli, conversation, options));
}

async function members(cli: Cli, name: string, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const { id } = findConversation(client, name);
    for (const { userId, role, deviceIds } of await client.listMembers(id)) {
      await cli.output.result(`${userId}  ${role}  ${deviceIds.join(' ')}`, {
        type: 'member',
        conversation: hexOf(id),
        userId,
        role,
        deviceIds,
      });
    }
    const { lost, epoch } = (await client.groupState(id)) ?? {};
    if (lost === undefined || epoch === undefined) return;
    const { cause, reason = null } = lost;
    await cli.output.result(
      `this device lost its place after epoch ${epoch} (${cause}), and comes back by itself` +
        (reason === null ? '' : `; not yet: ${reason}`),
      { type: 'leftBehind', conversation: hexOf(id), epoch, cause, reason },
    );
  });
}

async function rename(
  cli: Cli,
  conversation: string,
  name: string,
  options: TimedOptions,
): Promise<void> {
  if (name === '') throw usage('a conversation needs a name');
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.updateMetadata(id, { name }, signal);
    await report(cli, { type: 'renamed', ...whoIn(client, id), name });
  });
}

async function setTimer(
  cli: Cli,
  conversation: string,
  expirySeconds: number | undefined,
  options: TimedOptions,
): Promise<void> {
  if (expirySeconds === undefined) {
    await printTimer(cli, conversation, options);
    return;
  }
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.updateMetadata(id, { expirySeconds }, signal);
    await report(cli, { type: 'timerChanged', ...whoIn(client, id), expirySeconds });
  });
}

async function printTimer(cli: Cli, name: string, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const { id } = findConversation(client, name);
    const { expirySeconds = 0 } = (await client.metadata(id)) ?? {};
    await cli.output.result(`messages in ${shortId(id)} ${timerText(expirySeconds)}`, {
      type: 'timer',
      conversation: hexOf(id),
      expirySeconds,
    });
  });
}

async function setRole(
  cli: Cli,
  conversation: string,
  [user, text]: readonly [string, string],
  options: TimedOptions,
): Promise<void> {
  const { userId } = parseUserId(user);
  const role = roles.find((one) => one === text);
  if (role === undefined) throw usage(`a role is one of: ${roles.join(', ')}`);
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.setRole(id, userId, role, signal);
    await report(cli, { type: 'roleChanged', ...whoIn(client, id), userId, role });
  });
}

async function remove(
  cli: Cli,
  conversation: string,
  gone: readonly string[],
  options: TimedOptions,
): Promise<void> {
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.removeMembers(id, gone, signal);
    await report(cli, {
      type: 'membersChanged',
      conversationId: id,
      members: await client.members(id),
    });
  });
}

async function leave(cli: Cli, conversation: string, options: TimedOptions): Promise<void> {
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.leave(id, signal);
    await cli.output.result(`left ${shortId(id)}`, { type: 'left', conversation: hexOf(id) });
  });
}

async function rotate(cli: Cli, conversation: string, options: TimedOptions): Promise<void> {
  await withOnlineClient(cli, options, async (client, signal) => {
    const { id } = findConversation(client, conversation);
    await client.rotateKeys(id, signal);
    const record = { type: 'keysRotated', conversation: hexOf(id) } as const;
    await cli.output.result(`new keys in ${shortId(id)}`, record);
  });
}

const roles = ['owner', 'admin', 'member'] as const;

const whoIn = (client: QpcClient, conversationId: Uint8Array) => ({
  conversationId,
  by: client.whoami().userId,
});

async function report(cli: Cli, event: GroupNotice): Promise<void> {
  const { line, record } = groupNoticeOf(event);
  await cli.output.result(line.replace(/^-- /, ''), record);
}

const units = [
  [86_400, 'd'],
  [3_600, 'h'],
  [60, 'm'],
  [1, 's'],
] as const;

/** Parses a whole number with one of the units s, m, h and d, or `off`. */
export function timeOf(text: string): number {
  if (text === 'off') return 0;
  const [, count = '', unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const [size] = units.find(([, name]) => name === unit) ?? [];
  if (size === undefined || Number(count) === 0) {
    throw new InvalidOption('need a time such as 30s, 5m, 8h or 7d, or off');
  }
  return Number(count) * size;
}

function timerText(seconds: number): string {
  if (seconds === 0) return 'stay';
  const [size, unit] = units.find(([one]) => seconds % one === 0) ?? [1, 's'];
  return `disappear after ${seconds / size}${unit}`;
}

type GroupNotice = Extract<
  ClientEvent,
  {
    type:
      | 'membersChanged'
      | 'renamed'
      | 'roleChanged'
      | 'timerChanged'
      | 'disappeared'
      | 'removed'
      | 'groupChange'
      | 'hubRefused'
      | 'fork'
      | 'commitRefused'
      | 'commitDoubted'
      | 'leftBehind'
      | 'cameBack'
      | 'stillBehind';
  }
>;

export function groupNoticeOf(event: GroupNotice): { line: string; record: JsonRecord } {
  const { conversationId } = event;
  const shown = shortId(conversationId);
  const conversation = hexOf(conversationId);
  switch (event.type) {
    case 'membersChanged':
      return {
        line: `-- members of ${shown}: ${event.members.join(' ')}`,
        record: { type: 'membersChanged', conversation, members: event.members },
      };
    case 'renamed': {
      const { name, by } = event;
      return {
        line: `-- ${by} renamed ${shown} to ${shownName(name, conversationId)}`,
        record: { type: 'renamed', conversation, name, by },
      };
    }
    case 'roleChanged': {
      const { userId, role, by } = event;
      return {
        line: `-- ${by} made ${userId} ${role} in ${shown}`,
        record: { type: 'roleChanged', conversation, userId, role, by },
      };
    }
    case 'timerChanged': {
      const { expirySeconds, by } = event;
      return {
        line: `-- messages in ${shown} ${timerText(expirySeconds)}, says ${by}`,
        record: { type: 'timerChanged', conversation, expirySeconds, by },
      };
    }
    case 'disappeared': {
      const messages = event.ids.map(hexOf);
      return {
        line: `-- ${messages.length} messages in ${shown} are gone`,
        record: { type: 'disappeared', conversation, messages },
      };
    }
    case 'removed':
      return {
        line: `-- ${event.by} removed you from ${shown}`,
        record: { type: 'removed', conversation, by: event.by },
      };
    case 'groupChange': {
      const { kind, outcome, reason = null } = event;
      return {
        line: `-- ${kind} in ${shown}: ${outcome}${reason === null ? '' : ` (${reason})`}`,
        record: { type: 'groupChange', conversation, kind, outcome, reason },
      };
    }
    case 'hubRefused': {
      const { reason } = event;
      return {
        line: `-- the hub refuses ${shown} (${reason}): you can write there, and nothing of it changes; begin another one`,
        record: { type: 'hubRefused', conversation, reason },
      };
    }
    case 'fork': {
      const { epoch, hubs } = event;
      return {
        line: `-- WARNING: ${hubs.join(', ')} signed two histories of ${shown} (epoch ${epoch})`,
        record: { type: 'fork', conversation, epoch, hubs },
      };
    }
    case 'commitRefused': {
      const { epoch, by = null, isVoted } = event;
      return {
        line: `-- ${by ?? 'somebody'} tried to change ${shown} as nobody may; it came to nothing`,
        record: { type: 'commitRefused', conversation, epoch, by, isVoted },
      };
    }
    case 'commitDoubted': {
      const { epoch, by = null, cause } = event;
      return {
        line: `-- this device cannot judge a change of ${shown} (${cause}); the members are asked`,
        record: { type: 'commitDoubted', conversation, epoch, by, cause },
      };
    }
    case 'leftBehind': {
      const { epoch, cause } = event;
      return {
        line: `-- this device lost its place in ${shown} after epoch ${epoch} (${cause}), and comes back by itself`,
        record: { type: 'leftBehind', conversation, epoch, cause },
      };
    }
    case 'cameBack': {
      const { epoch, cause } = event;
      return {
        line: `-- this device is back in ${shown}, with epoch ${epoch}`,
        record: { type: 'cameBack', conversation, epoch, cause },
      };
    }
    case 'stillBehind': {
      const { reason } = event;
      return {
        line: `-- this device cannot come back into ${shown} yet (${reason}); somebody may remove and add it`,
        record: { type: 'stillBehind', conversation, reason },
      };
    }
  }
}
