/**
 * Builds every part of a node and owns their start, drain and stop. The way of a message:
 * transport -> proto/server.ts -> services/delivery.ts -> store (worker, disk) -> push.ts, or
 * federation's outbox -> the peer node.
 */
import {
  admission,
  callerClass,
  createServer,
  deadline,
  maxRequestBytes,
  rateLimit,
  signNodeRecord,
  validate,
  type Handlers,
  type Middleware,
  type Runtime,
  type Timer,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  type Connection,
  type Listener,
  type Transport,
} from '@quicprochat/proto/transport';
import { createFederation, type Federation, type PeersFile } from '@quicprochat/federation';
import type { NodeConfig } from './config.ts';
import { ExchangeTable, OpaqueServer } from './opaque.ts';
import { PushHub } from './push.ts';
import type { NodeSecrets } from './secrets.ts';
import { authHandlers, type AuthExchange } from './services/auth.ts';
import { capabilities, coreHandlers, protocolVersion } from './services/core.ts';
import { deliveryHandlers } from './services/delivery.ts';
import { federationHandlers } from './services/federation.ts';
import { keyHandlers } from './services/keys.ts';
import { deviceHandlers } from './services/devices.ts';
import { ktHandlers } from './services/kt.ts';
import { Sessions } from './sessions.ts';
import type { NodeStore } from './store/store.ts';
import { logCall } from './telemetry.ts';
import { InboxWaiters } from './waiters.ts';

/** Time that calls and pushes in flight get when the node stops (ms). */
const drainMs = 10_000;
const sweepMs = 60_000;

export interface NodeOptions {
  readonly config: NodeConfig;
  readonly secrets: NodeSecrets;
  readonly store: NodeStore;
  readonly peers: PeersFile;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly software: string;
}

export interface QpcNode extends AsyncDisposable {
  /** The bound address. */
  readonly listener: Listener;
  /** Stops accepting, tells subscribers, lets calls in flight end (10 s), closes. Idempotent. */
  stop(): Promise<void>;
}

/** Starts a node on an open store; the caller keeps the store and closes it after `stop`. */
export async function startNode(options: NodeOptions): Promise<QpcNode> {
  const { config, secrets, store, runtime, transport } = options;
  const { clock, log } = runtime;
  const sessions = new Sessions(store, clock);
  const push = new PushHub(store, log);
  const waiters = new InboxWaiters(clock);
  const federation = createFederation({
    domain: config.domain,
    identity: secrets.identity,
    peers: options.peers,
    store,
    storeId: store.storeId,
    transport,
    runtime,
  });
  const drain = new Drain();
  const handlers = await buildHandlers({ options, sessions, push, waiters, federation, drain });
  const server = createServer({
    handlers,
    middleware: [
      drain.counted(),
      admission({ isDraining: () => drain.isDraining, callsInFlightMax: config.callsInFlight }),
      callerClass,
      rateLimit(clock, config.rates),
      deadline(clock),
      validate,
    ],
    identify: (connection) => sessions.identify(connection),
    runtime,
    onCall: (report) => logCall(log, report),
  });

  const rowsAdded = store.onRows((ridHex) => {
    push.rowsAdded(ridHex);
    waiters.rowsAdded(ridHex);
  });
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
  const sweeper = startSweeper(store, runtime);
  await federation.start();

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
      sweeper.stop();
      await federation[Symbol.asyncDispose]();
      await listener.close(CloseCode.Draining, 'the node stops');
      rowsAdded[Symbol.dispose]();
    })());
  return { listener, stop, [Symbol.asyncDispose]: stop };
}

interface BuildParts {
  readonly options: NodeOptions;
  readonly sessions: Sessions;
  readonly push: PushHub;
  readonly waiters: InboxWaiters;
  readonly federation: Federation;
  readonly drain: Drain;
}

async function buildHandlers(parts: BuildParts): Promise<Handlers> {
  const { sessions, push, waiters, federation, drain } = parts;
  const { config, secrets, store, runtime, software } = parts.options;
  const { clock } = runtime;
  const { domain } = config;
  const opaque = new OpaqueServer({ setup: secrets.opaqueSetup, domain });
  await opaque.ready();
  const nodeRecord = signNodeRecord({
    domain,
    keys: [
      { spkiSha256: secrets.identity.spkiSha256, signing: secrets.signing, fromMs: 0, toMs: 0 },
    ],
    endpoints: [config.advertise],
    seq: 1,
    versionMin: protocolVersion,
    versionMax: protocolVersion,
    capabilities,
  });
  return {
    ...coreHandlers({
      domain,
      software,
      clock,
      nodeRecord,
      health: () => (drain.isDraining ? 'draining' : 'ready'),
    }),
    ...authHandlers({
      domain,
      clock,
      store,
      opaque,
      exchanges: new ExchangeTable<AuthExchange>({ clock, random: runtime.random }),
      sessions,
      push,
      nodeSpki: secrets.identity.spkiSha256,
      sessionTtlMs: config.sessionTtlMs,
      ratePerUser: config.ratePerUser,
    }),
    ...deliveryHandlers({ domain, store, push, waiters, sessions, federation }),
    ...keyHandlers({
      domain,
      clock,
      store,
      push,
      pseudonymKey: secrets.pseudonymKey,
      singleUsePerRequesterPerHour: config.singleUsePerRequesterPerHour,
      singleUsePerPeerAndTargetPerHour: config.singleUsePerPeerAndTargetPerHour,
      proxy: federation.proxy,
    }),
    ...federationHandlers({ federation, sessions }),
    ...ktHandlers(),
    ...deviceHandlers(),
  };
}

/** Counts the calls in flight, so that a stopping node can wait for them. */
class Drain {
  isDraining = false;
  #inFlight = 0;
  #whenEmpty: (() => void)[] = [];

  counted(): Middleware {
    return async (call, next) => {
      this.#inFlight += 1;
      try {
        return await next(call);
      } finally {
        this.#inFlight -= 1;
        if (this.#inFlight === 0) for (const resolve of this.#whenEmpty.splice(0)) resolve();
      }
    };
  }

  async empty(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#whenEmpty.push(resolve));
  }
}

/** Removes what is past its time, once a minute; an error is logged and the next minute tries again. */
function startSweeper(store: NodeStore, { clock, log }: Runtime): { stop(): void } {
  let timer: Timer;
  const sweep = (): void => {
    store
      .sweep()
      .catch((error: unknown) => log.error('sweep failed', { error: String(error) }))
      .finally(() => (timer = clock.timer(sweepMs, sweep)));
  };
  timer = clock.timer(sweepMs, sweep);
  return { stop: () => timer.cancel() };
}
