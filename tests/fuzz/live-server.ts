/** Starts the echo server as a process, dials it, and asks how it is. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  defaultLimits,
  makeIdentity,
  transportOf,
  type Connection,
  type Endpoint,
  type EngineName,
  type NodeIdentity,
} from '@quicprochat/proto/transport';

const script = fileURLToPath(new URL('./echo-server.ts', import.meta.url));
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

export interface ServerState {
  readonly rss: number;
  /** Unhandled rejections so far. */
  readonly unhandled: number;
}

export class LiveServer implements AsyncDisposable {
  readonly endpoint: Endpoint;
  readonly engine: EngineName;
  /** Of the dialing side. */
  readonly identity: NodeIdentity;
  readonly #pin: Uint8Array;
  readonly #stop: () => Promise<void>;
  #requestId = 0;

  private constructor(
    engine: EngineName,
    endpoint: Endpoint,
    pin: Uint8Array,
    identity: NodeIdentity,
    stop: () => Promise<void>,
  ) {
    this.engine = engine;
    this.endpoint = endpoint;
    this.#pin = pin;
    this.identity = identity;
    this.#stop = stop;
  }

  static async start(engine: EngineName): Promise<LiveServer> {
    const child = spawn(process.execPath, [script, engine], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit').then(([code, signal]) => {
      throw new Error(`the server ended (${String(code ?? signal)})`);
    });
    // Waited for below, and by whoever asks the dead server something.
    ended.catch(() => {});
    const line = once(createInterface({ input: child.stdout }), 'line');
    const [text] = (await Promise.race([line, ended])) as [string];
    const { port, pin } = JSON.parse(text) as { port: number; pin: string };
    const stop = async (): Promise<void> => {
      child.stdin.end();
      await ended.catch(() => {});
    };
    return new LiveServer(
      engine,
      { host: '127.0.0.1', port },
      Buffer.from(pin, 'base64url'),
      await makeIdentity(systemRandom),
      stop,
    );
  }

  dial(endpoint = this.endpoint): Promise<Connection> {
    return transportOf(runtime, [this.engine]).dial(endpoint, {
      identity: this.identity,
      limits: defaultLimits,
      maxRequestBytes: () => 0,
      pins: [this.#pin],
    });
  }

  /** One call that must come back as it went. */
  async echo(connection: Connection, payload: Uint8Array): Promise<void> {
    const answer = await this.#call(connection, 1, payload);
    if (Buffer.compare(answer, payload) !== 0) throw new Error('echo: other bytes came back');
  }

  async state(connection: Connection): Promise<ServerState> {
    const answer = await this.#call(connection, 2, new Uint8Array());
    return JSON.parse(Buffer.from(answer).toString()) as ServerState;
  }

  async #call(connection: Connection, methodId: number, payload: Uint8Array): Promise<Uint8Array> {
    this.#requestId = (this.#requestId + 1) >>> 0;
    const request = { methodId, requestId: this.#requestId, payload };
    const options = { deadlineMs: 10_000, maxResponseBytes: defaultLimits.maxPayloadBytes };
    return (await connection.call(request, options)).payload;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
  }
}

/** Least-squares slope of y over x. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (pick: 0 | 1): number =>
    points.reduce((sum, point) => sum + point[pick], 0) / points.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  const over = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const under = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return under === 0 ? 0 : over / under;
}
