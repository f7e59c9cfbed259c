/**
 * `qpc send`, `qpc listen` and `qpc waiting`.
 */
import { Option, type Command } from 'commander';
import { parseUserId } from '@quicprochat/proto';
import {
  contentLimits,
  type ClientEvent,
  type Progress,
  type QpcClient,
  type ReceivedMessage,
  type SendState,
} from '../index.ts';
import {
  countOf,
  goOnline,
  secondsOf,
  TimeLimit,
  withClient,
  withCommonOptions,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { withFallbackOptions } from './fallback.ts';
import { groupNoticeOf } from './groups.ts';
import { keyNoticeOf } from './keys.ts';
import { findConversation, findDirect, shortId, shownName } from './conversations.ts';
import { CommandError, exitFailed, failureOf } from './failure.ts';
import { hexOf, visible, type JsonRecord } from './output.ts';

const progressStates = ['accepted', 'relayed', 'delivered', 'read'] as const;

interface SendOptions extends TimedOptions {
  readonly wait?: Progress;
}

interface ListenOptions extends CommonOptions {
  readonly count?: number;
  /** Seconds; none: for ever. */
  readonly timeout?: number;
}

export function addMessageCommands(program: Command, cli: Cli): void {
  withFallbackOptions(withTimedOptions(program.command('send <to> <text>'), cli))
    .description(
      'send a text to a conversation or to user@domain; done when the own node has it on disk; ' +
        'text - reads standard input',
    )
    .option('--sealed', 'do not tell nodes who sends, where the recipient gave a delivery token')
    .addOption(
      new Option('--wait <state>', 'done when the message is so far').choices(progressStates),
    )
    .action((to: string, text: string, options: SendOptions) => send(cli, to, text, options));
  withFallbackOptions(withCommonOptions(program.command('listen'), cli))
    .description('print the messages of others as they come, those that waited first')
    .option('--count <number>', 'end after this many messages', countOf)
    .option('--timeout <seconds>', 'end after this time', secondsOf)
    .option('--read-receipts', 'let senders know that their messages were printed')
    .action((options: ListenOptions) => listen(cli, options));
  withTimedOptions(program.command('waiting'), cli)
    .description('how much waits for this device at its node; takes nothing')
    .action((options: TimedOptions) => waiting(cli, options));
}

/** How long `listen` stays for its last receipts. */
const receiptsSeconds = 2;

const lossStates: ReadonlySet<SendState | undefined> = new Set(['failed', 'bounced', 'expired']);

async function send(cli: Cli, to: string, text: string, options: SendOptions): Promise<void> {
  if (to.includes('@')) parseUserId(to);
  // Not before the passphrase, which may be the first line of the same input.
  const textOf = async (): Promise<string> =>
    text === '-' ? (await cli.secrets.remaining(contentLimits.textBytes)).replace(/\n$/, '') : text;
  await withClient(cli, options, async (client) => {
    using limit = new TimeLimit(cli.interrupted, options.timeout);
    const { signal } = limit;
    const body = await textOf();
    const known = await knownConversation(client, to);
    const online = connected(client, limit, options);
    // Where there is something to write to, the message is kept whatever becomes of the connection.
    if (known === undefined) await online;
    const conversationId = known ?? (await limit.guard(begun(client, to, signal)));
    const { id } = await limit.guard(client.send(conversationId, body, signal));
    await kept(online);
    limit.waitsFor(() => 'the node did not answer in time');
    const state = await limit.guard(
      (async () => {
        await accepted(client, signal, () => liesInMailboxes(client, conversationId, id));
        return reached(client, conversationId, id, options.wait, signal);
      })(),
    );
    if (lossStates.has(state)) {
      throw new CommandError(
        exitFailed,
        'SEND_FAILED',
        'a node refused the message for at least one device; it will not arrive there',
      );
    }
    await cli.output.result(`sent to ${shortId(conversationId)} (${state})`, {
      type: 'sent',
      conversation: hexOf(conversationId),
      message: hexOf(id),
      state,
    });
  });
}

/** Connects; with ways past the node, it is not waited for. Rejects when nobody answers in time. */
function connected(client: QpcClient, limit: TimeLimit, { p2p }: SendOptions): Promise<void> {
  if (p2p === true) client.start();
  const online = p2p === true ? Promise.resolve() : goOnline(client, limit);
  // It may fail while the message is being sealed; it is awaited in any case.
  online.catch(() => undefined);
  return online;
}

/** The message is in the store: whoever hears that there is no connection hears that, too. */
async function kept(online: Promise<void>): Promise<void> {
  try {
    await online;
  } catch (cause) {
    const failure = failureOf(cause);
    if (failure === undefined || failure.reason === 'BUG') throw cause;
    const message = `${failure.message}. The message is stored here and goes out with the next qpc command`;
    throw new CommandError(exitFailed, failure.reason, message, { cause });
  }
}

/** The conversation of an argument; undefined where one with this user is to be made. */
async function knownConversation(client: QpcClient, to: string): Promise<Uint8Array | undefined> {
  return to.includes('@') ? (await findDirect(client, to))?.id : findConversation(client, to).id;
}

function begun(client: QpcClient, userId: string, signal: AbortSignal): Promise<Uint8Array> {
  return client.createConversation({ name: '', members: [userId] }, signal);
}

/** Copies lie at other nodes, that do not answer for them: their devices may get them by that. */
function liesInMailboxes(client: QpcClient, conversationId: Uint8Array, id: Uint8Array): boolean {
  const sent = client.history(conversationId).find((one) => hexOf(one.innerId) === hexOf(id));
  return sent?.paths.includes('mailbox') === true;
}

/** Waits for the own node; from here on a timeout loses nothing. */
async function accepted(
  client: QpcClient,
  signal: AbortSignal,
  isInMailboxes: () => boolean,
): Promise<void> {
  try {
    await client.flush(signal);
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    throw new CommandError(
      exitFailed,
      cause.reason,
      `the node has not confirmed the message yet; it is stored here and goes out with the next qpc command${
        isInMailboxes() ? '. Copies lie in mailboxes of its recipients' : ''
      }`,
      { cause },
    );
  }
}

/** Waits for others; from here on a timeout changes nothing but what is known. */
async function reached(
  client: QpcClient,
  conversationId: Uint8Array,
  id: Uint8Array,
  wanted: Progress = 'accepted',
  signal?: AbortSignal,
): Promise<SendState> {
  try {
    return await client.reached(conversationId, id, wanted, signal);
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    const message = `the node has the message; it is not ${wanted} yet. See: qpc history`;
    throw new CommandError(exitFailed, cause.reason, message, { cause });
  }
}

async function waiting(cli: Cli, options: TimedOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    using limit = new TimeLimit(cli.interrupted, options.timeout);
    limit.waitsFor(() => 'the node did not answer in time');
    const { rows, hasMore, bytes, oldestMs } = await limit.guard(client.waiting(limit.signal));
    const count = `${rows}${hasMore ? '+' : ''}`;
    const oldest = rows === 0 ? '' : `, the oldest for ${Math.round(oldestMs / 1000)} s`;
    await cli.output.result(`${count} waiting${oldest}`, {
      type: 'waiting',
      rows,
      hasMore,
      bytes,
      oldestMs,
    });
  });
}

async function listen(cli: Cli, options: ListenOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const ending = new AbortController();
    const signals = [cli.interrupted, ending.signal];
    using limit =
      options.timeout === undefined ? undefined : new TimeLimit(cli.interrupted, options.timeout);
    if (limit !== undefined) signals.push(limit.signal);
    const signal = AbortSignal.any(signals);
    const notices = printNotices(cli, client, ending);
    // It may fail while a message is being printed; it is awaited below in any case.
    notices.catch(() => undefined);
    let received = 0;
    try {
      client.start();
      for await (const message of client.messages({ signal })) {
        await printMessage(cli, client, message);
        received += 1;
        if (received === options.count) break;
      }
    } finally {
      // Ends the notices; what ended them first, if something did, is thrown here.
      ending.abort();
      await notices;
    }
    await sendReceipts(cli, client);
    if (options.count !== undefined && received < options.count) {
      throw new CommandError(
        exitFailed,
        limit?.signal.aborted === true && !cli.interrupted.aborted ? 'TIMEOUT' : 'INTERRUPTED',
        `${received} of ${options.count} messages came`,
      );
    }
  });
}

/** Senders hear now that their messages came, if that is quick; else with the next command. */
async function sendReceipts(cli: Cli, client: QpcClient): Promise<void> {
  if (cli.interrupted.aborted) return;
  using limit = new TimeLimit(cli.interrupted, receiptsSeconds);
  try {
    await limit.guard(client.sealReceipts());
    await client.flush(limit.signal);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
  }
}

async function printMessage(cli: Cli, client: QpcClient, message: ReceivedMessage): Promise<void> {
  const { conversationId, senderUserId, senderDeviceId, text, sentMs, receivedMs } = message;
  const conversation = client
    .conversations()
    .find(({ id }) => Buffer.compare(id, conversationId) === 0);
  const where = shownName(conversation?.name ?? '', conversationId);
  const when = new Date(receivedMs).toISOString();
  await cli.output.result(`${when} [${where}] ${senderUserId}: ${visible(text)}`, {
    type: 'message',
    conversation: hexOf(conversationId),
    message: hexOf(message.id),
    senderUserId,
    senderDeviceId,
    text,
    sentMs,
    receivedMs,
    verification: message.verification,
    via: message.via,
  });
}

/** Prints what a listener should know besides messages, until `ending` or a lost session. */
async function printNotices(cli: Cli, client: QpcClient, ending: AbortController): Promise<void> {
  for await (const event of client.events(ending.signal)) {
    if (event.type === 'link' && isFinal(event.state)) {
      ending.abort();
      throw finalError(event.state);
    }
    const notice = noticeOf(event);
    if (notice !== undefined) await cli.output.notice(notice.line, notice.record);
  }
}

type FinalState = 'sessionExpired' | 'superseded';

function isFinal(state: string): state is FinalState {
  return state === 'sessionExpired' || state === 'superseded';
}

function finalError(state: FinalState): CommandError {
  return state === 'superseded'
    ? new CommandError(exitFailed, 'SUPERSEDED', 'another connection of this device took over')
    : new CommandError(
        exitFailed,
        'NOT_LOGGED_IN',
        'the session of this device has ended; run: qpc login',
      );
}

function noticeOf(event: ClientEvent): { line: string; record: JsonRecord } | undefined {
  switch (event.type) {
    case 'link':
      if (event.state === 'connecting' || event.state === 'stopped') return undefined;
      return {
        line: `-- ${event.state}${event.reason === undefined ? '' : ` (${event.reason})`}`,
        record: { type: 'link', state: event.state, reason: event.reason ?? null },
      };
    case 'joined':
      return {
        line: `-- ${event.creator} added you to ${shownName(event.name, event.conversationId)}`,
        record: {
          type: 'joined',
          conversation: hexOf(event.conversationId),
          name: event.name,
          creator: event.creator,
        },
      };
    case 'membersChanged':
    case 'renamed':
    case 'roleChanged':
    case 'timerChanged':
    case 'disappeared':
    case 'removed':
    case 'groupChange':
    case 'hubRefused':
    case 'fork':
    case 'commitRefused':
    case 'commitDoubted':
    case 'leftBehind':
    case 'cameBack':
    case 'stillBehind':
      return groupNoticeOf(event);
    case 'undecryptable':
      return {
        line: `-- a message cannot be read (${event.reason})`,
        record: { type: 'undecryptable', reason: event.reason, mid: hexOf(event.mid) },
      };
    case 'gap':
      return {
        line: `-- the node no longer has messages ${event.from} to ${event.to}`,
        record: { type: 'gap', from: event.from, to: event.to },
      };
    case 'storeRestored':
      return {
        line: '-- the store of this device is an old copy: messages are asked for again, and it takes new keys in its conversations',
        record: { type: 'storeRestored', from: event.from, to: event.to },
      };
    case 'missing':
      return {
        line: `-- messages ${event.from} to ${event.to} of a device in ${shortId(event.conversationId)} are lost (${event.reason})`,
        record: {
          type: 'missing',
          conversation: hexOf(event.conversationId),
          senderDeviceId: event.senderDeviceId,
          from: event.from,
          to: event.to,
          reason: event.reason,
        },
      };
    case 'ownNode':
      return {
        line: event.isAway
          ? '-- the own node does not answer; messages go past it where they can'
          : '-- the own node is back',
        record: { type: 'ownNode', isAway: event.isAway },
      };
    case 'sendFailed':
      return {
        line: `-- a node refused a message of this device (${event.reason})`,
        record: { type: 'sendFailed', reason: event.reason, device: hexOf(event.rid) },
      };
    case 'bounced':
      return {
        line: `-- a message of this device came back (${event.reason}); it will not arrive`,
        record: {
          type: 'bounced',
          reason: event.reason,
          device: hexOf(event.rid),
        },
      };
    case 'waitsForToken':
      return {
        line: '-- a message of this device waits until its recipient lets it in',
        record: { type: 'waitsForToken', device: hexOf(event.rid) },
      };
    case 'unproven':
      return {
        line: `-- the node does not prove that it has a message (${event.reason}); it is sent again`,
        record: { type: 'unproven', reason: event.reason, device: hexOf(event.rid) },
      };
    case 'expired':
      return {
        line: '-- a message of this device was not fetched in time; it is gone',
        record: {
          type: 'expired',
          device: hexOf(event.rid),
        },
      };
    case 'delayed':
      return {
        line: `-- ${event.domain} is away; ${event.messageIds.length} of your messages wait for it`,
        record: {
          type: 'delayed',
          domain: event.domain,
          since: event.sinceMs,
          messages: event.messageIds.length,
        },
      };
    case 'keyChange':
    case 'identityReset':
    case 'deviceChange':
    case 'unexpectedKey':
    case 'logAlarm':
      return keyNoticeOf(event);
    case 'typing':
      return {
        line: `-- ${event.userId} is writing in ${shortId(event.conversationId)}`,
        record: {
          type: 'typing',
          conversation: hexOf(event.conversationId),
          userId: event.userId,
        },
      };
    // Of use to programs that embed the library, noise for a listener.
    case 'parked':
    case 'accepted':
    case 'relayed':
    case 'delivered':
    case 'read':
    case 'storeChanged':
    case 'overflow':
      return undefined;
  }
}
