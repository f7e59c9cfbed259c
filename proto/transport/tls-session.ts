/**
 * Streams over one TLS connection or local socket: opening, credit per stream and for all of them, round-robin
 * sending so that a blob cannot starve a call, keep-alive and idle time-out, close codes.
 */
import type { Duplex } from 'node:stream';
import type { Runtime, Timer } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { closedError, failureOfCloseCode, lost } from './session.ts';
import type { SessionHandlers, StreamKind, StreamSession } from './session.ts';
import { asTransportError } from './outgoing-call.ts';
import {
  closeRecord,
  connectionId,
  idStep,
  listenerBit,
  maxRecordBytes,
  numberRecord,
  pushBit,
  recordHeader,
  recordHeaderBytes,
  RecordParser,
  RecordType,
  type StreamRecord,
} from './tls-record.ts';
import { TlsStream, type TlsStreamHost } from './tls-stream.ts';
import { CloseCode } from './transport.ts';
import type { CloseInfo, PeerIdentity, TransportLimits } from './transport.ts';

/** Bytes of all streams that may be on their way or unread, as in the QUIC engine. */
const connectionWindowBytes = 10 * 1024 * 1024;
/** Credit is given back in pieces of at least this (bytes). */
const creditStepBytes = 64 * 1024;
/** What the system may hold of us before we wait for it (bytes). */
const socketBytesMax = 256 * 1024;
/** Records besides data that wait for a peer which takes nothing in; it sends its own all the same. */
const controlRecordsMax = 4096;
/** What a session sends first: how many streams of each kind its peer may open. */
const openingBytes = 2 * (recordHeaderBytes + 4);
/** Time that the last records get to leave (ms). */
const closingMs = 1_000;

export interface TlsSessionOptions {
  readonly runtime: Runtime;
  readonly socket: Duplex;
  readonly peer: PeerIdentity;
  readonly isListener: boolean;
  readonly limits: TransportLimits;
  /** What an error of the socket means; undefined: the connection was lost. */
  readonly closeInfoOf: (error: Error) => CloseInfo | undefined;
}

/** The streams of one kind that one side opens. */
interface Opened {
  /** Streams opened in all. */
  count: number;
  /** Of these and those to come: how many may be opened. */
  allowed: number;
}

export class TlsSession implements StreamSession, TlsStreamHost {
  readonly peer: PeerIdentity;
  readonly #options: TlsSessionOptions;
  readonly #parser = new RecordParser();
  readonly #streams = new Map<number, TlsStream>();
  readonly #ours: Record<StreamKind, Opened> = {
    call: { count: 0, allowed: 0 },
    push: { count: 0, allowed: 0 },
  };
  readonly #theirs: Record<StreamKind, Opened>;
  /** What came before anybody listened. */
  #early: Buffer[] = [];
  #handlers: SessionHandlers | undefined;
  #closeInfo: CloseInfo | undefined;
  #gone = Promise.withResolvers<void>();
  // Sending.
  readonly #senders = new Set<TlsStream>();
  readonly #owed = new Map<number, number>();
  #control: Buffer[] = [];
  #isPongDue = false;
  #credit = connectionWindowBytes;
  #unreadBytes = 0;
  #flush: NodeJS.Immediate | undefined;
  // Liveness.
  #receivedAt: number;
  #idleTimer: Timer | undefined;
  #keepAliveTimer: Timer | undefined;

  constructor(options: TlsSessionOptions) {
    this.#options = options;
    this.peer = options.peer;
    const { incomingStreams, incomingPushStreams } = options.limits;
    this.#theirs = {
      call: { count: 0, allowed: incomingStreams },
      push: { count: 0, allowed: incomingPushStreams },
    };
    this.#receivedAt = options.runtime.clock.monotonic();
  }

  /**
   * Resolves when the peer has said what we may open, or ended the connection. A dialer waits for it
   * before it hands the session out.
   */
  opened(): Promise<void> {
    const { socket } = this.#options;
    return new Promise((resolve) => {
      let received = 0;
      const done = (): void => {
        socket.off('data', onData).off('end', done).off('close', done);
        socket.pause();
        resolve();
      };
      const onData = (chunk: Buffer): void => {
        this.#early.push(chunk);
        received += chunk.length;
        if (received >= openingBytes) done();
      };
      socket.on('data', onData).on('end', done).on('close', done);
    });
  }

  start(handlers: SessionHandlers): void {
    this.#handlers = handlers;
    const { socket, limits, isListener } = this.#options;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('drain', () => this.#wake());
    socket.on('end', () => this.#end(lost('connection lost')));
    socket.on('error', (error: Error) => {
      this.#end(this.#options.closeInfoOf(error) ?? lost('connection lost'));
    });
    socket.on('close', () => {
      this.#end(lost('connection lost'));
      this.#gone.resolve();
    });
    this.#allow('call');
    this.#allow('push');
    this.#watchIdle(limits.idleMs);
    if (!isListener) this.#keepAlive(limits.keepAliveMs);
    for (const chunk of this.#early.splice(0)) this.#receive(chunk);
    socket.resume();
    // The socket may have ended before anybody listened.
    if (socket.destroyed) this.#end(lost('connection lost'));
  }

  streamCredit(kind: StreamKind): number {
    return this.#closeInfo ? 0 : this.#ours[kind].allowed - this.#ours[kind].count;
  }

  openStream(kind: StreamKind): TlsStream {
    if (this.#closeInfo) throw closedError(this.#closeInfo);
    if (this.streamCredit(kind) <= 0) throw new TransportError('limit', 'streams: no credit left');
    const ours = this.#ours[kind];
    const id = ours.count * idStep + this.#bits(kind, this.#options.isListener);
    if (id >= connectionId - idStep) throw new TransportError('limit', 'streams: ids used up');
    ours.count += 1;
    const stream = new TlsStream(this, id, { reads: kind === 'call', writes: true });
    this.#streams.set(id, stream);
    return stream;
  }

  #bits(kind: StreamKind, isListener: boolean): number {
    return (kind === 'push' ? pushBit : 0) | (isListener ? listenerBit : 0);
  }

  close(code: number, reason: string): Promise<void> {
    this.#closeWith(code, { failure: 'closed', code, reason, local: true });
    return this.#gone.promise;
  }

  #closeWith(code: number, info: CloseInfo): void {
    if (this.#closeInfo) return;
    this.#end(info, closeRecord(code, info.reason));
  }

  /** Ends the session, once: with a last record the socket closes in order, without at once. */
  #end(info: CloseInfo, last?: Buffer): void {
    if (this.#closeInfo) return;
    this.#closeInfo = info;
    this.#idleTimer?.cancel();
    this.#keepAliveTimer?.cancel();
    clearImmediate(this.#flush);
    const { socket, runtime } = this.#options;
    if (last === undefined) {
      socket.destroy();
    } else {
      socket.end(last);
      const timer = runtime.clock.timer(closingMs, () => socket.destroy());
      void this.#gone.promise.then(() => timer.cancel());
      // A peer that still sends is not listened to; without a reader the end would not be seen.
      socket.resume();
    }
    this.#handlers?.onClosed(info);
    const error = closedError(info);
    for (const stream of [...this.#streams.values()]) stream.fail(error);
    this.#streams.clear();
    this.#senders.clear();
    this.#owed.clear();
    this.#control = [];
  }

  #watchIdle(idleMs: number): void {
    const { clock } = this.#options.runtime;
    const leftMs = this.#receivedAt + idleMs - clock.monotonic();
    if (leftMs <= 0) return this.#closeWith(CloseCode.Normal, lost('idle time-out'));
    this.#idleTimer = clock.timer(leftMs, () => this.#watchIdle(idleMs));
  }

  #keepAlive(everyMs: number): void {
    this.#keepAliveTimer = this.#options.runtime.clock.timer(everyMs, () => {
      this.#send(numberRecord(connectionId, RecordType.Ping, 0, 0));
      this.#keepAlive(everyMs);
    });
  }

  // Receiving.

  #receive(chunk: Buffer): void {
    if (this.#closeInfo) return;
    this.#receivedAt = this.#options.runtime.clock.monotonic();
    try {
      this.#parser.push(chunk, (record) => this.#onRecord(record));
    } catch (error) {
      const { message } = asTransportError(error);
      const info = { failure: 'protocol', code: CloseCode.Protocol, local: true } as const;
      this.#closeWith(CloseCode.Protocol, { ...info, reason: message });
    }
  }

  #onRecord(record: StreamRecord): void {
    if (this.#closeInfo) return;
    const { id, type, payload } = record;
    if (id === connectionId) return this.#onConnectionRecord(type, payload);
    if (type === RecordType.Streams) return this.#onStreams(id, wordOf(payload));
    const stream = this.#streamOf(id);
    switch (type) {
      case RecordType.Data:
      case RecordType.End: {
        this.#unreadBytes += payload.length;
        need(this.#unreadBytes <= connectionWindowBytes, 'bytes beyond the credit');
        // A stream that is over here may have had bytes on their way.
        if (!stream) return this.#giveBack(payload.length);
        need(stream.receive(payload, type === RecordType.End), 'bytes beyond the credit or end');
        return;
      }
      case RecordType.Reset:
        return stream?.onReset(payload[0] ?? 0);
      case RecordType.Stop:
        return stream?.onStop(payload[0] ?? 0);
      case RecordType.Credit:
        return need(stream?.onCredit(wordOf(payload)) ?? true, 'credit beyond the window');
      default:
        throw new TransportError('protocol', `record: type ${type} of a stream`);
    }
  }

  #onConnectionRecord(type: number, payload: Uint8Array): void {
    switch (type) {
      case RecordType.Credit:
        this.#credit += wordOf(payload);
        need(this.#credit <= connectionWindowBytes, 'credit beyond the window');
        return this.#wake();
      case RecordType.Close: {
        const code = wordOf(payload);
        const reason = new TextDecoder().decode(payload.subarray(4));
        const info = { failure: failureOfCloseCode(code), code, reason, local: false };
        return this.#end(info);
      }
      case RecordType.Ping:
        this.#isPongDue = true;
        return this.#wake();
      case RecordType.Pong:
        return;
      default:
        throw new TransportError('protocol', `record: type ${type} of the connection`);
    }
  }

  #onStreams(bits: number, allowed: number): void {
    need(bits === 0 || bits === pushBit, 'streams of an unknown kind');
    const ours = this.#ours[bits === pushBit ? 'push' : 'call'];
    ours.allowed = Math.max(ours.allowed, allowed);
    this.#handlers?.onCredit();
  }

  /** The stream of an id, new if the peer opens it with this record; undefined when it is over. */
  #streamOf(id: number): TlsStream | undefined {
    const known = this.#streams.get(id);
    if (known) return known;
    const kind: StreamKind = (id & pushBit) === 0 ? 'call' : 'push';
    const isListeners = (id & listenerBit) !== 0;
    const index = Math.floor(id / idStep);
    const isOurs = isListeners === this.#options.isListener;
    const opened = isOurs ? this.#ours[kind] : this.#theirs[kind];
    if (index < opened.count) return undefined;
    // Records come in order, so the next id is the only new one.
    need(!isOurs && index === opened.count, 'a stream that was not opened');
    need(index < opened.allowed, 'more streams than allowed');
    opened.count += 1;
    const stream = new TlsStream(this, id, { reads: true, writes: kind === 'call' });
    this.#streams.set(id, stream);
    this.#handlers?.onStream(kind, stream);
    return stream;
  }

  // What streams say.

  hasBytes(stream: TlsStream): void {
    if (this.#closeInfo) return;
    this.#senders.add(stream);
    this.#wake();
  }

  tell(id: number, type: number, code: number): void {
    this.#send(numberRecord(id, type, code, 1));
  }

  consumed(stream: TlsStream, bytes: number, isOver: boolean): void {
    if (bytes === 0) return;
    this.#giveBack(bytes);
    if (!isOver) this.#owe(stream.id, bytes);
  }

  #giveBack(bytes: number): void {
    this.#unreadBytes -= bytes;
    this.#owe(connectionId, bytes);
  }

  /** Small debts wait for more: a credit for every call would double the records. */
  #owe(id: number, bytes: number): void {
    const owed = (this.#owed.get(id) ?? 0) + bytes;
    this.#owed.set(id, owed);
    if (owed >= creditStepBytes) this.#wake();
  }

  forget(stream: TlsStream): void {
    const { id } = stream;
    this.#streams.delete(id);
    this.#senders.delete(stream);
    this.#owed.delete(id);
    const isTheirs = ((id & listenerBit) !== 0) !== this.#options.isListener;
    if (!isTheirs || this.#closeInfo) return;
    const kind: StreamKind = (id & pushBit) === 0 ? 'call' : 'push';
    const theirs = this.#theirs[kind];
    theirs.allowed += 1;
    const { incomingStreams, incomingPushStreams } = this.#options.limits;
    const limit = kind === 'call' ? incomingStreams : incomingPushStreams;
    // Told in quarters of the limit: see #owe.
    if (theirs.allowed % Math.max(1, limit >> 2) === 0) this.#allow(kind);
  }

  #allow(kind: StreamKind): void {
    const bits = kind === 'push' ? pushBit : 0;
    this.#send(numberRecord(bits, RecordType.Streams, this.#theirs[kind].allowed));
  }

  // Sending.

  #send(record: Buffer): void {
    if (this.#closeInfo) return;
    if (this.#control.length >= controlRecordsMax) {
      const info = { failure: 'limit', code: CloseCode.Limit, local: true } as const;
      return this.#closeWith(CloseCode.Limit, { ...info, reason: 'records: nobody reads them' });
    }
    this.#control.push(record);
    this.#wake();
  }

  #wake(): void {
    if (this.#closeInfo) return;
    // After every promise job of this turn: answers to all calls of a turn leave in one write.
    this.#flush ??= setImmediate(() => {
      this.#flush = undefined;
      this.#flushNow();
    });
  }

  #flushNow(): void {
    const { socket } = this.#options;
    if (this.#closeInfo) return;
    if (socket.writableLength > socketBytesMax) return this.#hold();
    const out: Uint8Array[] = this.#control;
    this.#control = [];
    if (this.#isPongDue) out.push(numberRecord(connectionId, RecordType.Pong, 0, 0));
    this.#isPongDue = false;
    for (const [id, bytes] of this.#owed) {
      if (bytes < creditStepBytes) continue;
      out.push(numberRecord(id, RecordType.Credit, bytes));
      this.#owed.delete(id);
    }
    let room = socketBytesMax;
    while (this.#senders.size > 0 && room > 0 && this.#credit > 0) {
      const sentBefore = room;
      for (const stream of this.#senders) {
        const piece = stream.next(Math.min(maxRecordBytes, this.#credit));
        if (!piece) {
          stream.hold();
          this.#senders.delete(stream);
          continue;
        }
        const { bytes, isLast } = piece;
        const type = isLast ? RecordType.End : RecordType.Data;
        out.push(recordHeader(stream.id, type, bytes.length), bytes);
        this.#credit -= bytes.length;
        room -= bytes.length + 1;
        if (room <= 0 || this.#credit <= 0) break;
      }
      if (room === sentBefore) break;
    }
    if (out.length > 0) socket.write(Buffer.concat(out));
    if (this.#senders.size === 0) return;
    if (this.#credit > 0) this.#wake();
    else this.#hold();
  }

  #hold(): void {
    for (const stream of this.#senders) stream.hold();
  }
}

function wordOf(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0);
}

function need(isHeld: boolean, what: string): void {
  if (!isHeld) throw new TransportError('protocol', `record: ${what}`);
}
