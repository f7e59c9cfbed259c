/**
 * Several engines as one Transport: a listener on each of them under one port number, and a dialer
 * that tries them in order. The first engine gets a head start; a node where it failed and the next
 * one worked is dialed by that one for an hour (docs/protocol/wire.md).
 */
import type { Clock, Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { asTransportError } from './outgoing-call.ts';
import { systemError } from './quic-engine.ts';
import { quicTransport } from './quic.ts';
import { quicheTransport } from './quiche.ts';
import { forkedQuicheTransport } from './quiche-processes.ts';
import { tlsTransport } from './tls.ts';
import type { Connection, DialOptions, Endpoint, Listener } from './transport.ts';
import type { ListenOptions, Transport } from './transport.ts';

/** `quic`: native quiche under our glue; `quic-stock`: under the package's own; `tls`: over TCP. */
export const engineNames = ['quic', 'quic-stock', 'tls'] as const;
export type EngineName = (typeof engineNames)[number];

export interface DialOrder {
  /** How long an engine is tried alone before the next one is tried beside it (ms). */
  readonly headStartMs: number;
  /** How long the engine that answered in another's place goes first (ms). */
  readonly rememberMs: number;
  /** Nodes remembered; the oldest goes. */
  readonly rememberedNodes: number;
}
export const defaultDialOrder: DialOrder = {
  headStartMs: 2_000,
  rememberMs: 3_600_000,
  rememberedNodes: 10_000,
};

/** Tries for a port that is free on every engine, when the system chooses it. */
const portTries = 16;

const make: Readonly<Record<EngineName, (runtime: Runtime, processes: number) => Transport>> = {
  quic: (runtime, processes) =>
    processes > 1 ? forkedQuicheTransport(runtime, processes) : quicheTransport(runtime),
  'quic-stock': quicTransport,
  tls: tlsTransport,
};

export interface EngineOptions {
  /** Processes of the `quic` listener, each with its own socket on the port. Default 1: this one. */
  readonly processes?: number;
}

/** The engines of a configuration, best first, at least one. */
export function transportOf(
  runtime: Runtime,
  names: readonly EngineName[],
  { processes = 1 }: EngineOptions = {},
): Transport {
  const engines = names.map((name) => make[name](runtime, processes));
  return engines.length === 1 && engines[0] ? engines[0] : inOrder(runtime.clock, engines);
}

/** Exported for tests, which bring engines and times of their own. */
export function inOrder(
  clock: Clock,
  engines: readonly Transport[],
  order: DialOrder = defaultDialOrder,
): Transport {
  const memory = new Winners(clock, order);
  return {
    name: engines.map(({ name }) => name).join('+'),
    listen: (options) => listenOnAll(engines, options),
    async dial(endpoint, options) {
      const first = memory.of(endpoint);
      const rest = engines.filter((engine) => engine !== first);
      const tried = first === undefined ? engines : [first, ...rest];
      const { connection, engine } = await dialInOrder(clock, order, tried, endpoint, options);
      memory.won(endpoint, engine === engines[0] ? undefined : engine);
      return connection;
    },
  };
}

/** Which engine last answered where the first one did not. */
class Winners {
  readonly #clock: Clock;
  readonly #order: DialOrder;
  readonly #byNode = new Map<string, { readonly engine: Transport; readonly untilMs: number }>();

  constructor(clock: Clock, order: DialOrder) {
    this.#clock = clock;
    this.#order = order;
  }

  of(endpoint: Endpoint): Transport | undefined {
    const known = this.#byNode.get(keyOf(endpoint));
    return known && known.untilMs > this.#clock.monotonic() ? known.engine : undefined;
  }

  won(endpoint: Endpoint, engine: Transport | undefined): void {
    const key = keyOf(endpoint);
    if (engine === undefined) return void this.#byNode.delete(key);
    // The hour runs from the first time, so that the better engine is tried again.
    if (this.of(endpoint) === engine) return;
    this.#byNode.delete(key);
    const untilMs = this.#clock.monotonic() + this.#order.rememberMs;
    this.#byNode.set(key, { engine, untilMs });
    const [oldest] = this.#byNode.keys();
    if (this.#byNode.size > this.#order.rememberedNodes && oldest !== undefined) {
      this.#byNode.delete(oldest);
    }
  }
}

const keyOf = ({ host, port }: Endpoint): string => `${host} ${port}`;

async function dialInOrder(
  clock: Clock,
  { headStartMs }: DialOrder,
  engines: readonly Transport[],
  endpoint: Endpoint,
  options: DialOptions,
): Promise<{ readonly connection: Connection; readonly engine: Transport }> {
  const won = new AbortController();
  const signal =
    options.signal === undefined ? won.signal : AbortSignal.any([options.signal, won.signal]);
  const winner = Promise.withResolvers<{ connection: Connection; engine: Transport }>();
  let hasWinner = false;
  const errors: TransportError[] = [];
  /** Never rejects; resolves when the engine's dial is over. */
  const attempt = async (engine: Transport): Promise<void> => {
    try {
      const connection = await engine.dial(endpoint, { ...options, signal });
      // Both can be through in the same turn: the second one is not needed.
      if (hasWinner) return void connection.close(0, 'another engine was first');
      hasWinner = true;
      winner.resolve({ connection, engine });
    } catch (error) {
      errors.push(asTransportError(error));
    }
  };
  const all = (async () => {
    const attempts: Promise<void>[] = [];
    for (const engine of engines) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = clock.timer(headStartMs, resolve);
      const tried = attempt(engine);
      attempts.push(tried);
      // An engine that fails at once hands over at once.
      await Promise.race([tried, winner.promise, promise]);
      timer.cancel();
      const { failure } = errors.at(-1) ?? {};
      // Another way to the same wrong node, or nobody who waits: no reason to go on.
      const isFinal = failure === 'refusedIdentity' || failure === 'alpn';
      if (hasWinner || isFinal || options.signal?.aborted === true) break;
    }
    await Promise.all(attempts);
  })();
  try {
    return await Promise.race([
      winner.promise,
      all.then(() => {
        if (hasWinner) return winner.promise;
        throw errors[0] ?? new TransportError('internal', 'dial: no engine');
      }),
    ]);
  } finally {
    won.abort();
  }
}

async function listenOnAll(
  engines: readonly Transport[],
  options: ListenOptions,
): Promise<Listener> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await listenOnce(engines, options);
    } catch (error) {
      const isTaken = systemError(error)?.code === 'EADDRINUSE';
      if (!isTaken || options.endpoint.port !== 0 || tries >= portTries) throw error;
    }
  }
}

async function listenOnce(
  engines: readonly Transport[],
  options: ListenOptions,
): Promise<Listener> {
  const listeners: Listener[] = [];
  let { endpoint } = options;
  const close = async (code: number, reason: string): Promise<void> => {
    await Promise.all(listeners.map((listener) => listener.close(code, reason)));
  };
  try {
    for (const engine of engines) {
      const listener = await engine.listen({ ...options, endpoint });
      listeners.push(listener);
      endpoint = { ...endpoint, port: listener.endpoint.port };
    }
  } catch (error) {
    await close(0, 'not started');
    throw error;
  }
  return { endpoint, close };
}
