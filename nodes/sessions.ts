/**
 * Who a connection is: a logged-in device by the transport key that its handshake proved, a peer
 * node after FedHello, else anyone. Answers from memory; the disk is asked once per key.
 */
import type { Caller, Clock } from '@quicprochat/proto';
import type { Connection } from '@quicprochat/proto/transport';
import type { NodeStore, Session } from './store/store.ts';

/** Cached keys; the oldest goes first. Unknown keys are not cached, so strangers cannot fill it. */
const cachedSessionsMax = 100_000;

type Device = Extract<Caller, { class: 'device' }>;

export class Sessions {
  readonly #store: NodeStore;
  readonly #clock: Clock;
  readonly #devices = new Map<string, Device>();
  readonly #peers = new WeakMap<Connection, string>();

  constructor(store: NodeStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** The caller as of now: an expired session is nobody. */
  async identify(connection: Connection): Promise<Caller> {
    const domain = this.#peers.get(connection);
    if (domain !== undefined) return { class: 'peer', domain };
    const key = keyOf(connection.peer.spkiSha256);
    let device = this.#devices.get(key);
    if (device === undefined) {
      const session = await this.#store.sessionByTransportKey(connection.peer.spkiSha256);
      if (session === undefined) return { class: 'anyone' };
      device = this.#remember(key, session);
    }
    return device.sessionExpiresMs > this.#clock.now() ? device : { class: 'anyone' };
  }

  /** From an answered FedHello on, this connection speaks for the peer. */
  bindPeer(connection: Connection, domain: string): void {
    this.#peers.set(connection, domain);
  }

  /** A key got, changed or lost its session: ask the disk again at the next call. */
  forget(transportSpki: Uint8Array): void {
    this.#devices.delete(keyOf(transportSpki));
  }

  /** Drops every cached key of a device, when it was bound to a new one. */
  forgetDevice(identityPub: Uint8Array): void {
    for (const [key, device] of this.#devices) {
      if (Buffer.compare(device.identityPub, identityPub) === 0) this.#devices.delete(key);
    }
  }

  #remember(key: string, session: Session): Device {
    const device: Device = { class: 'device', ...session };
    this.#devices.set(key, device);
    if (this.#devices.size > cachedSessionsMax) {
      const oldest = this.#devices.keys().next();
      if (oldest.done !== true) this.#devices.delete(oldest.value);
    }
    return device;
  }
}

function keyOf(spki: Uint8Array): string {
  return Buffer.from(spki).toString('latin1');
}
