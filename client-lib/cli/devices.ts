/**
 * `qpc device add`, `qpc device list`, `qpc device revoke`, `qpc account rotate-key`, `qpc account
 * delete`: the devices and the keys of the own account. Each change is done when the log shows it.
 */
import type { Command } from 'commander';
import { parseNodeAddress, parseUserId } from '@quicprochat/proto';
import type { OwnDevice } from '../index.ts';
import {
  needOneProtection,
  openOrCreateHome,
  withAccountPassword,
  type PasswordOptions,
  type RegisterOptions,
} from './account.ts';
import {
  TimeLimit,
  withClient,
  withOnlineClient,
  withStore,
  withTimedOptions,
  type Cli,
  type TimedOptions,
} from './cli.ts';
import { usage } from './failure.ts';
import { hexOf } from './output.ts';

interface DeleteOptions extends TimedOptions {
  readonly yes?: boolean;
}

export function addDeviceCommands(program: Command, cli: Cli): void {
  const device = program.command('device').description('the devices of the own account');
  withTimedOptions(device.command('add <user@domain>'), cli)
    .description('make this home one more device of an account that exists')
    .requiredOption('--node <address>', 'qpc://host:port#pin, from the operator of the node')
    .option('--password-file <file>', 'file with the password of the account; - is stdin')
    .option('--no-passphrase', 'keep the key of the store readable for this user, for machines')
    .action((userId: string, options: RegisterOptions) => add(cli, userId, options));
  withTimedOptions(device.command('list'), cli)
    .description('list the devices of the account, as the log shows them')
    .action((options: TimedOptions) => list(cli, options));
  withTimedOptions(device.command('revoke <device>'), cli)
    .description('revoke another device of the account, for good')
    .action((deviceId: string, options: TimedOptions) => revoke(cli, deviceId, options));

  const account = program.command('account').description('the own account');
  withTimedOptions(account.command('rotate-key'), cli)
    .description('replace the account key; the old one signs for the new one')
    .option('--password-file <file>', 'file with the password of the account; - is stdin')
    .action((options: PasswordOptions) => rotate(cli, options));
  withTimedOptions(account.command('delete'), cli)
    .description('delete the account at its node; nobody gets the name again')
    .option('--yes', 'really')
    .action((options: DeleteOptions) => remove(cli, options));
}

async function add(cli: Cli, userId: string, options: RegisterOptions): Promise<void> {
  parseUserId(userId);
  parseNodeAddress(options.node);
  needOneProtection(options);
  await withAccountPassword(cli, options, false, async (password) => {
    const { home, storeKey } = await openOrCreateHome(cli, options);
    await withStore(cli, home, storeKey, async (client) => {
      using limit = new TimeLimit(cli.interrupted, options.timeout);
      limit.waitsFor(() => 'the node did not answer in time; run the same command again');
      const { signal } = limit;
      await limit.guard(client.addDevice({ userId, password, nodeAddress: options.node, signal }));
      const { deviceId, sessionExpiresMs } = client.whoami();
      await cli.output.result(`device ${deviceId} of ${userId} added`, {
        type: 'deviceAdded',
        userId,
        deviceId,
        sessionExpiresMs,
      });
    });
  });
}

async function list(cli: Cli, options: TimedOptions): Promise<void> {
  await withOnlineClient(cli, options, async (client, signal) => {
    for (const device of await client.devices(signal)) {
      await cli.output.result(describe(device), {
        type: 'device',
        deviceId: device.deviceId,
        identityKey: hexOf(device.identityPub),
        addedMs: device.addedMs,
        sessionExpiresMs: device.sessionExpiresMs,
        isThisDevice: device.isThisDevice,
      });
    }
  });
}

function describe({ deviceId, addedMs, sessionExpiresMs, isThisDevice }: OwnDevice): string {
  const session =
    sessionExpiresMs === 0 ? 'no session' : `session until ${isoOf(sessionExpiresMs)}`;
  return `${deviceId}  added ${isoOf(addedMs)}  ${session}${isThisDevice ? '  (this one)' : ''}`;
}

const isoOf = (ms: number): string => new Date(ms).toISOString();

async function revoke(cli: Cli, deviceId: string, options: TimedOptions): Promise<void> {
  if (!/^[a-z2-7]{16}$/.test(deviceId)) throw usage('device: need its id, see: qpc device list');
  await withOnlineClient(cli, options, async (client, signal) => {
    await client.revokeDevice(deviceId, 'revoked by its owner', signal);
    await cli.output.result(`device ${deviceId} is revoked`, { type: 'deviceRevoked', deviceId });
  });
}

async function rotate(cli: Cli, options: PasswordOptions): Promise<void> {
  await withAccountPassword(cli, options, false, async (password) => {
    await withClient(cli, options, async (client) => {
      using limit = new TimeLimit(cli.interrupted, options.timeout);
      limit.waitsFor(() => 'the node did not answer in time; run the same command again');
      await limit.guard(client.rotateAccountKey({ password, signal: limit.signal }));
      const { userId, accountKey } = client.whoami();
      const key = accountKey === undefined ? '' : hexOf(accountKey);
      await cli.output.result(`the account key of ${userId} is ${key} now`, {
        type: 'accountKey',
        userId,
        accountKey: key,
      });
    });
  });
}

async function remove(cli: Cli, options: DeleteOptions): Promise<void> {
  if (options.yes !== true) {
    throw usage('this deletes the account for good, and nobody gets its name again; add --yes');
  }
  await withOnlineClient(cli, options, async (client, signal) => {
    const { userId } = client.whoami();
    await client.deleteAccount(signal);
    await cli.output.result(`the account ${userId} is deleted; you can delete this home`, {
      type: 'accountDeleted',
      userId,
    });
  });
}
