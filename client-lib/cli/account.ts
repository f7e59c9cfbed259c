/**
 * `qpc register`, `qpc login`, `qpc whoami`: the account of this home.
 */
import type { Command } from 'commander';
import { parseNodeAddress, parseUserId } from '@quicprochat/proto';
import type { QpcClient, WhoAmI } from '../index.ts';
import type { Protection } from '../crypto/key-vault.ts';
import {
  askPassphrase,
  requireHome,
  TimeLimit,
  withClient,
  withCommonOptions,
  withStore,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { usage } from './failure.ts';
import { Home } from './home.ts';
import { hexOf } from './output.ts';

export interface PasswordOptions extends TimedOptions {
  readonly passwordFile?: string;
}
export interface RegisterOptions extends PasswordOptions {
  readonly node: string;
  /** False with --no-passphrase. */
  readonly passphrase: boolean;
}

export function addAccountCommands(program: Command, cli: Cli): void {
  withTimedOptions(program.command('register <user@domain>'), cli)
    .description('make an account at a node, with this home as its first device')
    .requiredOption('--node <address>', 'qpc://host:port#pin, from the operator of the node')
    .option('--password-file <file>', 'file with the password of the account; - is stdin')
    .option('--no-passphrase', 'keep the key of the store readable for this user, for machines')
    .action((userId: string, options: RegisterOptions) => register(cli, userId, options));
  withTimedOptions(program.command('login'), cli)
    .description('begin a new session of this device, when the old one has ended')
    .option('--password-file <file>', 'file with the password of the account; - is stdin')
    .action((options: PasswordOptions) => login(cli, options));
  withCommonOptions(program.command('whoami'), cli)
    .description('show the account and the device of this home')
    .action((options: CommonOptions) => whoami(cli, options));
}

async function register(cli: Cli, userId: string, options: RegisterOptions): Promise<void> {
  // Everything that can be wrong about the arguments, before anything is asked or made.
  parseUserId(userId);
  parseNodeAddress(options.node);
  needOneProtection(options);
  await withAccountPassword(cli, options, true, async (password) => {
    const { home, storeKey } = await openOrCreateHome(cli, options);
    await withStore(cli, home, storeKey, async (client) => {
      using limit = new TimeLimit(cli.interrupted, options.timeout);
      limit.waitsFor(() => 'the node did not answer in time; run the same command again');
      const { signal } = limit;
      await limit.guard(client.register({ userId, password, nodeAddress: options.node, signal }));
      await report(cli, client, 'registered');
    });
  });
}

/** Gives `work` the account's password and wipes it. Asked before any passphrase. */
export async function withAccountPassword(
  cli: Cli,
  options: PasswordOptions,
  isNew: boolean,
  work: (password: Uint8Array) => Promise<void>,
): Promise<void> {
  const password = await askPassword(cli, options, isNew);
  try {
    await work(password);
  } finally {
    password.fill(0);
  }
}

/** Checked before anything is asked for or made. */
export function needOneProtection(options: RegisterOptions): void {
  if (!options.passphrase && options.passphraseFile !== undefined) {
    throw usage('--no-passphrase and --passphrase-file exclude each other');
  }
}

/** The home of the options and the key of its store; made when it is not there. */
export async function openOrCreateHome(
  cli: Cli,
  options: CommonOptions & { readonly passphrase: boolean },
): Promise<{ readonly home: Home; readonly storeKey: Uint8Array }> {
  const home = new Home(options.home);
  const storeKey = home.exists()
    ? await home.open(() => askPassphrase(cli, options, false))
    : await createHome(cli, home, options);
  return { home, storeKey };
}

async function createHome(
  cli: Cli,
  home: Home,
  options: CommonOptions & { readonly passphrase: boolean },
): Promise<Uint8Array> {
  const protection: Protection = options.passphrase
    ? { kind: 'passphrase', passphrase: await askPassphrase(cli, options, true) }
    : { kind: 'none' };
  try {
    return await home.create(protection, cli.runtime.random);
  } finally {
    if (protection.kind === 'passphrase') protection.passphrase.fill(0);
  }
}

async function login(cli: Cli, options: PasswordOptions): Promise<void> {
  requireHome(options);
  // Before the passphrase, as in register: both may be lines of the same standard input.
  await withAccountPassword(cli, options, false, async (password) => {
    await withClient(cli, options, async (client) => {
      const { userId } = client.whoami();
      using limit = new TimeLimit(cli.interrupted, options.timeout);
      limit.waitsFor(() => 'the node did not answer in time');
      await limit.guard(client.login({ userId, password, signal: limit.signal }));
      await report(cli, client, 'loggedIn');
    });
  });
}

async function report(cli: Cli, client: QpcClient, type: 'registered' | 'loggedIn'): Promise<void> {
  const { userId, deviceId, sessionExpiresMs } = client.whoami();
  const what = type === 'registered' ? 'registered' : 'logged in';
  await cli.output.result(`${what} ${userId}, device ${deviceId}`, {
    type,
    userId,
    deviceId,
    sessionExpiresMs,
  });
}

async function whoami(cli: Cli, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const me = client.whoami();
    await cli.output.result(describe(me), {
      type: 'whoami',
      userId: me.userId,
      deviceId: me.deviceId,
      identityKey: hexOf(me.identityPub),
      accountKey: me.accountKey === undefined ? null : hexOf(me.accountKey),
      node: me.nodeAddress,
      isRegistered: me.isRegistered,
      sessionExpiresMs: me.sessionExpiresMs,
    });
  });
}

function describe(me: WhoAmI): string {
  const session = me.isRegistered
    ? `until ${new Date(me.sessionExpiresMs).toISOString()}`
    : 'none: registration is not finished, run qpc register again';
  return [
    `user         ${me.userId}`,
    `device       ${me.deviceId}`,
    `account key  ${me.accountKey === undefined ? 'not on this device' : hexOf(me.accountKey)}`,
    `node         ${me.nodeAddress}`,
    `session      ${session}`,
  ].join('\n');
}

async function askPassword(
  cli: Cli,
  options: PasswordOptions,
  isNew: boolean,
): Promise<Uint8Array> {
  return cli.secrets.ask({
    name: 'password of the account',
    option: '--password-file',
    file: options.passwordFile,
    isNew,
  });
}
