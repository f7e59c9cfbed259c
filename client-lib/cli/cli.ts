/**
 * What every command of `qpc` shares: the options, the home, an open client, and time limits that
 * say what was being waited for.
 */
import { InvalidArgumentError as InvalidOption, Option, type Command } from 'commander';
import type { Runtime } from '@quicprochat/proto';
import { QpcClient, type OpenOptions } from '../index.ts';
import { CommandError, exitFailed, exitSetup } from './failure.ts';
import { fallbackOf, type FallbackFlags } from './fallback.ts';
import { Home } from './home.ts';
import type { Output } from './output.ts';
import type { SecretInput } from './secret-input.ts';

/** Parts of the process that commands use, passed in by main.ts. */
export interface Cli {
  readonly defaultHome: string;
  readonly output: Output;
  readonly secrets: SecretInput;
  readonly runtime: Runtime;
  /** Aborted by SIGINT and SIGTERM. */
  readonly interrupted: AbortSignal;
}

export interface CommonOptions extends FallbackFlags {
  readonly home: string;
  readonly json?: boolean;
  readonly passphraseFile?: string;
  /** Of `send`: see OpenOptions.sealedSender. */
  readonly sealed?: boolean;
  /** Of `listen`: see OpenOptions.sendsReadReceipts. */
  readonly readReceipts?: boolean;
}

export interface TimedOptions extends CommonOptions {
  /** Seconds. */
  readonly timeout: number;
}

/** Adds the options that every command with a home has. */
export function withCommonOptions(command: Command, cli: Cli): Command {
  const home = new Option('--home <directory>', 'directory of this device');
  return withJsonOption(command, cli)
    .addOption(home.default(cli.defaultHome, '$QPC_HOME or ~/.qpc'))
    .option('--passphrase-file <file>', 'file with the passphrase of this device; - is stdin');
}

/** Adds the one option of a command that needs no home. */
export function withJsonOption(command: Command, cli: Cli): Command {
  return command
    .option('--json', 'print one JSON object per line')
    .hook('preAction', (_parent, action) => {
      cli.output.useJson(action.opts<Pick<CommonOptions, 'json'>>().json === true);
    });
}

/** Adds the common options and a time limit. */
export function withTimedOptions(command: Command, cli: Cli): Command {
  const timeout = new Option('--timeout <seconds>', 'give up after this time')
    .default(30)
    .argParser(secondsOf);
  return withCommonOptions(command, cli).addOption(timeout);
}

/** Parses a number of seconds, 0.001 to 86 400 000. */
export function secondsOf(text: string): number {
  const seconds = Number(text);
  if (!/^\d+(?:\.\d+)?$/.test(text) || seconds < 0.001 || seconds > 86_400_000) {
    throw new InvalidOption('need a number of seconds above 0');
  }
  return seconds;
}

/** Parses a count, 1 to 2^31 - 1. */
export function countOf(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count >= 2 ** 31) {
    throw new InvalidOption('need a whole number above 0');
  }
  return count;
}

/** The home of the options, where a device lives. Throws CommandError when there is none. */
export function requireHome(options: CommonOptions): Home {
  const home = new Home(options.home);
  if (home.exists()) return home;
  throw new CommandError(
    exitSetup,
    'NO_ACCOUNT',
    `${home.directory}: no account here yet; run: qpc register, or name another --home`,
  );
}

/** Opens the client of an existing home for the time of `work`. */
export async function withClient<T>(
  cli: Cli,
  options: CommonOptions,
  work: (client: QpcClient) => Promise<T>,
): Promise<T> {
  const home = requireHome(options);
  const storeKey = await home.open(() => askPassphrase(cli, options, false));
  return withStore(cli, home, storeKey, work, {
    sealedSender: options.sealed === true,
    sendsReadReceipts: options.readReceipts === true,
    fallback: await fallbackOf(options),
  });
}

/** Opens the client with a key that it wipes. */
export async function withStore<T>(
  cli: Cli,
  home: Home,
  storeKey: Uint8Array,
  work: (client: QpcClient) => Promise<T>,
  options: Partial<Pick<OpenOptions, 'sealedSender' | 'sendsReadReceipts' | 'fallback'>> = {},
): Promise<T> {
  let client: QpcClient;
  try {
    client = await QpcClient.open({
      storePath: home.storePath,
      storeKey,
      runtime: cli.runtime,
      ...options,
    });
  } finally {
    storeKey.fill(0);
  }
  await using open = client;
  return await work(open);
}

/** Opens the client, connects it (or, with `--p2p`, begins to), and gives `work` a signal with the command's time limit. */
export async function withOnlineClient<T>(
  cli: Cli,
  options: TimedOptions,
  work: (client: QpcClient, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return withClient(cli, options, async (client) => {
    using limit = new TimeLimit(cli.interrupted, options.timeout);
    // Where there are ways past the node, it is not waited for.
    if (options.p2p !== true) await goOnline(client, limit);
    else client.start();
    limit.waitsFor(() => 'the node did not answer in time');
    return await limit.guard(work(client, limit.signal));
  });
}

/**
 * Starts the connection and waits until it stands. What no waiting mends (another key than the
 * pinned one, another version) fails at once; the client itself would try for ever.
 */
export async function goOnline(client: QpcClient, limit: TimeLimit): Promise<void> {
  const watching = new AbortController();
  const events = client.events(watching.signal);
  let reason: string | undefined;
  const watched = (async () => {
    for await (const event of events) {
      if (event.type !== 'link' || event.reason === undefined) continue;
      ({ reason } = event);
      if (reason === 'BAD_CREDENTIAL' || reason === 'VERSION') {
        limit.fail(new CommandError(exitFailed, reason, linkAdvice(reason)));
      }
    }
  })();
  limit.waitsFor(() => linkAdvice(reason));
  client.start();
  try {
    await limit.guard(client.online(limit.signal));
  } finally {
    watching.abort();
    await watched;
  }
}

function linkAdvice(reason: string | undefined): string {
  switch (reason) {
    case 'BAD_CREDENTIAL':
      return 'the node shows another key than the pin of its address; ask its operator about it';
    case 'VERSION':
      return 'the node speaks another version of the protocol; update qpc, or ask its operator';
    default:
      return 'the node does not answer; check its address and the network';
  }
}

export async function askPassphrase(
  cli: Cli,
  options: CommonOptions,
  isNew: boolean,
): Promise<Uint8Array> {
  return cli.secrets.ask({
    name: 'passphrase of this device',
    option: '--passphrase-file',
    file: options.passphraseFile,
    isNew,
  });
}

/** setTimeout holds no more (ms); a longer limit is as good as none. */
const timerMsMax = 2 ** 31 - 1;

/** A signal that aborts with an error for the user: interrupted, failed, or out of time and why. */
export class TimeLimit implements Disposable {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #explain: () => string = () => 'it took too long';

  constructor(interrupted: AbortSignal, seconds: number) {
    this.signal = AbortSignal.any([interrupted, this.#controller.signal]);
    const expire = (): void => {
      const message = `${this.#explain()} (gave up after ${seconds} s, see --timeout)`;
      this.fail(new CommandError(exitFailed, 'TIMEOUT', message));
    };
    this.#timer = setTimeout(expire, Math.min(seconds * 1000, timerMsMax));
  }

  /** Says what a timeout from now on means. */
  waitsFor(explain: () => string): void {
    this.#explain = explain;
  }

  /** The work's outcome; when it ended because of this limit, the command's word for it, else the limit's. */
  async guard<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      // Words of a command, which knows what it had when time ran out.
      if (error instanceof CommandError) throw error;
      // The layers below name their own part of it ("dial: cancelled").
      this.signal.throwIfAborted();
      throw error;
    }
  }

  fail(error: CommandError): void {
    this.#controller.abort(error);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
