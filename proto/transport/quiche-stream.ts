/**
 * One QUIC stream as a ByteStream. Bytes stay in quiche until somebody reads them, and writes wait
 * until quiche took them: flow control reaches through to both applications.
 */
import { TransportError } from '../status.ts';
import { asTransportError } from './outgoing-call.ts';
import { streamErrorCode, type NativeConnection } from './quiche-native.ts';
import { streamCodes, streamError } from './session.ts';
import type { ByteStream, Soon, StreamKind, StreamReason } from './session.ts';
import { fitted } from './waiting-bytes.ts';

/** What may still come behind a complete message before its stream is stopped (bytes). */
const lingerBytes = 4096;
/** What a stream gets in at once when others wait beside it (bytes). */
const pieceBytes = 16 * 1024;

/** What a stream needs of its session. */
export interface StreamHost {
  /** The connection, until the session ended. */
  readonly native: NativeConnection | undefined;
  /** quiche has heard of the stream that was opened here. */
  began(id: number): void;
  /** Memory to receive into; what is in it must be copied out at once. */
  readonly scratch: Uint8Array;
  /** Packets are to be built. */
  wake(): void;
  /** So many bytes came out of quiche. */
  read(bytes: number): void;
  /** So many bytes went into quiche. */
  sent(bytes: number): void;
  /** STOP_SENDING or RESET_STREAM; nothing when the stream is gone. */
  shutdown(id: number, side: 'read' | 'write', code: number): void;
  /** The stream has bytes to write that quiche did not take. */
  block(stream: QuicheStream): void;
  /** A reader waits for bytes, or no longer. */
  reading(stream: QuicheStream, isWaiting: boolean): void;
  /** The end was written, or none will be. */
  written(stream: QuicheStream): void;
  /** Both directions are done with. */
  forget(stream: QuicheStream): void;
  /** The stream was stopped here while the peer was still sending. */
  stopped(id: number): void;
  /** The message of the stream is complete, its end is not here. */
  linger(stream: QuicheStream): void;
}

interface Write {
  readonly bytes: Uint8Array;
  offset: number;
  readonly isLast: boolean;
  readonly resolve: () => void;
  readonly reject: (error: TransportError) => void;
}

export class QuicheStream implements ByteStream {
  readonly id: number;
  readonly #host: StreamHost;
  readonly #canWrite: boolean;
  /** quiche knows the stream. */
  #hasBegun: boolean;
  /** Bytes of it may be under way. */
  hasWritten = false;
  /** No bytes are to come, or none are wanted. */
  #isReadDone: boolean;
  #readError: TransportError | undefined;
  #mayHaveBytes: boolean;
  #isDiscarding = false;
  #discardedBytes = 0;
  #reader: PromiseWithResolvers<Uint8Array | undefined> | undefined;
  /** quiche took the end, or none will be written. */
  #isWriteDone: boolean;
  #writeError: TransportError | undefined;
  #writes: Write[] = [];
  #stopped: PromiseWithResolvers<TransportError> | undefined;

  /** One that the peer opened has begun, and something of it is here. */
  constructor(host: StreamHost, id: number, kind: StreamKind, isPeers: boolean) {
    this.#host = host;
    this.id = id;
    this.#isReadDone = kind === 'push' && !isPeers;
    this.#canWrite = kind === 'call' || !isPeers;
    this.#isWriteDone = !this.#canWrite;
    this.#hasBegun = isPeers;
    this.#mayHaveBytes = isPeers;
    if (!this.#canWrite) {
      this.#writeError = new TransportError('protocol', 'stream: runs the other way');
    }
  }

  /** Made when first asked for: most streams are never asked. */
  get stopped(): Promise<TransportError> {
    this.#stopped ??= Promise.withResolvers();
    if (this.#writeError) this.#stopped.resolve(this.#writeError);
    return this.#stopped.promise;
  }

  read(): Soon<Uint8Array | undefined> {
    if (this.#readError) return Promise.reject(this.#readError);
    if (this.#isReadDone) return undefined;
    if (this.#mayHaveBytes) {
      try {
        const bytes = this.#pull();
        if (bytes || this.#isReadDone) return bytes;
      } catch (error) {
        return Promise.reject(asTransportError(error));
      }
    }
    this.#reader = Promise.withResolvers();
    this.#host.reading(this, true);
    return this.#reader.promise;
  }

  /** Bytes, or their end, or a reset may be there. False when they were not. */
  onReadable(): boolean {
    this.#mayHaveBytes = true;
    if (this.#isDiscarding) return this.#discard();
    if (!this.#reader) return false;
    try {
      const bytes = this.#pull();
      if (!bytes && !this.#isReadDone) return false;
      this.#takeReader()?.resolve(bytes);
    } catch (error) {
      this.#takeReader()?.reject(asTransportError(error));
    }
    return true;
  }

  #takeReader(): PromiseWithResolvers<Uint8Array | undefined> | undefined {
    const reader = this.#reader;
    this.#reader = undefined;
    if (reader) this.#host.reading(this, false);
    return reader;
  }

  /** The next bytes; undefined when there are none now, or none any more. Throws the peer's reset. */
  #pull(): Uint8Array | undefined {
    const length = this.#receive();
    return length > 0 ? this.#host.scratch.slice(0, length) : undefined;
  }

  /** Receives into the scratch memory. */
  #receive(): number {
    const { native, scratch } = this.#host;
    if (!native) return 0;
    try {
      const got = native.streamRecv(this.id, scratch);
      // The window may have to be opened for the peer.
      this.#host.wake();
      if (got === null) {
        this.#mayHaveBytes = false;
        return 0;
      }
      this.#host.read(got[0]);
      if (got[1]) this.#endReading();
      else if (got[0] < scratch.length) this.#mayHaveBytes = false;
      return got[0];
    } catch (error) {
      const code = streamErrorCode(error, 'StreamReset');
      this.#readError =
        code === undefined
          ? new TransportError('internal', 'stream: cannot be read', { cause: error })
          : streamError(code);
      this.#endReading();
      throw this.#readError;
    }
  }

  #endReading(): void {
    this.#isReadDone = true;
    this.#mayHaveBytes = false;
    if (this.#isDiscarding) this.#host.reading(this, false);
    if (this.#isWriteDone) this.#host.forget(this);
  }

  stopReading(): void {
    if (this.#isReadDone || this.#isDiscarding) return;
    this.#isDiscarding = true;
    if (this.#mayHaveBytes) this.#discard();
    if (this.#isReadDone) return;
    this.#host.reading(this, true);
    this.#host.linger(this);
  }

  /**
   * Reads and drops up to the end, which should be near. quiche 0.18 frees a stream, and gives its
   * credit back, when somebody reads its end; nobody can after STOP_SENDING. False when nothing came.
   */
  #discard(): boolean {
    const before = this.#discardedBytes;
    try {
      while (!this.#isReadDone && this.#mayHaveBytes) {
        this.#discardedBytes += this.#receive();
        if (this.#discardedBytes > lingerBytes) this.stopPeer(streamCodes.done);
      }
    } catch {
      // Reset by the peer: that is an end too.
    }
    return this.#isReadDone || this.#discardedBytes > before;
  }

  /** STOP_SENDING. */
  stopPeer(code: number): void {
    if (this.#isReadDone) return;
    this.#host.shutdown(this.id, 'read', code);
    this.#host.stopped(this.id);
    this.#endReading();
  }

  write(bytes: Uint8Array): Soon<void> {
    return this.#write(bytes, false);
  }

  finish(last: Uint8Array): Soon<void> {
    return this.#write(last, true);
  }

  #write(bytes: Uint8Array, isLast: boolean): Soon<void> {
    if (this.#writeError) return Promise.reject(this.#writeError);
    if (this.#isWriteDone) {
      return Promise.reject(new TransportError('protocol', 'stream: written after its end'));
    }
    let offset = 0;
    if (this.#writes.length === 0) {
      offset = this.#send(bytes, isLast);
      if (this.#isSettled(bytes, offset, isLast)) {
        return this.#settled();
      }
    }
    return new Promise((resolve, reject) => {
      const left = fitted(bytes.subarray(offset));
      this.#writes.push({ bytes: left, offset: 0, isLast, resolve, reject });
      this.#host.block(this);
    });
  }

  /** Without a wait: quiche took all, or the stream failed. */
  #settled(): Soon<void> {
    if (this.#writeError) return Promise.reject(this.#writeError);
  }

  #isSettled(bytes: Uint8Array, offset: number, isLast: boolean): boolean {
    if (this.#writeError) return true;
    return isLast ? this.#isWriteDone : offset === bytes.length;
  }

  /** Goes on with a piece of what waits: whether quiche took all there is, some, or nothing. */
  resume(): 'all' | 'some' | 'nothing' {
    const next = this.#writes[0];
    if (!next) return 'all';
    const end = next.offset + pieceBytes;
    const isLast = next.isLast && end >= next.bytes.length;
    const taken = this.#send(next.bytes.subarray(next.offset, end), isLast);
    // An error has settled all of them.
    if (this.#writeError) return 'all';
    next.offset += taken;
    if (this.#isSettled(next.bytes, next.offset, next.isLast)) {
      this.#writes.shift();
      next.resolve();
      return this.#writes.length === 0 ? 'all' : 'some';
    }
    return taken > 0 ? 'some' : 'nothing';
  }

  /** How many of the bytes quiche took; the end of the stream goes with the last of them. */
  #send(bytes: Uint8Array, isLast: boolean): number {
    const { native } = this.#host;
    if (!native || (bytes.length === 0 && !isLast)) return 0;
    try {
      const taken = native.streamSend(this.id, bytes, isLast);
      this.#host.wake();
      if (taken === null) return 0;
      this.hasWritten = true;
      this.#host.sent(taken);
      if (!this.#hasBegun) this.#begin();
      if (isLast && taken === bytes.length) this.#endWriting();
      return taken;
    } catch (error) {
      this.#failWriting(error);
      return 0;
    }
  }

  #begin(): void {
    this.#hasBegun = true;
    this.#host.began(this.id);
  }

  #endWriting(): void {
    this.#isWriteDone = true;
    this.#host.written(this);
    if (this.#isReadDone) this.#host.forget(this);
  }

  /** Looks whether the peer stopped us; quiche tells it in no other way to a stream that is idle. */
  checkStopped(): void {
    if (!this.#hasBegun) return;
    try {
      this.#host.native?.streamCapacity(this.id);
    } catch (error) {
      this.#failWriting(error);
    }
  }

  #failWriting(error: unknown): void {
    const code = streamErrorCode(error, 'StreamStopped');
    // Otherwise the stream was collected: stopped, reset and acknowledged.
    const failure =
      code === undefined
        ? new TransportError('cancelled', 'stream: gone', { cause: error })
        : streamError(code);
    // quiche has answered with RESET_STREAM; this takes the stream from the list of writable ones.
    this.#host.shutdown(this.id, 'write', Math.max(0, code ?? 0));
    this.#endWithError(failure);
  }

  #endWithError(error: TransportError): void {
    if (this.#isWriteDone) return;
    this.#writeError = error;
    this.#stopped?.resolve(error);
    const writes = this.#writes;
    this.#writes = [];
    for (const { reject } of writes) reject(error);
    this.#endWriting();
  }

  reset(reason: StreamReason): void {
    const code = streamCodes[reason];
    const isOver = this.#isReadDone && this.#isWriteDone;
    if (isOver) return;
    // Its id is taken: a stream that nobody hears of would be missing from the peer's credit for ever.
    if (!this.#hasBegun) this.#announce();
    const error = new TransportError('cancelled', `stream: given up here (${reason})`);
    this.#readError ??= this.#isReadDone ? undefined : error;
    this.#takeReader()?.reject(error);
    this.stopPeer(code);
    // Also behind a complete request: RESET_STREAM's acknowledgement makes quiche look at the
    // stream again, which is when it can be freed.
    if (this.#canWrite) this.#host.shutdown(this.id, 'write', code);
    this.#endWithError(error);
    this.#host.wake();
  }

  /** Sends nothing: quiche learns of the stream and counts it. */
  #announce(): void {
    try {
      this.#host.native?.streamSend(this.id, empty, false);
      this.#begin();
    } catch {
      // The connection is going: there is no credit to be kept.
    }
  }

  /** The session ended. */
  fail(error: TransportError): void {
    this.#isReadDone = true;
    this.#readError = error;
    this.#takeReader()?.reject(error);
    this.#endWithError(error);
    this.#writeError ??= error;
    this.#stopped?.resolve(error);
  }
}

const empty = new Uint8Array();
