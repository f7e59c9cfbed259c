/**
 * The swarm of one process in a simulation: p2p's Host over simulated connections. What libp2p does below
 * DeviceSwarm, and nothing of what DeviceSwarm does.
 */
import { TransportError } from '@quicprochat/proto';
import type { Host, StreamHandler } from '@quicprochat/p2p/simulation';
import { never, type Process } from './process.ts';
import type { SimSwarms } from './swarm.ts';
import type { WireEnd, WireHost } from './swarm-wire.ts';

export interface SimHostParts {
  /** `alice/1`, `red.example`. */
  readonly name: string;
  readonly process: Process;
  readonly peerId: string;
  /** Where it says to be, without "/p2p/"; one at least. */
  readonly addresses: readonly string[];
  readonly swarms: SimSwarms;
  /** Set: it relays, for whom it may. */
  readonly mayReserve?: (peerId: string) => Promise<boolean>;
}

export class SimHost implements Host, WireHost {
  readonly name: string;
  readonly peerId: string;
  readonly address: string;
  readonly #parts: SimHostParts;
  readonly #ends = new Set<WireEnd>();
  readonly #handlers = new Map<string, { maxStreams: number; handle: StreamHandler }>();
  /** Places at relays, by the connection that each stands on. */
  readonly #places = new Map<string, WireEnd>();
  /** Of a relay: who has a place, by the connection. */
  readonly #reserved = new Map<string, WireEnd>();
  readonly #onConnect: ((peerId: string) => void)[] = [];
  readonly #onDisconnect: ((peerId: string) => void)[] = [];
  #isStopped = false;

  constructor(parts: SimHostParts) {
    this.#parts = parts;
    const { name, peerId, addresses } = parts;
    this.name = name;
    this.peerId = peerId;
    this.address = addresses[0] ?? '';
  }

  get isUp(): boolean {
    return !this.#isStopped && !this.#parts.process.isDead;
  }

  dial(address: string, signal: AbortSignal): Promise<WireEnd> {
    if (!this.isUp) return never();
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    return this.#parts.swarms.dial(this, address, signal);
  }

  connections(peerId: string): readonly WireEnd[] {
    const open = [...this.#ends].filter((end) => end.isOpen && end.peerId === peerId);
    return open.toSorted((one, other) => Number(one.isRelayed) - Number(other.isRelayed));
  }

  keep(): void {}

  handle(protocol: string, maxStreams: number, handle: StreamHandler): Promise<void> {
    this.#handlers.set(protocol, { maxStreams, handle });
    return Promise.resolve();
  }
  handlerOf(protocol: string) {
    return this.#handlers.get(protocol);
  }

  addresses(): readonly string[] {
    return this.#parts.addresses;
  }

  reserve(relay: string): Promise<void> {
    const [end] = this.connections(relay).filter(({ isRelayed }) => !isRelayed);
    if (end === undefined) return Promise.reject(new TransportError('closed', 'not connected'));
    const answered = Promise.withResolvers<void>();
    this.#parts.swarms.reserve(end, (isGiven) => {
      if (!isGiven) return answered.reject(new TransportError('unreachable', 'the relay refuses'));
      this.#places.set(relay, end);
      answered.resolve();
    });
    return answered.promise;
  }
  async release(relay: string): Promise<void> {
    const end = this.#places.get(relay);
    this.#places.delete(relay);
    await end?.close();
  }
  isReserved(relay: string): boolean {
    return this.#places.get(relay)?.isOpen === true;
  }

  /** Somebody asks this relay for a place. */
  async takesGuest(end: WireEnd): Promise<boolean> {
    const { mayReserve } = this.#parts;
    if (mayReserve === undefined || !(await mayReserve(end.peerId))) return false;
    this.#reserved.set(end.peerId, end);
    return true;
  }
  /** The way from this relay to a peer that has its place here. */
  placeOf(peerId: string): WireEnd | undefined {
    const end = this.#reserved.get(peerId);
    return end?.isOpen === true && !end.wire.isSilent ? end : undefined;
  }

  onConnect(listener: (peerId: string) => void): void {
    this.#onConnect.push(listener);
  }
  onDisconnect(listener: (peerId: string) => void): void {
    this.#onDisconnect.push(listener);
  }
  onWireUp(end: WireEnd): void {
    this.#ends.add(end);
    for (const listener of this.#onConnect) listener(end.peerId);
  }
  onWireDown(end: WireEnd): void {
    this.#ends.delete(end);
    if (!this.isUp || this.connections(end.peerId).length > 0) return;
    for (const listener of this.#onDisconnect) listener(end.peerId);
  }

  counts(): { readonly connections: number; readonly reservations: number } {
    return { connections: this.#ends.size, reservations: this.#reserved.size };
  }
  lanAddresses(): readonly string[] {
    return [];
  }

  async stop(): Promise<void> {
    if (!this.isUp) return;
    for (const end of this.#ends) await end.close();
    this.#isStopped = true;
    this.#parts.swarms.left(this);
  }

  /** Its process has died: the others find out by its silence. */
  died(): void {
    for (const end of this.#ends) end.wire.fallSilent();
    this.#parts.swarms.left(this);
  }

  /** All its connections break, as when it changes its network. */
  breakAll(): number {
    const ends = [...this.#ends];
    for (const { wire } of ends) wire.end();
    return ends.length;
  }
}
