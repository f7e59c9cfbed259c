#!/usr/bin/env node
/** `qpcd`: arguments -> config -> node -> signals. The only file here that ends the process. */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import {
  QpcError,
  systemClock,
  systemRandom,
  TransportError,
  type Log,
  type Runtime,
} from '@quicprochat/proto';
import { transportOf } from '@quicprochat/proto/transport';
import { parsePeersFile, type PeersFile, type RecordSite } from '@quicprochat/federation';
import { openAdminDoor } from './admin-door.ts';
import { formatEndpoint, loadConfig, type NodeConfig } from './config.ts';
import { askHealth } from './health-command.ts';
import { boundAddress, initNode } from './init.ts';
import { readKeyFile } from './key-file.ts';
import { closeLog, openLog } from './key-log.ts';
import { checkOwnLog, decide, evidenceByHash, peerLogs } from './kt-commands.ts';
import {
  finishRotation,
  loadNodeKeys,
  prepareRotation,
  rotationMs,
  type KeyPair,
  type NodeKeys,
} from './node-keys.ts';
import { startNode, type QpcNode } from './node.ts';
import {
  dropDeadLetters,
  lookAtOutbox,
  outboxLines,
  readOutbox,
  retryDeadLetters,
  withOutbox,
  type OutboxReads,
} from './outbox-commands.ts';
import { peerLines, signalReload, writePidFile } from './peers-commands.ts';
import { loadSecrets } from './secrets.ts';
import { httpsSite } from './services/fed-site.ts';
import { codeOf, SetupError } from './setup-error.ts';
import { Hangups, stopSignal } from './signals.ts';
import { StartWatch } from './start-watch.ts';
import { copyDatabase } from './store/backup.ts';
import { openNodeStore } from './store/open.ts';
import type { OutboxControl } from './store/outbox-control.ts';
import type { NodeStore } from './store/store.ts';
import { createLog } from './telemetry.ts';

const software = 'qpcd 0.1.0';
/** Exit codes: 1 = failed while running, 2 = could not start as configured. */
const exitFailed = 1;
const exitSetup = 2;

const program = new Command('qpcd')
  .description('quicprochat node')
  .version(software)
  .showHelpAfterError()
  .exitOverride();

program
  .command('init')
  .description('make the directory of a new node: configuration, keys, encrypted database')
  .requiredOption('--domain <domain>', 'domain of the node and its users, like red.example')
  .option('--dir <directory>', 'directory to make', 'qpcd')
  .option('--listen <ip:port>', 'address and UDP port to bind', '[::]:5001')
  .option('--advertise <host:port>', 'where others reach it (default: domain and port)')
  .action(async (options: { domain: string; dir: string; listen: string; advertise?: string }) => {
    const port = options.listen.slice(options.listen.lastIndexOf(':') + 1);
    const result = await initNode(
      {
        directory: options.dir,
        domain: options.domain,
        listen: options.listen,
        advertise: options.advertise ?? `${options.domain}:${port}`,
      },
      quietRuntime(),
    );
    process.stdout.write(`config  ${result.configPath}\naddress ${result.address}\n`);
  });

program
  .command('run')
  .description('run the node until SIGTERM or SIGINT')
  .option('--config <file>', 'configuration file', 'qpcd/qpcd.toml')
  .action((options: { config: string }) => run(loadConfig(options.config)));

const configOption = ['--config <file>', 'configuration file', 'qpcd/qpcd.toml'] as const;

program
  .command('health')
  .description('ask the running node how it is; ends with 0 if it is ready, else with 1')
  .option(...configOption)
  .action(async (options: { config: string }) => {
    const { isReady, line } = await askHealth(loadConfig(options.config), quietRuntime());
    print(line);
    if (!isReady) process.exitCode = exitFailed;
  });

program
  .command('backup')
  .description('copy the database to a new file, under the same key; also while the node runs')
  .argument('<file>', 'where to; must not exist yet')
  .option(...configOption)
  .action((file: string, options: { config: string }) => {
    const config = loadConfig(options.config);
    copyDatabase(config.databasePath, readKeyFile(config.databaseKeyPath), file);
    print(`${file}  ${statSync(file).size} bytes`);
  });

const kt = program
  .command('kt')
  .description('key logs, while the node is stopped: check the own one, judge those of peers');

kt.command('check')
  .description('replay the own log from its first entry, as an auditor would')
  .option(...configOption)
  .action((options: { config: string }) =>
    onStore(options.config, async (store, config, runtime) => {
      const secrets = (await loadSecrets(store, runtime.random)).keyLog;
      const opened = await openLog({
        domain: config.domain,
        config: { ...config.kt, vrfThreads: 0 },
        secrets,
        store,
        runtime,
      });
      try {
        const { size, failure, accountsOutsideLog } = await checkOwnLog(
          opened,
          store,
          runtime.clock,
        );
        const { length } = String(opened.log.size);
        print(`entries   ${String(size).padStart(length)} of ${opened.log.size} replayed`);
        print(`accounts  ${accountsOutsideLog} without an entry`);
        print(`verdict   ${failure ?? 'ok: every entry agrees with both signed roots'}`);
        if (failure !== undefined) process.exitCode = exitFailed;
      } finally {
        await closeLog(opened);
      }
    }),
  );

kt.command('peers')
  .description('the logs of peers as this node has followed them, and evidence against them')
  .option(...configOption)
  .action((options: { config: string }) =>
    onStore(options.config, async (store, config) => {
      const domains = readPeers(config).peers.map(({ domain }) => domain);
      for (const { origin, status, size, evidence } of await peerLogs(store, domains)) {
        print(`${origin}  ${status ?? 'not followed yet'}  ${size} entries`);
        for (const line of evidence) print(`  ${line}`);
      }
    }),
  );

kt.command('trust')
  .description('follow and cosign a log again that was judged; evidence against it is kept')
  .argument('<origin>', 'as "qpcd kt peers" prints it')
  .option(...configOption)
  .action((origin: string, options: { config: string }) =>
    onStore(options.config, async (store) => {
      print(`${origin}: was ${await decide(store, origin)}, is followed again from the next start`);
    }),
  );

kt.command('evidence')
  .description('write one piece of evidence to standard output, for qpc-audit verify-fork')
  .argument('<hash>', 'as "qpcd kt peers" prints it')
  .option(...configOption)
  .action((hash: string, options: { config: string }) =>
    onStore(options.config, async (store) => {
      process.stdout.write(await evidenceByHash(store, hash));
    }),
  );

const outbox = program
  .command('outbox')
  .description('rows for peers: what waits, and what was given up; also while the node runs');

outbox
  .command('list')
  .description('what is kept for each peer, and each dead letter')
  .option('--peer <domain>', 'of this peer only')
  .option(...configOption)
  .action(async (options: { config: string; peer?: string }) => {
    const { databasePath, databaseKeyPath } = loadConfig(options.config);
    const open = async () => readOutbox(databasePath, readKeyFile(databaseKeyPath));
    const look = (kept: OutboxReads) => Array.fromAsync(outboxLines(kept, options.peer));
    const onSilent = (): void => {
      process.stderr.write(
        'qpcd: the node does not answer (see its log): this is what its database holds\n',
      );
    };
    const lines = await lookAtOutbox(databasePath, quietRuntime(), open, look, onSilent);
    for (const one of lines) print(one);
  });

interface ChoiceOptions {
  readonly config: string;
  readonly peer?: string;
  readonly all?: true;
}

outbox
  .command('retry')
  .description('send dead letters again, for the rest of their time')
  .argument('[numbers...]', 'as "qpcd outbox list" prints them')
  .option('--peer <domain>', 'all of this peer')
  .option('--all', 'all of every peer')
  .option(...configOption)
  .action((ids: string[], { config, ...choice }: ChoiceOptions) =>
    onOutbox(config, async (kept, isRunning) => {
      const { retried, expired } = await retryDeadLetters(kept, { ids, ...choice });
      const when = isRunning ? '' : ' from the next start';
      print(`${retried} are sent again${when}, ${expired} are past their time`);
    }),
  );

outbox
  .command('drop')
  .description('remove dead letters for good; senders were told before')
  .argument('[numbers...]', 'as "qpcd outbox list" prints them')
  .option('--peer <domain>', 'all of this peer')
  .option('--all', 'all of every peer')
  .option(...configOption)
  .action((ids: string[], { config, ...choice }: ChoiceOptions) =>
    onOutbox(config, async (kept) => {
      print(`${await dropDeadLetters(kept, { ids, ...choice })} removed`);
    }),
  );

const keys = program
  .command('keys')
  .description("the node's TLS and signing keys, while it is stopped");

keys
  .command('show', { isDefault: true })
  .description('keys that the node has, and how a rotation stands')
  .option(...configOption)
  .action((options: { config: string }) =>
    onStore(options.config, async (store, config) => {
      printKeys(await loadNodeKeys(store), config);
    }),
  );

keys
  .command('prepare')
  .description('make new keys; from the next start on the record names both, for at least 7 days')
  .option(...configOption)
  .action((options: { config: string }) =>
    onStore(options.config, async (store, config, { clock, random }) => {
      printKeys(await prepareRotation(store, random, clock.now()), config);
    }),
  );

keys
  .command('finish')
  .description('use the new keys alone from the next start on')
  .option('--now', 'before the 7 days are over: who has not seen the new key is locked out')
  .option(...configOption)
  .action((options: { config: string; now?: true }) =>
    onStore(options.config, async (store, config, { clock }) => {
      printKeys(await finishRotation(store, clock.now(), options.now === true), config);
    }),
  );

function printKeys({ current, next, preparedMs, generation }: NodeKeys, config: NodeConfig): void {
  const addressOf = ({ identity }: KeyPair): string =>
    boundAddress(config, config.listen.port, identity.spkiSha256);
  print(`key ${generation} in use  ${addressOf(current)}`);
  if (next === undefined) return;
  const until = new Date(preparedMs + rotationMs).toISOString().slice(0, 16);
  print(`key ${generation + 1} prepared  ${addressOf(next)}  finish it after ${until}Z`);
}

const peers = program
  .command('peers')
  .description('nodes that this one federates with; also while it runs');

peers
  .command('list', { isDefault: true })
  .description('each peer: link, credit, what waits for it, last error, until when its keys last')
  .option(...configOption)
  .action((options: { config: string }) => {
    const config = loadConfig(options.config);
    const key = readKeyFile(config.databaseKeyPath);
    for (const line of peerLines(config.databasePath, key, readPeers(config), systemClock.now())) {
      print(line);
    }
  });

peers
  .command('reload')
  .description('let the running node read its peers file again, and dial whom it waits for')
  .option(...configOption)
  .action((options: { config: string }) => {
    const config = loadConfig(options.config);
    // Its faults are found here, where somebody reads them.
    const { peers: listed } = readPeers(config);
    const pid = signalReload(config.databasePath);
    print(`${listed.length} peers in the file; process ${pid} reads it now, and logs "peers file"`);
  });

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Of a command that only speaks up when something is wrong. */
function quietRuntime(): Runtime {
  return { clock: systemClock, random: systemRandom, log: createLog('warn') };
}

/** Opens the database of a stopped node for one command. */
async function onStore(
  file: string,
  work: (store: NodeStore, config: NodeConfig, runtime: Runtime) => Promise<void>,
): Promise<void> {
  const config = loadConfig(file);
  const runtime = quietRuntime();
  await using store = await openStore(config, runtime);
  await work(store, config, runtime);
}

/** The outbox of a node, running or stopped, for one command. */
async function onOutbox(
  file: string,
  work: (outbox: OutboxControl, isRunning: boolean) => Promise<void>,
): Promise<void> {
  const config = loadConfig(file);
  const runtime = quietRuntime();
  await withOutbox(config.databasePath, runtime, () => openStore(config, runtime), work);
}

function openStore(config: NodeConfig, runtime: Runtime): Promise<NodeStore> {
  const { databasePath: path, databaseKeyPath, store: limits } = config;
  return openNodeStore({ path, key: readKeyFile(databaseKeyPath), limits, runtime });
}

async function run(config: NodeConfig): Promise<void> {
  const log = createLog(config.logLevel);
  const runtime = { clock: systemClock, random: systemRandom, log };
  // Before anything is said: the default of this signal is to end the process.
  const hangups = new Hangups();
  // What the operator wrote, before the database, which may have hours of migrations to do.
  const peers = readPeers(config);
  const site = siteOf(config);
  // Not an exit, which would wait for the threads: one of them may be what hangs.
  using watch = new StartWatch(runtime, () => process.kill(process.pid, 'SIGKILL'));
  watch.begin('database');
  await using store = await openStore(config, runtime);
  watch.begin('secrets');
  const secrets = await loadSecrets(store, runtime.random);
  await using node = await startNode({
    config,
    secrets,
    store,
    peers,
    site,
    transport: transportOf(runtime, config.engines, { processes: config.transportProcesses }),
    runtime,
    software,
    onStep: (step) => watch.begin(step),
  });
  watch[Symbol.dispose]();
  await using _door = config.hasAdminDoor
    ? await openAdminDoor(config.databasePath, runtime, (asked) => node.serveAdmin(asked))
    : undefined;
  const pidFile = writePidFile(config.databasePath);
  hangups.take(() => {
    reload(config, node).catch((error: unknown) => {
      log.error('peers file refused', { error: startError(error) });
    });
  });
  const { endpoint } = node.listener;
  log.info('ready', {
    domain: config.domain,
    listen: formatEndpoint(endpoint),
    address: boundAddress(config, endpoint.port, secrets.identity.spkiSha256),
    pid: process.pid,
  });
  // A promise that nobody caught is a bug, most likely in the QUIC glue, and one that a stranger may
  // be able to trigger: it is logged, and the other users' calls go on.
  process.on('unhandledRejection', (error) => logFault(log, 'unhandled rejection', error));
  // After an uncaught exception the state is unknown; what was answered OK is on disk.
  process.on('uncaughtException', (error) => fail(log, 'uncaught exception', error));
  // A failed sync must never be retried, and an orderly exit would: it closes the database with one
  // more sync. The process ends as in a crash, and the next start recovers from the write-ahead log.
  store.failed.then(
    (error) => {
      logFault(log, 'the store failed', error);
      process.kill(process.pid, 'SIGKILL');
    },
    () => undefined,
  );
  await stopSignal();
  rmSync(pidFile, { force: true });
  log.info('stopping');
  await node.stop();
}

function readPeers(config: NodeConfig): PeersFile {
  if (config.peersPath === undefined) return parsePeersFile('', 'peers');
  let text: string;
  try {
    text = readFileSync(config.peersPath, 'utf8');
  } catch (cause) {
    throw new SetupError(
      `${config.peersPath}: cannot be read (${codeOf(cause)}); it lists the peers, or remove peers_file`,
      cause,
    );
  }
  return parsePeersFile(text, config.peersPath);
}

async function reload(config: NodeConfig, node: QpcNode): Promise<void> {
  await node.reloadPeers(readPeers(config));
}

function siteOf({ federation: { site } }: NodeConfig): RecordSite {
  const { caPath, allowsPrivate } = site;
  if (caPath === undefined) return httpsSite({ allowsPrivate });
  try {
    return httpsSite({ allowsPrivate, ca: readFileSync(caPath, 'utf8') });
  } catch (cause) {
    throw new SetupError(
      `${caPath}: cannot be read (${codeOf(cause)}); correct [federation] site_ca_file`,
      cause,
    );
  }
}

function logFault(log: Log, what: string, error: unknown): void {
  log.error(what, {
    error: error instanceof Error ? (error.stack ?? error.message) : String(error),
  });
}

function fail(log: Log, what: string, error: unknown): never {
  logFault(log, what, error);
  process.exit(exitFailed);
}

/** By what the system says of an address to listen on. */
const bindAdvice: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another process uses that port: stop it or change "listen"',
  EADDRNOTAVAIL: 'this machine has no such address: correct "listen"',
  EACCES: 'this user may not take that port: choose one above 1023 in "listen"',
};

try {
  await program.parseAsync();
  process.exit();
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : exitSetup);
  process.stderr.write(`qpcd: ${startError(error)}\n`);
  process.exit(error instanceof QpcError ? exitSetup : exitFailed);
}

/** One line for a person; what was no expected error shows its stack. */
function startError(error: unknown): string {
  if (error instanceof TransportError) {
    const advice = bindAdvice[codeOf(error.cause)];
    if (advice !== undefined) return `${error.message}; ${advice}`;
  }
  if (error instanceof QpcError) return error.message.replaceAll('\n', ' ');
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
