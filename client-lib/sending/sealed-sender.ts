/**
 * Sealed sender (docs/protocol/delivery.md, "Sealed sender"): copies go straight to the node of their
 * recipient, over a connection that says nothing of who sends: no login, and a transport key that was
 * made for this one connection. The recipient's delivery token opens the inbox. Which copies go this
 * way is the outbox's business.
 */
import {
  maxAnonymousBatchBytes,
  TransportError,
  UnavailableError,
  type Runtime,
} from '@quicprochat/proto';
import {
  CloseCode,
  makeIdentity,
  type Connection,
  type Transport,
} from '@quicprochat/proto/transport';
import { Courier, type Receipt } from './courier.ts';
import { knownRecordOf, nodeAddressIn } from '../kt/log-record.ts';
import { nodeRecordIn } from '../kt/node-address.ts';
import { callerOf, dialNode, type Caller, type LineCaller } from '../dial.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';
import type { ClientStore } from '../store/store.ts';

export const sealedSenderLimits = {
  /** A connection that carried nothing for so long is given up (ms); the next has another key. */
  idleMs: 60_000,
  /** Nodes with a connection at the same time; the one that was idle longest goes. */
  connections: 16,
} as const;

export interface SealedSenderParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly transport: Transport;
  readonly own: {
    readonly domain: string;
    /** `qpc://host:port#pin`. */
    readonly nodeAddress: string;
  };
}

/** A node's OK, and the node itself, to check it with. */
export interface SealedReceipt extends Receipt {
  readonly caller: Caller;
}

interface Line {
  readonly connection: Connection;
  readonly courier: Courier;
  readonly caller: LineCaller;
  usedMs: number;
}

export class SealedSender {
  readonly #parts: SealedSenderParts;
  /** By domain, in the order of their last use. */
  readonly #lines = new Map<string, Promise<Line>>();
  #isClosed = false;

  constructor(parts: SealedSenderParts) {
    this.#parts = parts;
  }

  /**
   * One attempt. Throws TransportError, UnavailableError PEER_UNREACHABLE for a domain whose record is
   * not known here, and the node's refusal: PermissionDenied BLOCKED when the token is not valid.
   */
  async send(entry: OutboxEntry, token: Uint8Array): Promise<SealedReceipt> {
    const line = await this.#line(entry.domain);
    line.usedMs = this.#parts.runtime.clock.monotonic();
    const receipt = await line.courier.send(entry, token);
    return { ...receipt, caller: line.caller };
  }

  /** Calls a domain's node over such a connection. Errors are those of `send`. */
  async caller(domain: string): Promise<LineCaller> {
    const line = await this.#line(domain);
    line.usedMs = this.#parts.runtime.clock.monotonic();
    return line.caller;
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#lines.keys()].map((domain) => this.#end(domain)));
  }

  async #line(domain: string): Promise<Line> {
    if (this.#isClosed) throw new TransportError('closed', 'sealed sender: closed');
    const known = this.#lines.get(domain);
    const line = known ?? this.#dial(domain);
    this.#lines.delete(domain);
    this.#lines.set(domain, line);
    if (known === undefined) {
      // A dial that failed leaves nothing behind; whoever waited for it knows.
      line.catch(() => this.#lines.delete(domain));
      for (const oldest of this.#lines.keys()) {
        if (this.#lines.size <= sealedSenderLimits.connections) break;
        void this.#end(oldest);
      }
    }
    return line;
  }

  async #dial(domain: string): Promise<Line> {
    const { runtime, transport } = this.#parts;
    const identity = await makeIdentity(runtime.random);
    const nodeAddress = this.#addressOf(domain);
    const { connection, hello } = await dialNode({ runtime, transport, nodeAddress, identity });
    const caller = {
      ...callerOf(connection),
      clientSpki: identity.spkiSha256,
      nodeSpki: connection.peer.spkiSha256,
    };
    const line = {
      connection,
      courier: new Courier({ hello, ...caller }, maxAnonymousBatchBytes),
      caller,
      usedMs: runtime.clock.monotonic(),
    };
    void connection.closed.then(() => this.#lines.delete(domain));
    this.#watch(domain, line);
    return line;
  }

  #watch(domain: string, line: Line): void {
    const { clock } = this.#parts.runtime;
    clock.timer(sealedSenderLimits.idleMs, () => {
      if (this.#isClosed) return;
      const idleMs = clock.monotonic() - line.usedMs;
      if (idleMs < sealedSenderLimits.idleMs) return this.#watch(domain, line);
      this.#lines.delete(domain);
      void line.connection.close(CloseCode.Normal, 'done');
      return undefined;
    });
  }

  async #end(domain: string): Promise<void> {
    const line = this.#lines.get(domain);
    this.#lines.delete(domain);
    const open = await line?.catch(() => undefined);
    await open?.connection.close(CloseCode.Normal, 'done');
  }

  #addressOf(domain: string): string {
    const { store, own, runtime } = this.#parts;
    if (domain === own.domain) return own.nodeAddress;
    const known = nodeRecordIn(store, domain);
    const address =
      known === undefined
        ? undefined
        : nodeAddressIn(knownRecordOf(known).record, runtime.clock.now());
    if (address !== undefined) return address;
    throw new UnavailableError('PEER_UNREACHABLE', `no address of ${domain} is known`);
  }
}
