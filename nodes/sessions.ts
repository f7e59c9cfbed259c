/**
 * Who a connection is: a logged-in device by the transport key that its handshake proved, a new
 * device that has logged in to be registered, a peer node after FedHello, a device of another node that
 * asked for its mailbox, else anyone. Answers from
 * memory; the disk is asked once per key.
 */
import type { Caller, Clock } from '@quicprochat/proto';
import type { Connection } from '@quicprochat/proto/transport';
import type { NodeStore } from './store/store.ts';

/** Cached keys; the oldest goes first. Strangers have a table of their own: they evict only each other. */
const cachedSessionsMax = 100_000;
const cachedStrangersMax = 10_000;
/** Time that a new device has to be registered in after its login (ms). */
const enrollingMs = 600_000;

type Device = Extract<Caller, { class: 'device' }>;

/** A device that proved the account's password and is in no manifest yet. */
interface Enrolling {
  readonly caller: Extract<Caller, { class: 'enrolling' }>;
  readonly expiresMs: number;
}

export class Sessions {
  readonly #store: NodeStore;
  readonly #clock: Clock;
  readonly #devices = new Map<string, Device>();
  readonly #strangers = new Set<string>();
  readonly #peers = new WeakMap<Connection, string>();
  readonly #guests = new WeakMap<Connection, Extract<Caller, { class: 'guest' }>>();
  /** As many as there are connections; a connection that closes takes its own along. */
  readonly #enrolling = new Map<Connection, Enrolling>();

  constructor(store: NodeStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** The caller as of now: an expired session is nobody. */
  async identify(connection: Connection): Promise<Caller> {
    const domain = this.#peers.get(connection);
    if (domain !== undefined) return { class: 'peer', domain };
    const guest = this.#guests.get(connection);
    if (guest !== undefined) return guest;
    const enrolling = this.#enrolling.get(connection);
    if (enrolling !== undefined) {
      if (enrolling.expiresMs > this.#clock.now()) return enrolling.caller;
      this.#enrolling.delete(connection);
    }
    const key = keyOf(connection.peer.spkiSha256);
    let device = this.#devices.get(key);
    if (device === undefined) {
      if (this.#strangers.has(key)) return { class: 'anyone' };
      const session = await this.#store.sessionByTransportKey(connection.peer.spkiSha256);
      if (session === undefined) {
        // The store answers in order, so a registration that came later also forgets later.
        this.#strangers.add(key);
        evictOldest(this.#strangers, cachedStrangersMax);
        return { class: 'anyone' };
      }
      device = { class: 'device', ...session };
      this.#devices.set(key, device);
      evictOldest(this.#devices, cachedSessionsMax);
    }
    return device.sessionExpiresMs > this.#clock.now() ? device : { class: 'anyone' };
  }

  /** From an answered FedHello on, this connection speaks for the peer. */
  bindPeer(connection: Connection, domain: string): void {
    this.#peers.set(connection, domain);
  }

  /** From a granted mailbox on, this connection is its device's, and nobody else's. */
  bindGuest(connection: Connection, userId: string, identityPub: Uint8Array): void {
    this.#guests.set(connection, { class: 'guest', userId, identityPub });
  }

  /**
   * A device that is not in its account's manifest logged in: for 10 minutes this connection, and no
   * other, may register it. Returns when that ends (Unix ms).
   */
  bindEnrolling(connection: Connection, userId: string, identityPub: Uint8Array): number {
    const expiresMs = this.#clock.now() + enrollingMs;
    if (!this.#enrolling.has(connection)) {
      void connection.closed.then(() => this.#enrolling.delete(connection));
    }
    const caller = { class: 'enrolling', userId, identityPub } as const;
    this.#enrolling.set(connection, { caller, expiresMs });
    return expiresMs;
  }

  /** The device was registered, or another one logged in. */
  endEnrolling(connection: Connection): void {
    this.#enrolling.delete(connection);
  }

  /** The account is gone. */
  forgetEnrolling(userId: string): void {
    for (const [connection, { caller }] of this.#enrolling) {
      if (caller.userId === userId) this.#enrolling.delete(connection);
    }
  }

  /** A key got, changed or lost its session: ask the disk again at the next call. */
  forget(transportSpki: Uint8Array): void {
    const key = keyOf(transportSpki);
    this.#devices.delete(key);
    this.#strangers.delete(key);
  }

  /** Drops every cached key of a device, when it was bound to a new one. */
  forgetDevice(identityPub: Uint8Array): void {
    for (const [key, device] of this.#devices) {
      if (Buffer.compare(device.identityPub, identityPub) === 0) this.#devices.delete(key);
    }
  }
}

/** Maps and sets keep the order of insertion: their first key is the oldest. */
function evictOldest(
  cache: { readonly size: number; keys(): IterableIterator<string>; delete(key: string): boolean },
  max: number,
): void {
  if (cache.size <= max) return;
  const oldest = cache.keys().next();
  if (oldest.done !== true) cache.delete(oldest.value);
}

function keyOf(spki: Uint8Array): string {
  return Buffer.from(spki).toString('latin1');
}
