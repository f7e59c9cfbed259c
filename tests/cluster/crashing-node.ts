/**
 * A real node that a test kills with SIGKILL and starts again, and the devices on it: logged in,
 * over real QUIC, below the level of QpcClient. Each counts the calls that are open at a kill and
 * repeats the very same request until it is answered.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { register } from '@quicprochat/client-lib/account';
import {
  call,
  hasReason,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
  TransportError,
  type Method,
  type Runtime,
} from '@quicprochat/proto';
import type { MessageInitShape, MessageShape } from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  quicTransport,
  type Connection,
  type NodeIdentity,
} from '@quicprochat/proto/transport';
import type { NodeProcess } from './node-process.ts';

type DescMessage = Method['request'];

const runtime: Runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const transport = quicTransport(runtime);

/** Dials a node with its pin and says Hello; the caller closes the connection. */
export async function dialNode(address: string, identity: NodeIdentity): Promise<Connection> {
  const { host, port, pin } = parseNodeAddress(address);
  const connection = await transport.dial(
    { host, port },
    { identity, limits: defaultLimits, maxRequestBytes, pins: [pin] },
  );
  try {
    await call(connection, methods.hello, { versionMin: 1, versionMax: 1, agent: 'test' });
    return connection;
  } catch (error) {
    await connection.close(CloseCode.Normal, 'no hello');
    throw error;
  }
}

/** A node process that comes and goes. */
export class CrashingNode implements AsyncDisposable {
  readonly process: NodeProcess;
  readonly devices: RawDevice[] = [];
  /** Rejects when the process ends although nobody killed it. */
  readonly failed: Promise<never>;
  #up = Promise.withResolvers<void>();
  #isUp = false;

  constructor(process: NodeProcess) {
    this.process = process;
    const failed = Promise.withResolvers<never>();
    this.failed = failed.promise;
    // Whoever races against it hears of it; nobody has to.
    this.failed.catch(() => undefined);
    process.onUnexpectedEnd = (why) => failed.reject(new Error(why));
  }

  /** Resolves while the node runs. */
  get up(): Promise<void> {
    return this.#up.promise;
  }
  get isUp(): boolean {
    return this.#isUp;
  }

  async start(): Promise<void> {
    await this.process.start();
    this.#isUp = true;
    this.#up.resolve();
  }

  /** Starts the process and kills it after `afterMs` when it is not ready by then. */
  async crashWhileStarting(afterMs: number): Promise<'killed' | 'ready'> {
    const started = this.process.start().then(
      () => 'ready' as const,
      () => 'killed' as const,
    );
    const first = await Promise.race([started, sleep(afterMs, 'late' as const)]);
    if (first !== 'ready') await this.process.kill();
    const outcome = await started;
    if (outcome === 'ready' && this.process.pid !== undefined) {
      this.#isUp = true;
      this.#up.resolve();
      return 'ready';
    }
    return 'killed';
  }

  /** SIGKILL. Resolves, when the process is gone, with the calls that were open at that moment. */
  async crash(): Promise<OpenCalls> {
    const open = this.devices.reduce(
      (sum, { openCalls }) => ({
        enqueue: sum.enqueue + openCalls.enqueue,
        other: sum.other + openCalls.other,
      }),
      { enqueue: 0, other: 0 },
    );
    if (this.#isUp) this.#up = Promise.withResolvers();
    this.#isUp = false;
    const gone = this.process.kill();
    for (const device of this.devices) device.disconnect();
    await gone;
    return open;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const device of this.devices) device.disconnect();
    await this.process.kill();
  }
}

export interface OpenCalls {
  readonly enqueue: number;
  readonly other: number;
}

export class RawDevice {
  readonly userId: string;
  readonly node: CrashingNode;
  /** Address of its inbox (32 bytes). */
  readonly rid: Uint8Array;
  /** Requests on their way whose answer is not here. */
  readonly openCalls = { enqueue: 0, other: 0 };
  /** Calls that broke off although nobody killed the node. */
  brokenWhileUp = 0;
  readonly #identity: NodeIdentity;
  #connection: Promise<Connection> | undefined;

  private constructor(
    node: CrashingNode,
    userId: string,
    rid: Uint8Array,
    identity: NodeIdentity,
    connection: Connection,
  ) {
    this.node = node;
    this.userId = userId;
    this.rid = rid;
    this.#identity = identity;
    this.#connection = Promise.resolve(connection);
  }

  /** Registers `name` at the running node by OPAQUE, with fresh keys. */
  static async register(node: CrashingNode, name: string): Promise<RawDevice> {
    const identity = await makeIdentity(systemRandom);
    const identityKey = signingKeyFromSeed(systemRandom.bytes(32));
    const userId = `${name}@${node.process.domain}`;
    const connection = await dialNode(node.process.address, identity);
    const keys = {
      accountKey: signingKeyFromSeed(systemRandom.bytes(32)),
      identityKey,
      transport: identity,
    };
    const password = new TextEncoder().encode(`password of ${userId}`);
    try {
      const credentials = { userId, password, keys, pinnedServerKey: undefined };
      await register(connection, credentials, systemClock);
    } catch (error) {
      await connection.close(CloseCode.Normal, 'not registered');
      throw error;
    }
    const device = new RawDevice(node, userId, identityKey.publicKey, identity, connection);
    node.devices.push(device);
    return device;
  }

  /** One try over the current connection, which is dialed when there is none. */
  async tryCall<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const dialed = (this.#connection ??= dialNode(this.node.process.address, this.#identity));
    let connection: Connection;
    try {
      connection = await dialed;
    } catch (error) {
      if (this.#connection === dialed) this.#connection = undefined;
      throw error;
    }
    const kind = method.id === methods.enqueue.id ? 'enqueue' : 'other';
    this.openCalls[kind] += 1;
    try {
      return await call(connection, method, request);
    } finally {
      this.openCalls[kind] -= 1;
    }
  }

  /**
   * Repeats the same request until it is answered; waits while the node is down and for as long as
   * a rate limit says. `onLost` runs after each try whose answer got lost; false gives up, and
   * then the promise resolves with undefined. Throws every other error of the node.
   */
  async call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    onLost: () => boolean = () => true,
  ): Promise<MessageShape<O> | undefined> {
    for (;;) {
      await this.node.up;
      const life = this.node.up;
      try {
        return await this.tryCall(method, request);
      } catch (error) {
        if (hasReason(error, 'RATE_LIMITED') && error.retryAfterMs !== undefined) {
          await sleep(error.retryAfterMs);
          continue;
        }
        if (!(error instanceof TransportError)) throw error;
        if (this.node.isUp && life === this.node.up) {
          this.brokenWhileUp += 1;
          this.disconnect();
        }
        if (!onLost()) return undefined;
      }
    }
  }

  /** Gives the connection up: open calls fail now instead of at their deadline. */
  disconnect(): void {
    const dialed = this.#connection;
    this.#connection = undefined;
    dialed
      ?.then((connection) => connection.close(CloseCode.Normal, 'given up'))
      .catch(() => undefined);
  }
}
