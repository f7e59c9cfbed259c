/**
 * What the cases of the transport contract stand on: a listener with its accepted connections,
 * dialers, and a runtime whose timers keep the process alive. No fakes: the engine is the real one.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { systemClock, systemRandom, type LogFields, type Runtime } from '../runtime.ts';
import { TransportError, type TransportFailure } from '../status.ts';
import { makeIdentity, type NodeIdentity } from './certificate.ts';
import type { StreamSession } from './session.ts';
import { CloseCode, defaultLimits } from './transport.ts';
import type {
  CallHandler,
  Connection,
  DialOptions,
  Endpoint,
  Listener,
  RequestBound,
  Transport,
  TransportLimits,
} from './transport.ts';

/** A way to an endpoint that a case can cut, so that the peers vanish for each other. */
export interface CuttablePath {
  readonly endpoint: Endpoint;
  cut(): void;
}

/** One engine under test, fresh for each case. */
export interface ContractEngine {
  readonly transport: Transport;
  /** Where to listen. */
  readonly host: string;
  /** A dialed session without frames on top: the raw peer. */
  dialSession(endpoint: Endpoint, options: DialOptions): Promise<StreamSession>;
  cuttablePath(t: TestContext, endpoint: Endpoint): Promise<CuttablePath>;
}
export type MakeEngine = (runtime: Runtime) => ContractEngine;

export interface RigOptions {
  /** Differences from the defaults, for both sides. */
  readonly limits?: Partial<TransportLimits>;
  /** Differences for the listener alone. */
  readonly listenerLimits?: Partial<TransportLimits>;
  readonly maxRequestBytes?: RequestBound;
  /** Runs in the turn of `onConnection`. Default: answer each call with its own payload. */
  readonly onConnection?: (connection: Connection) => void;
  readonly onCall?: CallHandler;
}

export const fourMiB = 4 * 1024 * 1024;

/** A runtime that remembers its log, and whose timers count as work to wait for. */
export function contractRuntime(): Runtime & { readonly lines: string[] } {
  const lines: string[] = [];
  const write = (event: string, fields?: LogFields): void => {
    lines.push(`${event} ${JSON.stringify(fields ?? {})}`);
  };
  return {
    lines,
    random: systemRandom,
    log: { debug: write, info: write, warn: write, error: write },
    clock: {
      ...systemClock,
      timer(ms, callback) {
        const handle = setTimeout(callback, ms);
        return { cancel: () => clearTimeout(handle) };
      },
    },
  };
}

export const echo: CallHandler = async ({ requestId, payload }) => ({
  status: 0,
  requestId,
  payload,
});

export class Rig {
  readonly runtime: ReturnType<typeof contractRuntime>;
  readonly engine: ContractEngine;
  readonly identity: NodeIdentity;
  readonly dialerIdentity: NodeIdentity;
  readonly listener: Listener;
  readonly #limits: TransportLimits;
  readonly #t: TestContext;
  readonly #accepted: Connection[];
  readonly #waiting: ((connection: Connection) => void)[];

  private constructor(fields: {
    runtime: ReturnType<typeof contractRuntime>;
    engine: ContractEngine;
    identity: NodeIdentity;
    dialerIdentity: NodeIdentity;
    listener: Listener;
    limits: TransportLimits;
    t: TestContext;
    accepted: Connection[];
    waiting: ((connection: Connection) => void)[];
  }) {
    this.runtime = fields.runtime;
    this.engine = fields.engine;
    this.identity = fields.identity;
    this.dialerIdentity = fields.dialerIdentity;
    this.listener = fields.listener;
    this.#limits = fields.limits;
    this.#t = fields.t;
    this.#accepted = fields.accepted;
    this.#waiting = fields.waiting;
  }

  /** Listens; everything is closed when the test ends. */
  static async listen(t: TestContext, make: MakeEngine, options: RigOptions = {}): Promise<Rig> {
    const runtime = contractRuntime();
    const engine = make(runtime);
    const identity = await makeIdentity(systemRandom);
    const dialerIdentity = await makeIdentity(systemRandom);
    const limits = { ...defaultLimits, ...options.limits };
    const accepted: Connection[] = [];
    const waiting: ((connection: Connection) => void)[] = [];
    const listener = await engine.transport.listen({
      endpoint: { host: engine.host, port: 0 },
      identity,
      limits: { ...limits, ...options.listenerLimits },
      maxRequestBytes: options.maxRequestBytes ?? (() => fourMiB),
      onConnection(connection) {
        if (options.onConnection) options.onConnection(connection);
        else connection.onCall(options.onCall ?? echo);
        const next = waiting.shift();
        if (next) next(connection);
        else accepted.push(connection);
      },
    });
    t.after(() => listener.close(CloseCode.Normal, 'test over'));
    return new Rig({
      ...{ runtime, engine, identity, dialerIdentity, listener, limits },
      ...{ t, accepted, waiting },
    });
  }

  dialOptions(changes: Partial<DialOptions> = {}): DialOptions {
    return {
      identity: this.dialerIdentity,
      limits: this.#limits,
      maxRequestBytes: () => fourMiB,
      pins: [this.identity.spkiSha256],
      ...changes,
    };
  }

  async dial(changes: Partial<DialOptions> = {}, endpoint = this.listener.endpoint) {
    const connection = await this.engine.transport.dial(endpoint, this.dialOptions(changes));
    this.#t.after(() => connection.close(CloseCode.Normal, 'test over'));
    return connection;
  }

  async dialSession(): Promise<StreamSession> {
    const session = await this.engine.dialSession(this.listener.endpoint, this.dialOptions());
    this.#t.after(() => session.close(CloseCode.Normal, 'test over'));
    return session;
  }

  /** The next connection that the listener accepted, in order. */
  accepted(): Promise<Connection> {
    const ready = this.#accepted.shift();
    if (ready) return Promise.resolve(ready);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

export const patient = { deadlineMs: 120_000, maxResponseBytes: fourMiB };

/** One call that must be answered Ok with its own payload. */
export async function callEcho(connection: Connection, requestId = 1, bytes = 32): Promise<void> {
  const payload = new Uint8Array(bytes).fill(requestId % 251);
  const response = await connection.call({ methodId: 1, requestId, payload }, patient);
  assert.equal(response.status, 0);
  assert.equal(response.requestId, requestId);
  assert.ok(Buffer.from(response.payload).equals(payload));
}

/** Asserts that the promise rejects with a TransportError of the failure, and returns it. */
export async function rejectsWith(
  promise: Promise<unknown>,
  ...failures: readonly TransportFailure[]
): Promise<TransportError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof TransportError, `not a TransportError: ${String(error)}`);
    assert.ok(failures.includes(error.failure), `${error.failure}: ${error.message}`);
    return error;
  }
  assert.fail(`resolved, but should have failed: ${failures.join(', ')}`);
}
