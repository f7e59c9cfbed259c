/**
 * A connection of the simulated swarm: frames travel in order, after the delay of their path, until it
 * breaks or falls silent; streams on it are what p2p's protocols get. Over a relay it lasts as long as
 * both connections that it stands on.
 */
import { TransportError, type Timer } from '@quicprochat/proto';
import type { ByteStream, HostConnection, StreamHandler } from '@quicprochat/p2p/simulation';
import { never } from './process.ts';

/** A host as its connections see it. */
export interface WireHost {
  readonly peerId: string;
  /** Where it says to be. */
  readonly address: string;
  /** False from the moment of its death on: nothing of it happens any more. */
  readonly isUp: boolean;
  handlerOf(
    protocol: string,
  ): { readonly maxStreams: number; readonly handle: StreamHandler } | undefined;
  onWireUp(end: WireEnd): void;
  onWireDown(end: WireEnd): void;
}

/** What a wire asks of the network around it. */
export interface WireNet {
  after(ms: number, work: () => void): Timer;
  /** One way, from host to host (ms). */
  delayMs(from: WireHost, to: WireHost): number;
  isCut(from: WireHost, to: WireHost): boolean;
  /** What becomes of bytes that are sent now. */
  fate(wire: Wire): 'arrives' | 'breaks before' | 'breaks after' | 'silent';
  /** How long a side waits for a silent other one until it takes the connection for ended (ms). */
  silenceMs(): number;
}

export class Wire {
  readonly ends: readonly [WireEnd, WireEnd];
  /** The two that a relayed one stands on; empty: a direct one. */
  readonly legs: readonly Wire[];
  readonly net: WireNet;
  /** Circuits that stand on it. */
  readonly carried = new Set<Wire>();
  /** Hosts on the way, both ends with them. */
  readonly #path: readonly WireHost[];
  #isSilent = false;
  /** When the newest frame arrives, by direction (ms from the start). */
  readonly #busyMs: [number, number] = [0, 0];
  readonly #nowMs: () => number;

  constructor(net: WireNet, nowMs: () => number, path: readonly WireHost[], legs: readonly Wire[]) {
    const [from, to] = [path[0], path.at(-1)];
    if (from === undefined || to === undefined) throw new Error('a wire without ends');
    this.net = net;
    this.#nowMs = nowMs;
    this.#path = path;
    this.legs = legs;
    this.ends = [new WireEnd(this, from, to), new WireEnd(this, to, from)];
    for (const leg of legs) leg.carried.add(this);
  }

  get isRelayed(): boolean {
    return this.legs.length > 0;
  }
  get isSilent(): boolean {
    return this.#isSilent;
  }

  /** Runs `work` at the other side, if that is still there when the frame arrives. */
  carry(from: WireEnd, work: () => void, isFaulty = false): void {
    if (!from.isOpen || this.#isSilent) return;
    const way = this.ends[0] === from ? 0 : 1;
    const hops = way === 0 ? this.#path : this.#path.toReversed();
    const isCut = hops.some((host, at) => {
      const next = hops[at + 1];
      return next !== undefined && (!next.isUp || this.net.isCut(host, next));
    });
    const fate = isCut ? 'silent' : isFaulty ? this.net.fate(this) : 'arrives';
    if (fate === 'silent') return this.fallSilent();
    if (fate === 'breaks before') return this.end();
    const delayMs = hops.reduce((sum, host, at) => {
      const next = hops[at + 1];
      return next === undefined ? sum : sum + this.net.delayMs(host, next);
    }, 0);
    const atMs = Math.max(this.#busyMs[way], this.#nowMs() + delayMs);
    this.#busyMs[way] = atMs;
    const to = from.other;
    this.net.after(atMs - this.#nowMs(), () => {
      if (!to.isOpen || this.#isSilent || !to.host.isUp) return;
      work();
      if (fate === 'breaks after') this.end();
    });
  }

  /** Nothing gets through any more, and each side finds out by itself, later. */
  fallSilent(): void {
    if (this.#isSilent) return;
    this.#isSilent = true;
    for (const end of this.ends) this.net.after(this.net.silenceMs(), () => void end.close());
    for (const circuit of this.carried) circuit.fallSilent();
  }

  /** Both sides see its end. */
  end(): void {
    for (const end of this.ends) void end.close();
  }
}

/** A side of a wire: p2p's HostConnection. */
export class WireEnd implements HostConnection {
  readonly wire: Wire;
  readonly host: WireHost;
  readonly far: WireHost;
  readonly #streams = new Set<WireStream>();
  #isOpen = true;

  constructor(wire: Wire, host: WireHost, far: WireHost) {
    this.wire = wire;
    this.host = host;
    this.far = far;
  }

  get peerId(): string {
    return this.far.peerId;
  }
  get isRelayed(): boolean {
    return this.wire.isRelayed;
  }
  get remoteAddress(): string {
    return this.far.address;
  }
  get isOpen(): boolean {
    return this.#isOpen;
  }
  get other(): WireEnd {
    const [one, other] = this.wire.ends;
    return one === this ? other : one;
  }

  openStream(protocol: string, signal: AbortSignal): Promise<ByteStream> {
    if (!this.host.isUp) return never();
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    if (!this.#isOpen) return Promise.reject(new TransportError('closed', 'the connection ended'));
    const opened = Promise.withResolvers<ByteStream>();
    const mine = new WireStream(this);
    this.#streams.add(mine);
    const onAbort = (): void => {
      mine.abort();
      opened.reject(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    void mine.closed.then(() => opened.reject(new TransportError('closed', 'the stream ended')));
    this.wire.carry(this, () => {
      const refusal = this.other.accept(protocol, mine);
      this.wire.carry(this.other, () => {
        signal.removeEventListener('abort', onAbort);
        if (refusal === undefined) opened.resolve(mine);
        else {
          opened.reject(new TransportError('protocol', refusal));
          mine.abort();
        }
      });
    });
    return opened.promise;
  }

  /** The other side opens a stream here; why not, if not. */
  accept(protocol: string, theirs: WireStream): string | undefined {
    const known = this.host.handlerOf(protocol);
    if (known === undefined) return `does not speak ${protocol}`;
    if (this.#streams.size >= known.maxStreams) return 'too many streams';
    const mine = new WireStream(this);
    mine.join(theirs);
    this.#streams.add(mine);
    known.handle(mine, this);
    return undefined;
  }

  forget(stream: WireStream): void {
    this.#streams.delete(stream);
  }

  /** This side: the other one is told, if it can be. */
  close(): Promise<void> {
    if (!this.#isOpen || !this.host.isUp) return Promise.resolve();
    this.wire.carry(this, () => void this.other.close());
    this.#isOpen = false;
    for (const stream of this.#streams) stream.gone();
    this.#streams.clear();
    for (const circuit of this.wire.carried) circuit.end();
    for (const leg of this.wire.legs) leg.carried.delete(this.wire);
    this.host.onWireDown(this);
    return Promise.resolve();
  }
}

class WireStream implements ByteStream {
  readonly #end: WireEnd;
  readonly #closed = Promise.withResolvers<void>();
  #peer: WireStream | undefined;
  #listener: ((chunk: Uint8Array) => void) | undefined;
  #waiting: Uint8Array[] = [];
  #isOpen = true;
  #pendingBytes = 0;

  constructor(end: WireEnd) {
    this.#end = end;
  }

  join(other: WireStream): void {
    this.#peer = other;
    other.#peer = this;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  write(bytes: Uint8Array): void {
    const { wire, host } = this.#end;
    if (!this.#isOpen || !host.isUp) return;
    const { length } = bytes;
    this.#pendingBytes += length;
    const copy = bytes.slice();
    wire.carry(
      this.#end,
      () => {
        this.#pendingBytes -= length;
        this.#peer?.hear(copy);
      },
      true,
    );
  }

  hear(bytes: Uint8Array): void {
    if (!this.#isOpen) return;
    if (this.#listener === undefined) this.#waiting.push(bytes);
    else this.#listener(bytes);
  }

  onData(listener: (chunk: Uint8Array) => void): void {
    this.#listener = listener;
    for (const chunk of this.#waiting.splice(0)) listener(chunk);
  }

  abort(): void {
    if (!this.#isOpen || !this.#end.host.isUp) return;
    this.#end.wire.carry(this.#end, () => this.#peer?.gone());
    this.#end.forget(this);
    this.gone();
  }

  /** Its connection has ended, or the other side has left it. */
  gone(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#end.forget(this);
    if (this.#end.host.isUp) this.#closed.resolve();
  }
}
