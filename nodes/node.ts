/**
 * Builds every part of a node and owns their start, drain and stop. The way of a message:
 * transport -> proto/server.ts -> services/enqueue.ts -> store (worker, disk) -> push.ts, or
 * federation's outbox -> the peer node. The way of a key: services/auth.ts or devices.ts ->
 * accounts.ts -> key-log.ts -> one transaction of log entry and account.
 */
import {
  admission,
  callerClass,
  createServer,
  deadline,
  maxRequestBytes,
  rateLimit,
  validate,
  type Middleware,
  type Runtime,
  type ServerOptions,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  type Connection,
  type Listener,
  type Transport,
} from '@quicprochat/proto/transport';
import {
  createFederation,
  type Federation,
  type PeersFile,
  type RecordSite,
  type ReloadReport,
} from '@quicprochat/federation';
import { encode, heartbeat, heartbeatLimits } from '@quicprochat/kt-log';
import { formatEndpoint, type NodeConfig } from './config.ts';
import { Drain } from './drain.ts';
import { buildHandlers, type HandlerParts } from './handlers.ts';
import { KeyLogAnswers } from './key-log-answers.ts';
import { KeyLog, originOf } from './key-log.ts';
import type { HttpDoor } from './http.ts';
import { openNodeDoor } from './http/node-door.ts';
import { PeerAudits } from './peer-audits.ts';
import { PeerClocks } from './peer-clocks.ts';
import { PushHub } from './push.ts';
import type { NodeSecrets } from './secrets.ts';
import { capabilities, protocolVersion } from './services/core.ts';
import { EpochQuota } from './hubs/epoch-quota.ts';
import { ForkAlarm } from './hubs/fork-alarm.ts';
import { HubSet } from './hubs/hub-set.ts';
import { CommitOffers } from './hubs/offers.ts';
import { RestoredHub } from './hubs/restored-hub.ts';
import { Sessions } from './sessions.ts';
import { SetupError } from './setup-error.ts';
import type { StartStep } from './start-watch.ts';
import type { NodeStore } from './store/store.ts';
import { NodeInSwarm, type NodeInSwarmOptions, type StartSwarm } from './swarm/node-swarm.ts';
import { Reservers } from './swarm/reservers.ts';
import { startSweeper } from './sweeper.ts';
import { logCall } from './telemetry.ts';
import { LogWaiters } from './waiters.ts';

/** Time that calls and pushes in flight get when the node stops (ms). */
const drainMs = 10_000;
const sweepMs = 60_000;
const diskLookMs = 10_000;
/** How long devices wait after a start for peers to tell whether the database is an older copy (ms). */
const askedMs = 1_000;

export interface NodeOptions {
  readonly config: NodeConfig;
  readonly secrets: NodeSecrets;
  readonly store: NodeStore;
  readonly peers: PeersFile;
  /** Where domains say which keys are theirs; without it only known keys are believed. */
  readonly site?: RecordSite;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly software: string;
  /** How the swarm starts; a simulation has its own. */
  readonly startSwarm?: StartSwarm;
  /** Called as each step of the start begins. */
  readonly onStep?: (step: StartStep) => void;
}

export interface QpcNode extends AsyncDisposable {
  /** The bound address. */
  readonly listener: Listener;
  /** Undefined where the configuration has no HTTP door. */
  readonly door: HttpDoor | undefined;
  /** Serves the operator, and nobody else, on a connection of the admin door. */
  serveAdmin(connection: Connection): void;
  /** Takes a new peers file, and dials every peer that is waited for. Errors are Federation.reload's. */
  reloadPeers(file: PeersFile): Promise<ReloadReport>;
  /** Stops accepting, tells subscribers, lets calls in flight end (10 s), closes. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a node on an open store; the caller keeps the store and closes it after `stop`. */
export async function startNode(options: NodeOptions): Promise<QpcNode> {
  const { config, secrets, store, runtime, transport, onStep = () => {} } = options;
  const { clock, log } = runtime;
  const sessions = new Sessions(store, clock);
  const push = new PushHub({ store, clock, log });
  const waiters = new LogWaiters(clock);
  const federation = createFederation({
    domain: config.domain,
    identity: secrets.identity,
    peers: options.peers,
    mode: config.federation.mode,
    ceilings: config.federation.ceilings,
    lostKeyMs: config.federation.lostKeyMs,
    ...(options.site === undefined ? {} : { site: options.site }),
    store,
    markKey: secrets.storeMarkKey,
    onRewound: () => push.storeChanged(),
    transport,
    runtime,
  });
  const drain = new Drain();
  const asked = Promise.withResolvers<void>();
  const audits = new PeerAudits({
    domain: config.domain,
    federation,
    store: store.audits,
    secrets: secrets.keyLog,
    runtime,
  });
  federation.attach(new PeerClocks(runtime));
  onStep('key log');
  // What is open already when a later step fails is closed again, the newest first.
  await using opened = new AsyncDisposableStack();
  const keyLog = opened.use(await openKeyLog(options, audits));
  const { log: own, config: ownConfig, identity } = keyLog;
  audits.start({ log: own, config: ownConfig, identity, tree: store.keyLog });
  // Devices ask for it themselves, but hours later.
  audits.onEvidence(({ origin }) => push.keyLogEvidence(origin));
  const answers = new KeyLogAnswers({ domain: config.domain, keyLog, store });
  const disk: HandlerParts['disk'] = { state: 'ok' };
  const reservers = new Reservers(
    store,
    clock,
    config.p2p?.guests ?? { all: 0, perDomain: 0, perUser: 0 },
  );
  const hubs = makeHubs(options, federation);
  onStep('password library');
  const handlers = await buildHandlers({
    ...{ config, secrets, store, runtime, software: options.software },
    ...{ sessions, push, waiters, federation, drain, disk, keyLog, answers, audits },
    ...{ reservers, hubs },
  });
  const lookAtDisk = async (): Promise<void> => {
    const before = disk.state;
    disk.state = await store.diskState();
    if (disk.state !== before) log.warn('disk', { state: disk.state, before });
  };
  await lookAtDisk();
  const serves: Omit<ServerOptions, 'identify'> = {
    handlers,
    middleware: [
      drain.counted(),
      admission({ isDraining: () => drain.isDraining, callsInFlightMax: config.callsInFlight }),
      callerClass,
      rateLimit(clock, config.rates),
      deadline(clock),
      holdDevices(() => asked.promise),
      async (call, next) => {
        if (call.caller.class === 'peer') federation.heard(call.caller.domain);
        return next(call);
      },
      validate,
    ],
    runtime,
    onCall: (report) => logCall(log, report),
  };
  const server = createServer({
    ...serves,
    identify: async (connection) => {
      const caller = await sessions.identify(connection);
      // A key that spoke for the domain when it said hello may have been given up since.
      const { spkiSha256 } = connection.peer;
      const isVoid = caller.class === 'peer' && !federation.isPinned(caller.domain, spkiSha256);
      return isVoid ? { class: 'anyone' } : caller;
    },
  });
  const adminServer = createServer({ ...serves, identify: async () => ({ class: 'admin' }) });

  const rowsAdded = store.onRows((ridHex) => {
    push.rowsAdded(ridHex);
    waiters.rowsAdded(ridHex);
  });
  onStep('listener');
  const listener = await transport.listen({
    endpoint: config.listen,
    identity: secrets.identity,
    limits: {
      ...defaultLimits,
      connections: config.connections,
      connectionsPerHost: config.connectionsPerHost,
      handshakesPerHostPerSecond: config.handshakesPerHostPerSecond,
    },
    maxRequestBytes,
    onConnection: (connection: Connection) => server.serve(connection),
  });
  opened.defer(() => listener.close(CloseCode.Draining, 'the node does not start'));
  onStep('http door');
  const door = opened.use(await openNodeDoor({ config, keyLog, store, audits, runtime }));
  onStep('swarm');
  const swarm = await joinSwarm(options, { reservers, federation, audits, log: own });
  // From here on all of it is the caller's to stop.
  opened.move();
  const eraseMs = Math.min(sweepMs, Math.max(1_000, config.kt.reasonableMonitoringWindowMs));
  const sweepers = [
    startSweeper(runtime, sweepMs, async () => {
      await store.sweep();
      // What expired here may be news for the nodes that it came from.
      for (const domain of await store.peersWithRows()) federation.notify(domain);
    }),
    startSweeper(runtime, diskLookMs, lookAtDisk),
    startSweeper(runtime, eraseMs, () => keyLog.eraseClosed()),
  ];
  onStep('peers');
  await federation.start();
  void federation.asked(askedMs).then(asked.resolve);
  onStep('hubs');
  await hubs.hubSet.resume();
  await hubs.restored.report();
  const upToDate = keyLog.bringUpToDate().catch((error: unknown) => {
    if (!drain.isDraining) log.error('key log not up to date', { error: String(error) });
  });

  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> =>
    (stopped ??= (async () => {
      drain.isDraining = true;
      waiters.releaseAll();
      const grace = new AbortController();
      await Promise.race([
        Promise.all([push.drain(), drain.empty()]),
        clock.sleep(drainMs, grace.signal).catch(() => undefined),
      ]);
      grace.abort();
      await Promise.all(sweepers.map((sweeper) => sweeper.stop()));
      await door?.[Symbol.asyncDispose]();
      await swarm?.[Symbol.asyncDispose]();
      audits[Symbol.dispose]();
      hubs.hubSet[Symbol.dispose]();
      await upToDate;
      await federation[Symbol.asyncDispose]();
      await listener.close(CloseCode.Draining, 'the node stops');
      // After the calls that write to it, and before the store that it writes to.
      answers[Symbol.dispose]();
      await keyLog[Symbol.asyncDispose]();
      rowsAdded[Symbol.dispose]();
    })());
  const reloadPeers = async (file: PeersFile): Promise<ReloadReport> => {
    const report = await federation.reload(file);
    swarm?.policyChanged();
    for (const domain of report.added) audits.follow(domain);
    federation.wakeAll();
    return report;
  };
  const serveAdmin = (connection: Connection): void => adminServer.serve(connection);
  return { listener, door, serveAdmin, reloadPeers, stop, [Symbol.asyncDispose]: stop };
}

/** The node's swarm, if it is to have one. Throws SetupError when its port cannot be bound. */
async function joinSwarm(
  { config, secrets, runtime, startSwarm }: NodeOptions,
  parts: Omit<NodeInSwarmOptions, 'config' | 'key' | 'runtime'>,
): Promise<NodeInSwarm | undefined> {
  const { p2p } = config;
  if (p2p === undefined) return undefined;
  try {
    const given = { ...parts, config: p2p, key: secrets.swarm, runtime };
    return await NodeInSwarm.start(given, startSwarm);
  } catch (cause) {
    const where = formatEndpoint(p2p.listen);
    const [why] = (cause instanceof Error ? cause.message : String(cause)).split('\n');
    throw new SetupError(`[p2p] listen: ${where}: the swarm does not start there (${why})`, cause);
  }
}

/** The node's log, with what the node says of itself and of the logs that it audits. */
function openKeyLog(
  { config, secrets, store, peers, runtime }: NodeOptions,
  audits: PeerAudits,
): Promise<KeyLog> {
  const { domain } = config;
  return KeyLog.open({
    domain,
    config: config.kt,
    secrets: secrets.keyLog,
    store,
    runtime,
    cosigners: () => audits.forLog(),
    ...(peers.peers.length === 0 ? {} : { mayWrite: () => audits.mayWrite() }),
    facts: {
      domain,
      keys: secrets.recordKeys,
      formerSigners: secrets.formerSigners,
      formerSignPubs: secrets.formerSignPubs,
      endpoints: [config.advertise],
      versionMin: protocolVersion,
      versionMax: protocolVersion,
      capabilities,
      ...(config.p2p === undefined
        ? {}
        : { swarm: { swarmKey: secrets.swarm.publicKey, addresses: config.p2p.addresses } }),
    },
    heartbeat: async () => {
      const logs = await Promise.all(
        peers.peers.slice(0, heartbeatLimits.logsMax).map((peer) => {
          return store.audits.followed(originOf(peer.domain));
        }),
      );
      return encode(heartbeat, { logs: logs.filter((log) => log !== undefined) });
    },
  });
}

/** What this node does as a hub of groups. */
function makeHubs(
  { config, secrets, store, runtime }: NodeOptions,
  federation: Federation,
): HandlerParts['hubs'] {
  const { domain } = config;
  const { recordKeys, formerSignPubs } = secrets;
  const ownKeys = [...recordKeys.map(({ signing }) => signing.publicKey), ...formerSignPubs];
  const offers = new CommitOffers({
    domain,
    signing: secrets.signing,
    knows: (name) => federation.knows(name),
  });
  const keysOf = (name: string) =>
    name === domain ? ownKeys : federation.records.certifyingKeys(name);
  const { clock, log } = runtime;
  const { hubs: peers } = federation;
  const forks = new ForkAlarm({ store, keysOf, clock, log, peers });
  const hubSet = new HubSet({
    ...{ domain, store, runtime, offers, peers, keysOf, forks },
    notify: (name) => federation.notify(name),
  });
  const restored = new RestoredHub({ domain, store, keysOf, forks, log });
  const epochs = new EpochQuota(clock, config.sending.messages);
  return { offers, hubSet, restored, epochs };
}

/** Devices wait for it: cursors of a store that may get a new id any moment are worth nothing. */
function holdDevices(until: () => Promise<void>): Middleware {
  return async (call, next) => {
    if (call.caller.class === 'device') await until();
    return next(call);
  };
}
