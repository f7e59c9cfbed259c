/**
 * The transport of one process with faults on its calls: a request that never leaves, a reply that gets
 * lost when the work is done, a request that arrives twice, an answer that is late, a connection that
 * breaks. Below it is the memory engine of production, whose network delays, reorders and cuts.
 */
import { methodById, TransportError, type MethodName } from '@quicprochat/proto';
import type {
  CallOptions,
  Connection,
  DialOptions,
  Endpoint,
  Listener,
  ListenOptions,
  MemoryNetwork,
  Transport,
} from '@quicprochat/proto/transport';
import type { RequestFrame, ResponseFrame } from '@quicprochat/proto';
import { never, type Process, type SimRandom } from './process.ts';
import type { Trace } from './trace.ts';

/** Shares of all calls that a process makes. */
export interface CallFaults {
  /** The request does not arrive; its caller hears nothing. */
  readonly requestLost: number;
  /** The work is done and the reply gets lost. */
  readonly replyLost: number;
  /** Of lost requests and replies: those that the whole connection is lost with. */
  readonly breaks: number;
  /** The request arrives a second time, a little later. Only calls that a client may repeat. */
  readonly duplicate: number;
  /** The reply comes late, up to `lateMs`. */
  readonly late: number;
  readonly lateMs: number;
  /** The dial gets no answer. */
  readonly dialLost: number;
}

export const noCallFaults: CallFaults = {
  requestLost: 0,
  replyLost: 0,
  breaks: 0,
  duplicate: 0,
  late: 0,
  lateMs: 0,
  dialLost: 0,
};

/**
 * Calls whose request may arrive twice: what a caller repeats after a lost reply on another connection,
 * while the first is still on its way. A second Subscribe on the same connection would be another
 * subscription, which no network makes.
 */
const repeatable: ReadonlySet<MethodName> = new Set<MethodName>([
  'enqueue',
  'fetch',
  'ack',
  'fedRelay',
  'fedRelayBatch',
  'relayStatus',
]);

export interface FaultyParts {
  readonly network: MemoryNetwork;
  readonly process: Process;
  readonly host: string;
  readonly random: SimRandom;
  readonly trace: Trace;
  /** Asked for each call. */
  readonly faults: () => CallFaults;
  /**
   * A call of `near` was answered, whether or not the answer gets lost now. What it returns is called when the answer
   * reaches the caller.
   */
  readonly onAnswer?: (
    near: string,
    far: string,
    request: RequestFrame,
    response: ResponseFrame,
  ) => () => void;
}

export class FaultyTransport implements Transport {
  readonly name = 'memory';
  readonly #parts: FaultyParts;
  readonly #inner: Transport;

  constructor(parts: FaultyParts) {
    this.#parts = parts;
    this.#inner = parts.network.transport(parts.host);
  }

  listen(options: ListenOptions): Promise<Listener> {
    return this.#parts.process.isDead ? never() : this.#inner.listen(options);
  }

  async dial(endpoint: Endpoint, options: DialOptions): Promise<Connection> {
    const { process, random, faults, trace } = this.#parts;
    if (process.isDead) return never();
    if (random.chance(faults().dialLost)) {
      trace.fault('dial-lost', process.name);
      await process.runtime.clock.sleep(options.limits.handshakeMs, options.signal);
      throw new TransportError('timeout', 'dial: no answer (simulated)');
    }
    const connection = await this.#inner.dial(endpoint, options);
    if (process.isDead) return never();
    return new FaultyConnection(connection, this.#parts, endpoint.host);
  }
}

class FaultyConnection implements Connection {
  readonly #inner: Connection;
  readonly #parts: FaultyParts;
  readonly #far: string;

  constructor(inner: Connection, parts: FaultyParts, far: string) {
    this.#inner = inner;
    this.#parts = parts;
    this.#far = far;
  }

  get peer(): Connection['peer'] {
    return this.#inner.peer;
  }
  get closed(): Connection['closed'] {
    return this.#inner.closed;
  }
  onCall(handler: Parameters<Connection['onCall']>[0]): void {
    this.#inner.onCall(handler);
  }
  openPushStream(): ReturnType<Connection['openPushStream']> {
    return this.#inner.openPushStream();
  }
  onPushStream(handler: Parameters<Connection['onPushStream']>[0]): void {
    this.#inner.onPushStream(handler);
  }
  close(code: number, reason: string): Promise<void> {
    return this.#inner.close(code, reason);
  }

  async call(request: RequestFrame, options: CallOptions): Promise<ResponseFrame> {
    const { process, random, trace } = this.#parts;
    if (process.isDead) return never();
    const faults = this.#parts.faults();
    const name = methodById(request.methodId)?.name;
    if (random.chance(faults.requestLost)) return this.#lose('request-lost', options, name);
    if (name !== undefined && repeatable.has(name) && random.chance(faults.duplicate)) {
      this.#repeat(request, options, name);
    }
    const isReplyLost = random.chance(faults.replyLost);
    const lateMs = random.chance(faults.late) ? random.between(1, faults.lateMs) : 0;
    let response: ResponseFrame;
    try {
      response = await this.#inner.call(request, options);
    } catch (error) {
      if (process.isDead) return never();
      trace.note(process.name, 'call failed', `${name} ${String(error)}`);
      throw error;
    }
    if (process.isDead) return never();
    const onHeard = this.#parts.onAnswer?.(process.name, this.#far, request, response);
    if (isReplyLost) return this.#lose('reply-lost', options, name);
    if (lateMs > 0) {
      trace.fault('reply-late', process.name, name);
      await process.runtime.clock.sleep(lateMs, options.signal);
    }
    trace.note(process.name, 'call', `${name} ${response.status}`);
    onHeard?.();
    return response;
  }

  /** The caller finds out by a broken connection, or by waiting in vain. */
  async #lose(
    fault: string,
    options: CallOptions,
    name: MethodName | undefined,
  ): Promise<ResponseFrame> {
    const { process, random, network, host, trace } = this.#parts;
    if (random.chance(this.#parts.faults().breaks)) {
      trace.fault(`${fault}-and-connection`, process.name, name);
      network.breakConnections(host, this.#far);
      throw new TransportError('closed', `${name}: the connection broke (simulated)`);
    }
    trace.fault(fault, process.name, name);
    const gone = new AbortController();
    void this.#inner.closed.then(() => gone.abort(new TransportError('closed', 'call: closed')));
    const signals = [gone.signal, ...(options.signal === undefined ? [] : [options.signal])];
    await process.runtime.clock.sleep(options.deadlineMs, AbortSignal.any(signals));
    throw new TransportError('timeout', `${name}: no answer (simulated)`);
  }

  #repeat(request: RequestFrame, options: CallOptions, name: MethodName): void {
    const { process, random, trace } = this.#parts;
    trace.fault('request-twice', process.name, name);
    process.runtime.clock.timer(random.between(0, 50), () => {
      // Nobody asked for its answer.
      this.#inner.call(request, options).catch(() => undefined);
    });
  }
}
