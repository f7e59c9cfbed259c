/**
 * Who may reserve at the node's relay: devices with a session here, by the peer id that they signed.
 * Kept in memory: a device says it again whenever it connects, and its relay loop waits for that.
 */
import type { Clock } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { verifyEndpointRecord } from '@quicprochat/p2p';
import type { NodeStore } from '../store/store.ts';

/** Devices that are known at a time; the one that said so first goes first. */
export const reserversMax = 100_000;

interface Reserver {
  readonly deviceHex: string;
  readonly transportKey: Uint8Array;
  readonly seq: number;
  readonly expiresMs: number;
}

export class Reservers {
  readonly #store: Pick<NodeStore, 'sessionByTransportKey'>;
  readonly #clock: Clock;
  readonly #byPeerId = new Map<string, Reserver>();
  readonly #peerIdOf = new Map<string, string>();

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
    const deviceHex = Buffer.from(caller.device).toString('hex');
    const before = this.#peerIdOf.get(deviceHex);
    const known = before === undefined ? undefined : this.#byPeerId.get(before);
    const record = verifyEndpointRecord(endpoint, {
      nowMs: this.#clock.now(),
      device: caller.device,
      // Where the device is, is not looked at here: nobody is told.
      reach: ['loopback', 'link', 'private', 'public'],
      ...(known === undefined ? {} : { knownSeq: known.seq - 1 }),
    });
    const owner = this.#byPeerId.get(record.peerId);
    // Whoever holds the key of a swarm is one device: another may not take its place.
    if (owner !== undefined && owner.deviceHex !== deviceHex) return;
    if (before !== undefined) this.#byPeerId.delete(before);
    const { transportKey } = caller;
    const { seq, expiresMs, peerId } = record;
    this.#byPeerId.set(peerId, { deviceHex, transportKey, seq, expiresMs });
    this.#peerIdOf.set(deviceHex, peerId);
    if (this.#byPeerId.size <= reserversMax) return;
    for (const [oldest, { deviceHex: gone }] of this.#byPeerId) {
      this.#byPeerId.delete(oldest);
      this.#peerIdOf.delete(gone);
      break;
    }
  }

  /** Whether the peer is a device of this node whose session stands. */
  async mayReserve(peerId: string): Promise<boolean> {
    const known = this.#byPeerId.get(peerId);
    const nowMs = this.#clock.now();
    if (known === undefined || known.expiresMs <= nowMs) return false;
    const session = await this.#store.sessionByTransportKey(known.transportKey);
    return session !== undefined && session.sessionExpiresMs > nowMs;
  }
}
