/**
 * The receiving side of `/qpc/deliver/1` (docs/protocol/p2p.md): Hello, by which both devices prove
 * who they are, then Enqueue to the own inbox. The answer comes after the receiver's transaction, so
 * it means DELIVERED. Who may deliver, and what is done with a message, is the caller's.
 */
import {
  checkFields,
  InvalidArgumentError,
  maxRequestBytes,
  messageTag,
  methods,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  TokenBuckets,
  UnauthenticatedError,
  UnimplementedError,
  type Method,
  type Rate,
  type RequestFrame,
  type Runtime,
} from '@quicprochat/proto';
import {
  create,
  EnqueueResponseSchema,
  fromBinary,
  HelloResponseSchema,
  Outcome,
  toBinary,
  type EnqueueRequest,
  type HelloRequest,
  type MessageShape,
  type SignedEndpointRecord,
} from '@quicprochat/proto/messages';
import { verifyEndpointRecord, type EndpointRecord } from './endpoint-record.ts';
import { serveFrames } from './frame-serve.ts';
import type { Host, HostConnection } from './host.ts';
import type { ByteStream } from './byte-stream.ts';
import type { Reach } from './swarm-address.ts';

export const deliverProtocol = '/qpc/deliver/1';
export const deliverVersion = 1;

export interface DeliverServerLimits {
  /** Streams of one connection. */
  readonly streams: number;
  /** Streams of all connections whose device is not known yet. */
  readonly strangers: number;
  /** Time until Hello (ms). */
  readonly helloMs: number;
  /** Enqueue of one device, over all its streams. */
  readonly perDevice: Rate;
  /** Hello of one peer id: signatures cost. */
  readonly hellos: Rate;
}

export const deliverServerLimits: DeliverServerLimits = {
  streams: 8,
  strangers: 256,
  helloMs: 10_000,
  perDevice: { perSecond: 60, burst: 300 },
  hellos: { perSecond: 1, burst: 10 },
};

/** How a message came here. */
export type DeliveryPath = 'direct' | 'relay';

export interface Delivery {
  /** The proved sender: its connection's swarm is the one that its device signed for. */
  readonly from: EndpointRecord;
  readonly request: EnqueueRequest;
  readonly via: DeliveryPath;
  /** Aborted when the sender is gone: nobody reads the answer any more. */
  readonly signal: AbortSignal;
}

export interface DeliverServerOptions {
  readonly runtime: Runtime;
  /** This device (32 bytes). */
  readonly device: Uint8Array;
  /** This device's own record, as it is told to whoever was admitted. */
  readonly record: () => SignedEndpointRecord;
  /** What addresses of others may be, as in EndpointRules. */
  readonly reach: readonly Reach[];
  /**
   * Whether the device may deliver here; refuses by throwing a QpcError, such as PermissionDenied
   * BLOCKED. Before it nothing of this device is told, not even that it is this one.
   */
  readonly admit: (from: EndpointRecord) => Promise<void>;
  /**
   * Takes a message. Resolves when it is durable here, and says whether it was here already. What it
   * throws is told to the sender, who keeps the message.
   */
  readonly onDelivery: (delivery: Delivery) => Promise<'stored' | 'duplicate'>;
  readonly limits?: Partial<DeliverServerLimits>;
}

export async function serveDeliveries(host: Host, options: DeliverServerOptions): Promise<void> {
  const server = new DeliverServer(options);
  await host.handle(deliverProtocol, server.limits.streams, (stream, connection) =>
    server.serve(stream, connection),
  );
}

/** A stream without a Hello. */
interface Stranger {
  readonly peerId: string;
  readonly end: () => void;
}

class DeliverServer {
  readonly limits: DeliverServerLimits;
  readonly #options: DeliverServerOptions;
  readonly #buckets: TokenBuckets;
  /** In the order in which they came. */
  readonly #strangers = new Set<Stranger>();

  constructor(options: DeliverServerOptions) {
    this.#options = options;
    this.limits = { ...deliverServerLimits, ...options.limits };
    this.#buckets = new TokenBuckets(options.runtime.clock);
  }

  serve(stream: ByteStream, connection: HostConnection): void {
    const { runtime } = this.#options;
    if (this.#strangers.size >= this.limits.strangers) this.#makeRoom();
    const { peerId } = connection;
    const stranger: Stranger = { peerId, end: () => stream.abort('too many strangers') };
    this.#strangers.add(stranger);
    let from: EndpointRecord | undefined;
    const known = (): void => {
      this.#strangers.delete(stranger);
      timer.cancel();
    };
    const timer = runtime.clock.timer(this.limits.helloMs, () => stream.abort('no hello'));
    void stream.closed.then(known);
    const handle = async (frame: RequestFrame, signal: AbortSignal): Promise<Uint8Array> => {
      switch (frame.methodId) {
        case methods.hello.id:
          from = await this.#hello(decode(methods.hello, frame), connection);
          known();
          return this.#helloAnswer();
        case methods.enqueue.id:
          if (from === undefined) throw new UnauthenticatedError('NOT_LOGGED_IN', 'Hello is first');
          return this.#enqueue(frame, { from, signal, via: pathOf(connection) });
        default:
          throw new UnimplementedError(`method ${frame.methodId} is not for devices`);
      }
    };
    // Of a stranger no more is held than a Hello needs.
    const bound = (methodId: number): number =>
      Math.min(boundOf(methodId), from === undefined ? methods.hello.maxRequestBytes : Infinity);
    serveFrames(stream, handle, { maxRequestBytes: bound, runtime });
  }

  /**
   * Ends the oldest stream of whoever has most of them without a Hello: who says it at once stays, and who
   * fills the places with silence loses them.
   */
  #makeRoom(): void {
    const counts = new Map<string, number>();
    for (const { peerId } of this.#strangers) counts.set(peerId, (counts.get(peerId) ?? 0) + 1);
    const most = Math.max(...counts.values());
    for (const stranger of this.#strangers) {
      if (counts.get(stranger.peerId) !== most) continue;
      this.#strangers.delete(stranger);
      stranger.end();
      return;
    }
  }

  async #hello(request: HelloRequest, { peerId }: HostConnection): Promise<EndpointRecord> {
    this.#take(`hello ${peerId}`, this.limits.hellos);
    if (request.versionMin > deliverVersion || request.versionMax < deliverVersion) {
      throw new InvalidArgumentError('BAD_FIELD', `version: only ${deliverVersion}`);
    }
    const { reach, runtime, admit, device } = this.#options;
    const from = verifyEndpointRecord(request.endpoint, {
      nowMs: runtime.clock.now(),
      peerId,
      reach,
    });
    if (Buffer.compare(from.device, device) === 0) {
      throw new PermissionDeniedError('CALLER_CLASS', 'this is the same device');
    }
    await admit(from);
    return from;
  }

  #helloAnswer(): Uint8Array {
    return toBinary(
      HelloResponseSchema,
      create(HelloResponseSchema, { version: deliverVersion, endpoint: this.#options.record() }),
    );
  }

  async #enqueue(frame: RequestFrame, delivery: Omit<Delivery, 'request'>): Promise<Uint8Array> {
    const { device, onDelivery, runtime } = this.#options;
    const sender = Buffer.from(delivery.from.device).toString('latin1');
    this.#take(`enqueue ${sender}`, this.limits.perDevice);
    const request = decode(methods.enqueue, frame);
    if (request.channel !== undefined || Buffer.compare(request.rid, device) !== 0) {
      throw new NotFoundError('UNKNOWN_DEVICE', 'the inbox of another device');
    }
    const outcome = await onDelivery({ ...delivery, request });
    return toBinary(
      EnqueueResponseSchema,
      create(EnqueueResponseSchema, {
        outcome: outcome === 'stored' ? Outcome.STORED : Outcome.DUPLICATE,
        tag: messageTag(request.mid, request.payload),
        receivedMs: BigInt(runtime.clock.now()),
      }),
    );
  }

  #take(key: string, rate: Rate): void {
    const retryAfterMs = this.#buckets.take(key, rate);
    if (retryAfterMs === 0) return;
    throw new ResourceExhaustedError('RATE_LIMITED', `more than ${rate.perSecond}/s`, {
      retryAfterMs,
    });
  }
}

export const pathOf = ({ isRelayed }: HostConnection): DeliveryPath =>
  isRelayed ? 'relay' : 'direct';

/** Bounds of what is spoken here; every other method may say nothing. */
function boundOf(methodId: number): number {
  const isSpoken = methodId === methods.hello.id || methodId === methods.enqueue.id;
  return isSpoken ? maxRequestBytes(methodId) : 0;
}

function decode<M extends Method>(method: M, frame: RequestFrame): MessageShape<M['request']> {
  let request: MessageShape<M['request']>;
  try {
    request = fromBinary(method.request, frame.payload) as MessageShape<M['request']>;
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', `request is no ${method.name}`, { cause });
  }
  checkFields<object>(request, method.rules);
  return request;
}
