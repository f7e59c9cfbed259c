/**
 * `qpc kt history`, `status`, `credential`, `compare`, `accept`, `trust`, and `qpc audit`: what key-transparency logs
 * say about people's keys, and how a listener is told of changes.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { parseUserId } from '@quicprochat/proto';
import type { ClientEvent, Contact, LogStatus } from '../index.ts';
import {
  withClient,
  withCommonOptions,
  withOnlineClient,
  withTimedOptions,
  type Cli,
  type CommonOptions,
  type TimedOptions,
} from './cli.ts';
import { CommandError, exitFailed, usage } from './failure.ts';
import { writeFileFor } from './files.ts';
import { hexOf, visible, type JsonRecord } from './output.ts';

/** A log that has not answered for so long is told to be stale (ms). */
const staleMs = 24 * 3_600_000;

export function addKeyCommands(program: Command, cli: Cli): void {
  program
    .command('audit')
    .description('qpc-audit: follow a key log without trusting its node (qpc audit --help)')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[arguments...]')
    .action((args: readonly string[]) => audit(args));
  const kt = program.command('kt').description('keys, and the logs that vouch for them');
  withTimedOptions(kt.command('history <user@domain>'), cli)
    .description('show how the keys of a user changed, as the log of its home shows it')
    .action((userId: string, options: TimedOptions) => history(cli, userId, options));
  withCommonOptions(kt.command('status'), cli)
    .description('show the logs that this device relies on, and what happened to keys')
    .action((options: CommonOptions) => status(cli, options));
  withCommonOptions(kt.command('credential <file>'), cli)
    .description('write the proof of your own keys that others can check while no node answers')
    .action((file: string, options: CommonOptions) => credential(cli, file, options));
  withCommonOptions(kt.command('trust <domain>'), cli)
    .description('believe the log of a domain again that contradicted itself')
    .action((domain: string, options: CommonOptions) => trust(cli, domain, options));
  withTimedOptions(kt.command('compare <user@domain> <account-key>'), cli)
    .description('say that you compared this account key with the person (64 hex digits)')
    .action((userId: string, key: string, options: TimedOptions) =>
      compare(cli, userId, key, options),
    );
  withCommonOptions(kt.command('accept <user@domain>'), cli)
    .description('use the new keys of a user whose account key was replaced without its signature')
    .action((userId: string, options: CommonOptions) => accept(cli, userId, options));
}

/** The auditor's command is kt-log's own; it needs no account and gets the terminal as it is. */
async function audit(args: readonly string[]): Promise<void> {
  const main = fileURLToPath(import.meta.resolve('@quicprochat/kt-log/qpc-audit'));
  const child = spawn(process.execPath, [main, ...args], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  process.exitCode = code ?? exitFailed;
}

async function history(cli: Cli, userId: string, options: TimedOptions): Promise<void> {
  parseUserId(userId);
  await withOnlineClient(cli, options, async (client, signal) => {
    for (const change of await client.keyHistory(userId, signal)) {
      const { version, atMs, kind, text, added, revoked } = change;
      await cli.output.result(`${new Date(atMs).toISOString()}  version ${version}  ${text}`, {
        type: 'keyVersion',
        userId,
        version,
        atMs,
        change: kind,
        added,
        revoked,
      });
    }
  });
}

async function status(cli: Cli, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    for (const log of client.logs()) {
      const { domain, origin, size, newestMs, answeredMs, watched, evidence } = log;
      const witnessedSize = log.witnessedSize ?? null;
      const witnessed =
        witnessedSize === null ? 'no auditor known' : `cosigned up to ${witnessedSize}`;
      const state = stateOf(log, cli.runtime.clock.now());
      await cli.output.result(
        `${domain}  log of ${size} entries, newest ${new Date(newestMs).toISOString()}, ${witnessed}${state}`,
        {
          type: 'log',
          domain,
          origin,
          size,
          newestMs,
          answeredMs,
          witnessedSize,
          watched,
          unwitnessedSinceMs: log.unwitnessedSinceMs ?? null,
          isConvicted: log.isConvicted,
          evidence: evidence.map(hexOf),
        },
      );
    }
    for (const event of client.keyEvents().toReversed()) {
      const { atMs, type, subject, reason } = event;
      await cli.output.result(
        `${new Date(atMs).toISOString()}  ${type}  ${subject}  ${visible(reason)}`,
        { type: 'keyEvent', atMs, event: type, subject, reason },
      );
    }
  });
}

/** What is wrong with a log, for people. */
function stateOf(log: LogStatus, nowMs: number): string {
  const { isConvicted, evidence, unwitnessedSinceMs, answeredMs, domain } = log;
  const since = (ms: number): string => new Date(ms).toISOString();
  const states = [
    ...(isConvicted
      ? [`CONTRADICTED ITSELF: new keys of it are refused until you run: qpc kt trust ${domain}`]
      : []),
    ...(!isConvicted && evidence.length > 0 ? ['contradicted itself, and trusted again'] : []),
    ...(unwitnessedSinceMs === undefined ? [] : [`UNWITNESSED since ${since(unwitnessedSinceMs)}`]),
    ...(nowMs - answeredMs > staleMs ? [`STALE: no answer since ${since(answeredMs)}`] : []),
  ];
  return states.map((state) => `  ${state}`).join('');
}

async function trust(cli: Cli, domain: string, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const log = client.logs().find((one) => one.domain === domain);
    if (log === undefined) {
      throw new CommandError(exitFailed, 'NO_LOG', `the log of ${domain} is not relied on here`);
    }
    client.trustLog(domain);
    const { evidence } = log;
    await cli.output.result(`${domain}  believed again, in spite of ${evidence.length} pieces`, {
      type: 'logTrusted',
      domain,
      evidence: evidence.map(hexOf),
    });
  });
}

async function credential(cli: Cli, file: string, options: CommonOptions): Promise<void> {
  await withClient(cli, options, async (client) => {
    const bytes = client.credential();
    if (bytes === undefined) {
      throw new CommandError(
        exitFailed,
        'NOT_YET',
        'the log has made no credential of your keys yet',
      );
    }
    await writeFileFor(file, bytes);
    await cli.output.result(`${file}  ${bytes.length} bytes`, { type: 'credential', file });
  });
}

async function compare(
  cli: Cli,
  userId: string,
  key: string,
  options: TimedOptions,
): Promise<void> {
  parseUserId(userId);
  if (!/^[0-9a-f]{64}$/i.test(key)) throw usage('account key: need 64 hex digits');
  await withOnlineClient(cli, options, async (client, signal) => {
    if (client.contact(userId)?.isBlocked !== true) await client.lookUp(userId, signal);
    await report(cli, client.verify(userId, new Uint8Array(Buffer.from(key, 'hex'))));
  });
}

async function accept(cli: Cli, userId: string, options: CommonOptions): Promise<void> {
  parseUserId(userId);
  await withClient(cli, options, async (client) => {
    await client.acceptIdentityReset(userId);
    const contact = client.contact(userId);
    if (contact !== undefined) await report(cli, contact);
  });
}

async function report(cli: Cli, contact: Contact): Promise<void> {
  const { userId, verification, accountKey, version, verifiedMs, treeSize, witnessed } = contact;
  await cli.output.result(`${userId}  ${verification}  account key ${hexOf(accountKey)}`, {
    type: 'contact',
    userId,
    verification,
    accountKey: hexOf(accountKey),
    version,
    verifiedMs,
    treeSize,
    witnessed,
  });
}

type KeyNotice = Extract<
  ClientEvent,
  { type: 'keyChange' | 'identityReset' | 'deviceChange' | 'unexpectedKey' | 'logAlarm' }
>;

/** How a listener is told. */
export function keyNoticeOf(event: KeyNotice): { line: string; record: JsonRecord } {
  switch (event.type) {
    case 'keyChange': {
      const { type, userId, version, change, added, revoked } = event;
      return {
        line: `-- keys of ${userId} changed (${change}, version ${version})`,
        record: { type, userId, version, change, added, revoked },
      };
    }
    case 'identityReset': {
      const { type, userId, version, isBlocked } = event;
      const what = isBlocked
        ? `nothing is sent to it until you run: qpc kt accept ${userId}`
        : 'compare keys with the person';
      return {
        line: `-- WARNING: the account key of ${userId} was REPLACED without its signature; ${what}`,
        record: { type, userId, version, isBlocked },
      };
    }
    case 'deviceChange': {
      const { type, version, change, added, revoked } = event;
      return {
        line: `-- another device of this account changed its keys (${change}, version ${version})`,
        record: { type, version, change, added, revoked },
      };
    }
    case 'unexpectedKey': {
      const { type, reason, message } = event;
      return {
        line: `-- WARNING: somebody changed the keys of THIS account: ${visible(message)}`,
        record: { type, reason, message },
      };
    }
    case 'logAlarm': {
      const { type, domain, kind, reason, message } = event;
      return {
        line: `-- WARNING: key log of ${domain}: ${kind}: ${visible(message)}`,
        record: { type, domain, kind, reason, message },
      };
    }
  }
}
