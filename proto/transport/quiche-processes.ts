/**
 * The QUIC listener on several processes: each has its own socket on the one port (SO_REUSEPORT), its
 * own quiche and its handshakes and packet crypto; calls and pushes cross to this process. Dialing
 * stays here. Why not threads, and what it costs and brings: docs/decisions/0007.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Log, LogFields, Runtime } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { Admission } from './admission.ts';
import { inTime } from './in-time.ts';
import { asTransportError } from './outgoing-call.ts';
import { PortRpc } from './port-rpc.ts';
import { onGone, processPort } from './process-port.ts';
import type { ForwardBody, ListenBody } from './quiche-process.ts';
import { quicheTransport, type QuicheDialer } from './quiche.ts';
import { lost } from './session.ts';
import { RemoteConnections, type RemoteConnection } from './remote-connection.ts';
import { CloseCode, type Endpoint, type Listener } from './transport.ts';
import type { ListenOptions, Transport } from './transport.ts';

/** The first byte of a connection id names its process; a node's cores are fewer. */
export const maxProcesses = 64;
/** Time for a process to be there and listen (ms): seconds where the machine has much else to do. */
const startMs = 120_000;
/** Time to close its connections, and then to end, before a process is killed (ms). */
const endMs = 5_000;

export function forkedQuicheTransport(
  runtime: Runtime,
  processes: number,
): Transport & QuicheDialer {
  return {
    ...quicheTransport(runtime),
    listen: (options) => ForkedListener.open(runtime, options, processes),
  };
}

interface Process {
  readonly child: ChildProcess;
  readonly rpc: PortRpc;
  readonly connections: RemoteConnections;
  readonly exited: Promise<void>;
}

class ForkedListener implements Listener {
  endpoint: Endpoint;
  readonly #runtime: Runtime;
  readonly #options: ListenOptions;
  readonly #admission: Admission;
  #processes: readonly Process[] = [];
  #isOpen = false;
  #closed: Promise<void> | undefined;

  private constructor(runtime: Runtime, options: ListenOptions) {
    this.#runtime = runtime;
    this.#options = options;
    this.endpoint = options.endpoint;
    this.#admission = new Admission(runtime.clock, options.limits);
  }

  /**
   * Throws TransportError `internal` when the port is taken (`cause.code` is `EADDRINUSE`), `closed`
   * when a process cannot be made or ends, `timeout` when one does not listen in two minutes.
   */
  static async open(
    runtime: Runtime,
    options: ListenOptions,
    count: number,
  ): Promise<ForkedListener> {
    const listener = new ForkedListener(runtime, options);
    await listener.#start(count);
    return listener;
  }

  async #start(count: number): Promise<void> {
    const { identity, limits, maxRequestBytes, endpoint } = this.#options;
    const bounds = new Uint32Array(65_536);
    for (let methodId = 0; methodId < bounds.length; methodId += 1) {
      bounds[methodId] = Math.min(maxRequestBytes(methodId), limits.maxPayloadBytes);
    }
    const { certificatePem, privateKeyPem } = identity;
    this.#processes = Array.from({ length: count }, () => this.#fork());
    try {
      // A port that another process has must be refused, and SO_REUSEPORT alone would share it.
      await assertFree(this.#runtime, this.#options);
      // The first one learns the port when the system chooses it.
      for (const [index, { rpc }] of this.#processes.entries()) {
        const body: ListenBody = {
          endpoint: { ...endpoint, port: this.endpoint.port },
          ...{ certificatePem, privateKeyPem, limits, bounds, index, count },
        };
        const listening = rpc.request('listen', body);
        const what = `quic: process ${index} of the listener`;
        this.endpoint = (await inTime(this.#runtime.clock, startMs, what, listening)) as Endpoint;
      }
      this.#isOpen = true;
    } catch (error) {
      await this.#terminate(asTransportError(error));
      throw error;
    }
  }

  #fork(): Process {
    const file = import.meta.url.endsWith('.ts') ? './quiche-process.ts' : './quiche-process.js';
    const child = fork(fileURLToPath(new URL(file, import.meta.url)), {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // Options of this process (a profiler, a test runner) are not meant for it.
      execArgv: [],
    });
    const rpc = new PortRpc(processPort(child));
    const { log } = this.#runtime;
    rpc.onNotice('log', (body) => {
      const line = body as { level: keyof Log; event: string; fields?: LogFields };
      log[line.level](line.event, line.fields);
    });
    // Answered when it has arrived: whoever forwards counts what is on its way.
    rpc.onRequest('forward', (body) =>
      this.#processes[(body as ForwardBody).to]?.rpc.request('forward', body),
    );
    rpc.onRequest('handshake', (address) => this.#admission.handshake(String(address)));
    const connections = new RemoteConnections(rpc, (connection) => this.#welcome(connection));
    child.on('error', (error) => log.error('quic.process.fault', { error: String(error) }));
    const exited = new Promise<void>((resolve) => {
      onGone(child, () => {
        this.#onExit(rpc, connections);
        resolve();
      });
    });
    return { child, rpc, connections, exited };
  }

  #welcome(connection: RemoteConnection): void {
    const { host } = connection.peer;
    if (!this.#admission.enter(host)) {
      return void connection.close(CloseCode.Limit, 'too many connections');
    }
    void connection.closed.then(() => this.#admission.leave(host));
    this.#options.onConnection(connection);
  }

  /**
   * A process that ends by itself had a fault that nobody caught. It ends this one, whose supervisor
   * starts it again: half a listener would be worse than none.
   */
  #onExit(rpc: PortRpc, connections: RemoteConnections): void {
    rpc.lose(new TransportError('closed', 'connection: its process is gone'));
    for (const connection of connections.all) connection.onClosed(lost('process lost'));
    // Who waits for the start hears of it there.
    if (!this.#isOpen || this.#closed !== undefined) return;
    this.#runtime.log.error('quic.process.lost', { port: this.endpoint.port });
    queueMicrotask(() => {
      throw new TransportError('internal', 'quic: a process of the listener was lost');
    });
  }

  close(code: number, reason: string): Promise<void> {
    this.#closed ??= this.#close(code, reason);
    return this.#closed;
  }

  async #close(code: number, reason: string): Promise<void> {
    const info = { failure: 'closed', code, reason, local: true } as const;
    for (const { connections } of this.#processes) {
      for (const connection of connections.all) connection.onClosed(info);
    }
    const { clock, log } = this.#runtime;
    await Promise.all(
      this.#processes.map(async ({ rpc }) => {
        const closing = rpc.request('close-listener', { code, reason });
        try {
          await inTime(clock, endMs, 'quic: the end of a process of the listener', closing);
        } catch (error) {
          log.warn('quic.process.close', { error: String(error) });
        }
      }),
    );
    await this.#terminate(new TransportError('closed', 'connection: closed'));
  }

  async #terminate(why: TransportError): Promise<void> {
    // From now on an exit is no surprise.
    this.#closed ??= Promise.resolve();
    await Promise.all(
      this.#processes.map(async ({ rpc, child, exited }) => {
        rpc.lose(why);
        if (child.connected) child.disconnect();
        const kill = this.#runtime.clock.timer(endMs, () => child.kill('SIGKILL'));
        await exited;
        kill.cancel();
      }),
    );
  }
}

/** Listens without sharing, and lets go at once. Throws what that throws. */
async function assertFree(runtime: Runtime, options: ListenOptions): Promise<void> {
  if (options.endpoint.port === 0) return;
  const probe = await quicheTransport(runtime).listen({ ...options, onConnection() {} });
  await probe.close(CloseCode.Normal, 'probe');
}
