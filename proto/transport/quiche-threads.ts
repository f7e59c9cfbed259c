/**
 * The QUIC listener on several threads: each has its own socket on the one port (SO_REUSEPORT), its
 * own quiche and its handshakes and packet crypto; calls and pushes cross to this thread. Dialing
 * stays here. What it costs and brings: docs/decisions/0007.
 */
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import type { Log, LogFields, Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { Admission } from './admission.ts';
import { asTransportError } from './outgoing-call.ts';
import { PortRpc } from './port-rpc.ts';
import type { ListenBody, ThreadInput } from './quiche-thread.ts';
import { quicheTransport, type QuicheDialer } from './quiche.ts';
import { lost } from './session.ts';
import { ThreadConnections, type ThreadConnection } from './thread-connection.ts';
import { CloseCode, type Endpoint, type Listener } from './transport.ts';
import type { ListenOptions, Transport } from './transport.ts';

/** The first byte of a connection id names its thread; a node's cores are fewer. */
export const maxThreads = 64;

export function threadedQuicheTransport(
  runtime: Runtime,
  threads: number,
): Transport & QuicheDialer {
  return {
    ...quicheTransport(runtime),
    listen: (options) => ThreadedListener.open(runtime, options, threads),
  };
}

interface Thread {
  readonly worker: Worker;
  readonly rpc: PortRpc;
  readonly connections: ThreadConnections;
}

class ThreadedListener implements Listener {
  endpoint: Endpoint;
  readonly #runtime: Runtime;
  readonly #options: ListenOptions;
  readonly #admission: Admission;
  #threads: readonly Thread[] = [];
  #closed: Promise<void> | undefined;

  private constructor(runtime: Runtime, options: ListenOptions) {
    this.#runtime = runtime;
    this.#options = options;
    this.endpoint = options.endpoint;
    this.#admission = new Admission(runtime.clock, options.limits);
  }

  /** Throws TransportError `internal` when the port is taken (`cause.code` is `EADDRINUSE`). */
  static async open(
    runtime: Runtime,
    options: ListenOptions,
    count: number,
  ): Promise<ThreadedListener> {
    const listener = new ThreadedListener(runtime, options);
    await listener.#start(count);
    return listener;
  }

  async #start(count: number): Promise<void> {
    const { identity, limits, maxRequestBytes, endpoint } = this.#options;
    const bounds = new SharedArrayBuffer(4 * 65_536);
    const words = new Uint32Array(bounds);
    for (let methodId = 0; methodId < words.length; methodId += 1) {
      words[methodId] = Math.min(maxRequestBytes(methodId), limits.maxPayloadBytes);
    }
    const { certificatePem, privateKeyPem } = identity;
    const input = { certificatePem, privateKeyPem, limits, bounds, count };
    this.#threads = Array.from({ length: count }, (_, index) => this.#thread({ ...input, index }));
    const ports = channels(count);
    try {
      // A port that another process has must be refused, and SO_REUSEPORT alone would share it.
      await assertFree(this.#runtime, this.#options);
      // The first one learns the port when the system chooses it.
      for (const [index, { rpc }] of this.#threads.entries()) {
        const siblings = ports[index] ?? [];
        const at = { ...endpoint, port: this.endpoint.port };
        const body: ListenBody = { endpoint: at, siblings };
        const transfers = siblings.map(([, port]) => port);
        this.endpoint = (await rpc.request('listen', body, { transfers })) as Endpoint;
      }
    } catch (error) {
      await this.#terminate(asTransportError(error));
      throw error;
    }
  }

  #thread(input: ThreadInput): Thread {
    const worker = new Worker(new URL('./quiche-thread.ts', import.meta.url), {
      workerData: input,
    });
    const rpc = new PortRpc(worker);
    const { log } = this.#runtime;
    rpc.onNotice('log', (body) => {
      const line = body as { level: keyof Log; event: string; fields?: LogFields };
      log[line.level](line.event, line.fields);
    });
    rpc.onRequest('handshake', (address) => this.#admission.handshake(String(address)));
    const connections = new ThreadConnections(rpc, (connection) => this.#welcome(connection));
    worker.on('error', (error) => log.error('quic.thread.fault', { error: String(error) }));
    worker.on('exit', () => this.#onExit({ worker, rpc, connections }));
    return { worker, rpc, connections };
  }

  #welcome(connection: ThreadConnection): void {
    const { host } = connection.peer;
    if (!this.#admission.enter(host)) {
      return void connection.close(CloseCode.Limit, 'too many connections');
    }
    void connection.closed.then(() => this.#admission.leave(host));
    this.#options.onConnection(connection);
  }

  /**
   * A thread that ends by itself had a fault that nobody caught. Like any other it ends the process,
   * whose supervisor starts it again: half a listener would be worse than none.
   */
  #onExit({ rpc, connections }: Thread): void {
    rpc.lose(new TransportError('closed', 'connection: its thread is gone'));
    for (const connection of connections.all) connection.onClosed(lost('thread lost'));
    if (this.#closed !== undefined) return;
    this.#runtime.log.error('quic.thread.lost', { port: this.endpoint.port });
    queueMicrotask(() => {
      throw new TransportError('internal', 'quic: a thread of the listener was lost');
    });
  }

  close(code: number, reason: string): Promise<void> {
    this.#closed ??= this.#close(code, reason);
    return this.#closed;
  }

  async #close(code: number, reason: string): Promise<void> {
    const info = { failure: 'closed', code, reason, local: true } as const;
    for (const { connections } of this.#threads) {
      for (const connection of connections.all) connection.onClosed(info);
    }
    await Promise.all(
      this.#threads.map(({ rpc }) =>
        rpc.request('close-listener', { code, reason }).catch((error: unknown) => {
          this.#runtime.log.warn('quic.thread.close', { error: String(error) });
        }),
      ),
    );
    await this.#terminate(new TransportError('closed', 'connection: closed'));
  }

  async #terminate(why: TransportError): Promise<void> {
    // From now on an exit is no surprise.
    this.#closed ??= Promise.resolve();
    for (const { rpc } of this.#threads) rpc.lose(why);
    await Promise.all(this.#threads.map(({ worker }) => worker.terminate()));
  }
}

/** A channel between every two of so many threads: for each, the ports to the others. */
function channels(count: number): (readonly [index: number, port: MessagePort])[][] {
  const ports: (readonly [number, MessagePort])[][] = Array.from({ length: count }, () => []);
  for (let one = 0; one < count; one += 1) {
    for (let other = one + 1; other < count; other += 1) {
      const { port1, port2 } = new MessageChannel();
      ports[one]?.push([other, port1]);
      ports[other]?.push([one, port2]);
    }
  }
  return ports;
}

/** Listens without sharing, and lets go at once. Throws what that throws. */
async function assertFree(runtime: Runtime, options: ListenOptions): Promise<void> {
  if (options.endpoint.port === 0) return;
  const probe = await quicheTransport(runtime).listen({ ...options, onConnection() {} });
  await probe.close(CloseCode.Normal, 'probe');
}
