/**
 * Who may reserve at the node's relay: devices with a session here, by the peer id that they signed.
 * Kept in memory: a device says it again whenever it connects, and its relay loop waits for that.
 */
import type { Clock } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { verifyEndpointRecord, type PeerIdText } from '@quicprochat/p2p';
import type { NodeStore } from '../store/store.ts';

/** Devices that are known at a time; the one that said so first goes first. */
export const reserversMax = 100_000;

interface Reserver {
  readonly peerId: PeerIdText;
  readonly transportKey: Uint8Array;
  readonly seq: number;
  readonly expiresMs: number;
}

export class Reservers {
  readonly #store: Pick<NodeStore, 'sessionByTransportKey'>;
  readonly #clock: Clock;
  readonly #byDevice = new Map<string, Reserver>();
  /**
   * A record is signed by its device, not by the swarm that it names: what one device says of a swarm
   * must not keep out the device whose swarm it is.
   */
  readonly #devicesOf = new Map<PeerIdText, Set<string>>();

  constructor(store: Pick<NodeStore, 'sessionByTransportKey'>, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /**
   * Takes the record of a device that calls. The same one again is fine, an older one is not. Errors
   * are those of verifyEndpointRecord.
   */
  publish(
    endpoint: SignedEndpointRecord | undefined,
    caller: { readonly device: Uint8Array; readonly transportKey: Uint8Array },
  ): void {
    const device = Buffer.from(caller.device).toString('hex');
    const known = this.#byDevice.get(device);
    const { peerId, seq, expiresMs } = verifyEndpointRecord(endpoint, {
      nowMs: this.#clock.now(),
      device: caller.device,
      // Where the device is, is not looked at here: nobody is told.
      reach: ['loopback', 'link', 'private', 'public'],
      ...(known === undefined ? {} : { knownSeq: known.seq - 1 }),
    });
    this.#forget(device);
    this.#byDevice.set(device, { peerId, transportKey: caller.transportKey, seq, expiresMs });
    this.#devicesOf.set(peerId, (this.#devicesOf.get(peerId) ?? new Set()).add(device));
    if (this.#byDevice.size <= reserversMax) return;
    for (const oldest of this.#byDevice.keys()) {
      this.#forget(oldest);
      break;
    }
  }

  /** Whether the peer is, by its word, a device of this node whose session stands. */
  async mayReserve(peerId: PeerIdText): Promise<boolean> {
    const nowMs = this.#clock.now();
    for (const device of this.#devicesOf.get(peerId) ?? []) {
      const known = this.#byDevice.get(device);
      if (known === undefined || known.expiresMs <= nowMs) continue;
      const session = await this.#store.sessionByTransportKey(known.transportKey);
      if (session !== undefined && session.sessionExpiresMs > nowMs) return true;
    }
    return false;
  }

  #forget(device: string): void {
    const known = this.#byDevice.get(device);
    if (known === undefined) return;
    this.#byDevice.delete(device);
    const devices = this.#devicesOf.get(known.peerId);
    devices?.delete(device);
    if (devices?.size === 0) this.#devicesOf.delete(known.peerId);
  }
}
