/**
 * A StreamSession over one native quiche connection: its streams, their credit, and its end. Packets
 * and timers are the Link's.
 */
import type { Runtime, Timer } from '../runtime.ts';
import { TransportError } from '../status.ts';
import type { Link } from './quiche-link.ts';
import type { NativeConnection } from './quiche-native.ts';
import { QuicheStream, type StreamHost } from './quiche-stream.ts';
import { closedError, streamCodes } from './session.ts';
import type { ByteStream, SessionHandlers, StreamKind, StreamSession } from './session.ts';
import { CloseCode, type CloseInfo, type PeerIdentity } from './transport.ts';

/** What is received in one piece at most (bytes). Shared: it is copied from at once. */
const scratch = new Uint8Array(64 * 1024);
/** Time for the end of a stream to come behind its complete message (ms). */
const lingerMs = 2000;

/** Bits of a stream id (RFC 9000 section 2.1). */
const serverBit = 1;
const pushBit = 2;
const idStep = 4;

export interface QuicheSessionOptions {
  readonly runtime: Runtime;
  readonly link: Link;
  readonly peer: PeerIdentity;
  readonly isServer: boolean;
  /** Of its whole life. */
  readonly maxStreams: number;
}

export class QuicheSession implements StreamSession, StreamHost {
  readonly peer: PeerIdentity;
  readonly scratch = scratch;
  readonly #runtime: Runtime;
  readonly #link: Link;
  readonly #ownBit: number;
  readonly #streams = new Map<number, QuicheStream>();
  /** Streams whose reader waits. */
  readonly #readers = new Set<QuicheStream>();
  /** Above the highest id of a call stream that the peer opened. */
  #nextCallId: number;
  /** Streams that have not written their end. */
  readonly #writers = new Set<QuicheStream>();
  /** Streams with bytes that quiche did not take; the first one is the next to be served. */
  readonly #blocked = new Set<QuicheStream>();
  /** How many streams we opened. */
  readonly #opened = { call: 0, push: 0 };
  /** As many of them quiche has heard of. */
  readonly #begun = { call: 0, push: 0 };
  /** The peer's allowance as of the last packet, less what was opened since. */
  readonly #credit: { call: number | undefined; push: number | undefined };
  /** Ids of streams that quiche must still free. */
  #stoppedIds: number[] = [];
  #stoppedBefore: number[] = [];
  #lingering = new Set<QuicheStream>();
  #lingeringBefore = new Set<QuicheStream>();
  #sweep: Timer | undefined;
  /** From so many streams on the session ends when no call is open, and whatever is open. */
  readonly #wornAt: number;
  readonly #overAt: number;
  #openCalls = 0;
  #renewal: Timer | undefined;
  #handlers: SessionHandlers | undefined;
  #closeInfo: CloseInfo | undefined;

  constructor(options: QuicheSessionOptions) {
    this.peer = options.peer;
    this.#runtime = options.runtime;
    this.#link = options.link;
    this.#ownBit = options.isServer ? serverBit : 0;
    // The dialer goes first: it knows best when no call is under way.
    this.#wornAt = options.maxStreams * (options.isServer ? 1.25 : 1);
    this.#overAt = options.maxStreams * 1.5;
    this.#nextCallId = serverBit - this.#ownBit;
    this.#credit = { call: undefined, push: undefined };
  }

  get native(): NativeConnection | undefined {
    return this.#link.native;
  }

  start(handlers: SessionHandlers): void {
    this.#handlers = handlers;
    if (this.#closeInfo) return handlers.onClosed(this.#closeInfo);
    // Streams may have come with the end of the handshake.
    this.#link.takeInAgain();
  }

  streamCredit(kind: StreamKind): number {
    const { native } = this;
    if (!native) return 0;
    this.#credit[kind] ??=
      (kind === 'call' ? native.peerStreamsLeftBidi() : native.peerStreamsLeftUni()) -
      (this.#opened[kind] - this.#begun[kind]);
    return this.#credit[kind];
  }

  openStream(kind: StreamKind): ByteStream {
    const { native } = this;
    if (!native) throw this.#gone();
    const left = this.streamCredit(kind);
    if (left <= 0) throw new TransportError('limit', 'stream: the peer allows no further one');
    const id = this.#opened[kind] * idStep + this.#ownBit + (kind === 'push' ? pushBit : 0);
    this.#opened[kind] += 1;
    this.#credit[kind] = left - 1;
    const stream = new QuicheStream(this, id, kind, false);
    this.#streams.set(id, stream);
    if (kind === 'call') this.#openCalls += 1;
    this.#writers.add(stream);
    return stream;
  }

  began(id: number): void {
    const kind = (id & pushBit) === 0 ? 'call' : 'push';
    // quiche counts what lies below a stream that it knows, too.
    this.#begun[kind] = Math.max(this.#begun[kind], Math.floor(id / idStep) + 1);
  }

  /** Hands what arrived to the streams' readers. */
  takeIn(): void {
    const { native } = this;
    const handlers = this.#handlers;
    if (!native || !handlers) return;
    // Asking quiche for its list of readable streams takes 25 us, asking for one stream's bytes 0.2.
    if (native.isReadable() && this.#takeInLikely(native, handlers)) {
      for (const id of native.readable()) {
        const stream = this.#streams.get(id);
        if (stream) stream.onReadable();
        else this.#accept(id, handlers);
      }
    }
    if (!this.native) return;
    this.#credit.call = undefined;
    this.#credit.push = undefined;
    handlers.onCredit();
  }

  /** Looks at the calls that come next and at the readers that wait; false when that was all. */
  #takeInLikely(native: NativeConnection, handlers: SessionHandlers): boolean {
    while (native.streamReadable(this.#nextCallId)) {
      this.#accept(this.#nextCallId, handlers);
    }
    let wasThere = true;
    for (const stream of this.#readers) {
      const isThere = stream.onReadable();
      // Answers come in the order of their questions, nearly: behind the last one there is a gap.
      if (wasThere && !isThere && !native.isReadable()) return false;
      wasThere = isThere;
    }
    return native.isReadable();
  }

  #accept(id: number, handlers: SessionHandlers): void {
    const kind = (id & pushBit) === 0 ? 'call' : 'push';
    const stream = new QuicheStream(this, id, kind, true);
    if (kind === 'call' && id >= this.#nextCallId) this.#nextCallId = id + idStep;
    this.#streams.set(id, stream);
    if (kind === 'call') {
      this.#openCalls += 1;
      this.#writers.add(stream);
    }
    handlers.onStream(kind, stream);
  }

  /** Goes on with writes that wait, and finds the streams that the peer wants no more of. */
  giveOut(hasReceived: boolean): void {
    const { native } = this;
    if (!native || !hasReceived) return;
    // Not by quiche's list of writable streams: one that is stopped by the packet that acknowledges
    // its last bytes is freed at once and never listed.
    // Nor by what a blocked one is answered: "no room", also when quiche has let it go already.
    for (const stream of this.#writers) stream.checkStopped();
    this.#resumeBlocked();
  }

  /**
   * A piece of each in turn while quiche takes any. Who got something in goes to the end: a blob that
   * takes all the room there is must not be the first to be asked again, with a call behind it.
   */
  #resumeBlocked(): void {
    for (let hasRoom = true; hasRoom;) {
      hasRoom = false;
      for (const stream of [...this.#blocked]) {
        const outcome = stream.resume();
        if (outcome === 'nothing') continue;
        hasRoom = true;
        this.#blocked.delete(stream);
        if (outcome === 'some') this.#blocked.add(stream);
      }
    }
  }

  /**
   * Ends the streams that we have written to and not finished. quiche 0.18 sends again no more than
   * two packets of what was under way to an address that its peer left: the stream would have a hole
   * for ever, and its reader would wait. Whoever reads it asks anew; a finished answer that got lost
   * ends at its call's deadline.
   */
  moved(): void {
    for (const stream of [...this.#writers]) if (stream.hasWritten) stream.reset('cancelled');
  }

  wake(): void {
    this.#link.wake();
  }

  read(bytes: number): void {
    this.#link.read(bytes);
  }

  sent(bytes: number): void {
    this.#link.written(bytes);
  }

  block(stream: QuicheStream): void {
    this.#blocked.add(stream);
  }

  reading(stream: QuicheStream, isWaiting: boolean): void {
    if (isWaiting) this.#readers.add(stream);
    else this.#readers.delete(stream);
  }

  written(stream: QuicheStream): void {
    this.#writers.delete(stream);
    this.#blocked.delete(stream);
  }

  forget(stream: QuicheStream): void {
    if (this.#streams.delete(stream.id) && (stream.id & pushBit) === 0) this.#openCalls -= 1;
    if (this.#isWorn) this.#renewal ??= this.#runtime.clock.timer(0, () => this.#renew());
    this.#lingering.delete(stream);
    this.#lingeringBefore.delete(stream);
  }

  /** quiche has enough of streams, and now is a good time. */
  get #isWorn(): boolean {
    const streams = this.#opened.call + this.#opened.push + Math.floor(this.#nextCallId / idStep);
    return streams >= this.#wornAt && (this.#openCalls === 0 || streams >= this.#overAt);
  }

  /** Whoever needs a connection dials another one. */
  #renew(): void {
    this.#renewal = undefined;
    if (this.#isWorn) void this.close(CloseCode.Normal, 'renewed');
  }

  linger(stream: QuicheStream): void {
    this.#lingering.add(stream);
    this.#scheduleSweep();
  }

  stopped(id: number): void {
    this.#stoppedIds.push(id);
    this.#scheduleSweep();
  }

  #scheduleSweep(): void {
    this.#sweep ??= this.#runtime.clock.timer(lingerMs, () => this.#runSweep());
  }

  /**
   * Stops the peers of streams whose end did not come. And quiche 0.18 forgets to free a stream that
   * was stopped here when our own bytes were acknowledged before the peer's answer: a RESET_STREAM
   * makes it look again.
   */
  #runSweep(): void {
    this.#sweep = undefined;
    for (const stream of this.#lingeringBefore) stream.stopPeer(streamCodes.done);
    for (const id of this.#stoppedBefore) {
      if (this.#streams.has(id)) this.#stoppedIds.push(id);
      else this.shutdown(id, 'write', streamCodes.done);
    }
    this.#lingeringBefore = this.#lingering;
    this.#lingering = new Set();
    this.#stoppedBefore = this.#stoppedIds;
    this.#stoppedIds = [];
    if (this.#lingeringBefore.size + this.#stoppedBefore.length > 0) this.#scheduleSweep();
  }

  shutdown(id: number, side: 'read' | 'write', code: number): void {
    this.#link.shutdownStream(id, side, code);
  }

  close(code: number, reason: string): Promise<void> {
    const info: CloseInfo = { failure: 'closed', code, reason, local: true };
    this.#link.close(true, code, reason, info);
    return Promise.resolve();
  }

  #gone(): TransportError {
    if (this.#closeInfo) return closedError(this.#closeInfo);
    return new TransportError('closed', 'connection: closed');
  }

  /** The link ended. */
  end(info: CloseInfo): void {
    if (this.#closeInfo) return;
    this.#closeInfo = info;
    this.#sweep?.cancel();
    this.#renewal?.cancel();
    this.#handlers?.onClosed(info);
    const error = closedError(info);
    for (const stream of this.#streams.values()) stream.fail(error);
    this.#streams.clear();
    this.#readers.clear();
    this.#writers.clear();
    this.#blocked.clear();
    this.#lingering.clear();
    this.#lingeringBefore.clear();
  }
}
