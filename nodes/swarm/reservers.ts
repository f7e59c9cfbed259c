/**
 * Who may reserve at the node's relay: devices with a session here, by the peer id that they signed, and
 * so many guests: devices of peers' users, for as long as their records last, so many of a user and of a
 * domain. Kept in memory: a device says it again whenever it connects, and its relay loop waits for that.
 */
import { ResourceExhaustedError, type Clock, hex } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { verifyEndpointRecord, type EndpointRecord, type PeerIdText } from '@quicprochat/p2p';
import type { NodeStore } from '../store/store.ts';

/** Devices that are known at a time; the one that said so first goes first. */
export const reserversMax = 100_000;
/** A guest for whom there is no place asks again after so long (ms). */
const guestRetryMs = 10 * 60_000;

/** Places for devices of peers' users. */
export interface GuestLimits {
  readonly all: number;
  readonly perDomain: number;
  readonly perUser: number;
}

interface Reserver {
  readonly peerId: PeerIdText;
  /** Of a device of this node; undefined for a guest. */
  readonly transportKey: Uint8Array | undefined;
  readonly seq: number;
  readonly expiresMs: number;
  /** Told to who has a delivery token. */
  readonly shared: SignedEndpointRecord | undefined;
}

export class Reservers {
  readonly #store: Pick<NodeStore, 'sessionByTransportKey'>;
  readonly #clock: Clock;
  readonly #limits: GuestLimits;
  readonly #byDevice = new Map<string, Reserver>();
  /** User ids of guests' devices. */
  readonly #guests = new Map<string, string>();
  /** Places that are taken, by user id and by domain. */
  readonly #taken = new Map<string, number>();
  /**
   * A record is signed by its device, not by the swarm that it names: what one device says of a swarm
   * must not keep out the device whose swarm it is.
   */
  readonly #devicesOf = new Map<PeerIdText, Set<string>>();

  constructor(
    store: Pick<NodeStore, 'sessionByTransportKey'>,
    clock: Clock,
    guestLimits: GuestLimits,
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#limits = guestLimits;
  }

  /**
   * Takes the record of a device that calls. The same one again is fine, an older one is not. Errors
   * are those of verifyEndpointRecord.
   */
  publish(
    endpoint: SignedEndpointRecord | undefined,
    caller: {
      readonly device: Uint8Array;
      readonly transportKey: Uint8Array;
      /** Whoever has a delivery token may be told. */
      readonly isShared?: boolean;
    },
  ): void {
    const { device, transportKey, isShared = false } = caller;
    const { peerId, seq, expiresMs } = this.#verify(endpoint, device);
    const shared = isShared ? endpoint : undefined;
    this.#put(hex(device), { peerId, transportKey, seq, expiresMs, shared });
    if (this.#byDevice.size <= reserversMax) return;
    for (const oldest of this.#byDevice.keys()) {
      this.#forget(oldest);
      break;
    }
  }

  /** The device that signed a record. Errors are those of verifyEndpointRecord. */
  deviceOf(endpoint: SignedEndpointRecord | undefined): Uint8Array {
    return this.#verify(endpoint).device;
  }

  /**
   * Takes the record of a device of a peer's user, as was shown by a credential; an older one of the same
   * swarm changes nothing. Throws ResourceExhaustedError QUOTA while the user, its domain or all of them
   * have places enough, and as `publish`.
   */
  publishGuest(
    endpoint: SignedEndpointRecord | undefined,
    device: Uint8Array,
    userId: string,
  ): void {
    const name = hex(device);
    this.#dropExpiredGuests();
    const known = this.#byDevice.get(name);
    // One of this node's own stays that, whatever it shows besides.
    if (known?.transportKey !== undefined) return;
    // Anybody can show a record of it that is newer than the one for relays: that must not shut it out.
    const shown = this.#verify(endpoint);
    if (shown.peerId === known?.peerId && shown.seq < known.seq) return;
    const { peerId, seq, expiresMs } = this.#verify(endpoint, device);
    // Who has a place keeps it.
    if (this.#guests.get(name) !== userId) this.#requirePlace(userId);
    this.#put(name, { peerId, transportKey: undefined, seq, expiresMs, shared: undefined });
    this.#guests.set(name, userId);
    this.#count(userId, 1);
  }

  #requirePlace(userId: string): void {
    const { all, perDomain, perUser } = this.#limits;
    const taken = (owner: string): number => this.#taken.get(owner) ?? 0;
    const full =
      this.#guests.size >= all
        ? `${all} guests`
        : taken(domainOf(userId)) >= perDomain
          ? `${perDomain} guests of one domain`
          : taken(userId) >= perUser
            ? `${perUser} guests of one user`
            : undefined;
    if (full === undefined) return;
    const options = { retryAfterMs: guestRetryMs };
    throw new ResourceExhaustedError('QUOTA', `${full} at the relay`, options);
  }

  #count(userId: string, change: 1 | -1): void {
    for (const owner of [userId, domainOf(userId)]) {
      const now = (this.#taken.get(owner) ?? 0) + change;
      if (now === 0) this.#taken.delete(owner);
      else this.#taken.set(owner, now);
    }
  }

  /** The record of a device with a session here that has it told; undefined: there is none now. */
  async shared(device: Uint8Array): Promise<SignedEndpointRecord | undefined> {
    const known = this.#byDevice.get(hex(device));
    if (known?.shared === undefined) return undefined;
    return (await this.#isIn(known)) ? known.shared : undefined;
  }

  /** Whether the peer is, by its word, a device of this node whose session stands, or a guest. */
  async mayReserve(peerId: PeerIdText): Promise<boolean> {
    for (const device of this.#devicesOf.get(peerId) ?? []) {
      const known = this.#byDevice.get(device);
      if (known !== undefined && (await this.#isIn(known))) return true;
    }
    return false;
  }

  async #isIn({ expiresMs, transportKey }: Reserver): Promise<boolean> {
    const nowMs = this.#clock.now();
    if (expiresMs <= nowMs) return false;
    if (transportKey === undefined) return true;
    const session = await this.#store.sessionByTransportKey(transportKey);
    return session !== undefined && session.sessionExpiresMs > nowMs;
  }

  #verify(endpoint: SignedEndpointRecord | undefined, device?: Uint8Array): EndpointRecord {
    const known = device === undefined ? undefined : this.#byDevice.get(hex(device));
    return verifyEndpointRecord(endpoint, {
      nowMs: this.#clock.now(),
      // Where the device is, is not looked at here: who is told judges for itself.
      reach: ['loopback', 'link', 'private', 'public'],
      ...(device === undefined ? {} : { device }),
      ...(known === undefined ? {} : { knownSeq: known.seq - 1 }),
    });
  }

  #put(device: string, reserver: Reserver): void {
    this.#forget(device);
    const { peerId } = reserver;
    this.#byDevice.set(device, reserver);
    this.#devicesOf.set(peerId, (this.#devicesOf.get(peerId) ?? new Set()).add(device));
  }

  #dropExpiredGuests(): void {
    const nowMs = this.#clock.now();
    for (const device of this.#guests.keys()) {
      if ((this.#byDevice.get(device)?.expiresMs ?? 0) <= nowMs) this.#forget(device);
    }
  }

  #forget(device: string): void {
    const guest = this.#guests.get(device);
    if (guest !== undefined) this.#count(guest, -1);
    this.#guests.delete(device);
    const known = this.#byDevice.get(device);
    if (known === undefined) return;
    this.#byDevice.delete(device);
    const devices = this.#devicesOf.get(known.peerId);
    devices?.delete(device);
    if (devices?.size === 0) this.#devicesOf.delete(known.peerId);
  }
}

const domainOf = (userId: string): string => userId.slice(userId.indexOf('@') + 1);
