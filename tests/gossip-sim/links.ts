/**
 * Links of federation in a simulation, as far as audits see them: a session each way for as long as two
 * nodes are connected, whose calls carry the bytes of the wire to the handlers of the other side.
 */
import {
  errorFromWire,
  errorToWire,
  silentLog,
  TransportError,
  type Method,
} from '@quicprochat/proto';
import {
  create,
  ErrorSchema,
  FedHelloResponseSchema,
  fromBinary,
  SignedNodeRecordSchema,
  toBinary,
  type NodeRecord,
} from '@quicprochat/proto/messages';
import type { LinkService, LinkSession, PeerRecord } from '@quicprochat/federation';
import type { AuditLinks } from '@quicprochat/nodes/gossip';
import type { Dice } from '../cluster/dice.ts';
import { identityOf } from './histories.ts';
import type { Connection, Network } from './network.ts';

/** Answers a peer: by the number of the method, a request as it was decoded. */
export type Answers = (
  from: string,
  method: Method,
  request: unknown,
) => Promise<Record<string, unknown>>;

export class SimLinks {
  readonly #network: Network;
  readonly #dice: Dice;
  readonly #members = new Map<string, MemberLinks>();

  constructor(network: Network, dice: Dice) {
    this.#network = network;
    this.#dice = dice;
  }

  /** Before `start` the node's services attach themselves. */
  of(domain: string, peers: readonly string[], answers: Answers): MemberLinks {
    return new MemberLinks(domain, peers, answers, this);
  }

  start(links: MemberLinks): void {
    this.#members.set(links.domain, links);
    this.#network.join(links.domain, links);
  }

  leave(domain: string): void {
    this.#members.delete(domain);
    this.#network.leave(domain);
  }

  async call(
    connection: Connection,
    from: string,
    to: string,
    method: Method,
    payload: Uint8Array,
  ): Promise<Uint8Array> {
    const answered = await this.#network.call(connection, async () => {
      const member = this.#members.get(to);
      if (member === undefined) return new Promise<never>(() => undefined);
      try {
        const answer = await member.answers(from, method, fromBinary(method.request, payload));
        return { status: 0, payload: toBinary(method.response, create(method.response, answer)) };
      } catch (error) {
        const random = { bytes: (length: number) => this.#dice.bytes(length) };
        const options = { log: silentLog, random, method: String(method.id) };
        const [status, wire] = errorToWire(error, options);
        return { status, payload: wire };
      }
    });
    if (answered.status === 0) return answered.payload;
    throw errorFromWire(answered.status, fromBinary(ErrorSchema, answered.payload));
  }
}

export class MemberLinks implements AuditLinks {
  readonly domain: string;
  readonly answers: Answers;
  readonly policy: AuditLinks['policy'];
  readonly records: AuditLinks['records'];
  readonly #links: SimLinks;
  readonly #services: LinkService[] = [];
  readonly #known = new Map<string, PeerRecord>();
  readonly #listeners = new Set<(domain: string, record: NodeRecord) => void>();
  readonly #sessions = new Map<string, { connection: Connection; ended: AbortController }>();

  constructor(domain: string, peers: readonly string[], answers: Answers, links: SimLinks) {
    this.domain = domain;
    this.answers = answers;
    this.#links = links;
    this.policy = {
      peers: peers.map((peer) => ({ domain: peer, pins: [], endpoints: [] })),
      allows: () => true,
    };
    this.records = {
      get: (peer) => this.#known.get(peer),
      onRecord: (listener) => {
        this.#listeners.add(listener);
        return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
      },
    };
  }

  /** The record of a peer, as trust proved it. */
  learn(peer: string): void {
    if (this.#known.has(peer)) return;
    const { record } = identityOf(peer);
    this.#known.set(peer, { record, signed: create(SignedNodeRecordSchema, {}) });
    for (const listener of this.#listeners) listener(peer, record);
  }

  /** Links are always up here as far as they can be. */
  notify(): void {}

  attach(service: LinkService): void {
    this.#services.push(service);
  }

  onUp(other: string, connection: Connection): void {
    if (!this.policy.peers.some(({ domain }) => domain === other)) return;
    this.#end(other);
    const ended = new AbortController();
    this.#sessions.set(other, { connection, ended });
    this.learn(other);
    const session = this.#session(other, connection, ended);
    for (const service of this.#services) void service.serve(other, session);
  }

  onDown(other: string, connection: Connection): void {
    if (this.#sessions.get(other)?.connection === connection) this.#end(other);
  }

  #end(other: string): void {
    const session = this.#sessions.get(other);
    this.#sessions.delete(other);
    session?.ended.abort(new TransportError('closed', 'the link has ended'));
  }

  /** Calls to a peer, for nodes that are not put together of services. */
  session(other: string): LinkSession | undefined {
    const session = this.#sessions.get(other);
    return session && this.#session(other, session.connection, session.ended);
  }

  #session(other: string, connection: Connection, ended: AbortController): LinkSession {
    const { signal } = ended;
    return {
      hello: create(FedHelloResponseSchema, {}),
      spkiSha256: new Uint8Array(32),
      signal,
      end: (reason) => ended.abort(reason),
      call: async (method, request) => {
        const bytes = toBinary(method.request, create(method.request, request));
        const aborted = Promise.withResolvers<never>();
        const onAbort = (): void => aborted.reject(signal.reason as Error);
        if (signal.aborted) throw signal.reason;
        signal.addEventListener('abort', onAbort, { once: true });
        try {
          const answered = this.#links.call(connection, this.domain, other, method, bytes);
          const answer = await Promise.race([answered, aborted.promise]);
          return fromBinary(method.response, answer);
        } finally {
          signal.removeEventListener('abort', onAbort);
        }
      },
    };
  }
}
