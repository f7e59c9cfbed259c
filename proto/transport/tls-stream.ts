/**
 * One stream of the `tls` engine as a ByteStream. Bytes wait here until somebody reads them, at most
 * a window of them; writes wait until the peer's credit covers them.
 */
import { TransportError } from '../status.ts';
import { streamCodes, streamError } from './session.ts';
import type { ByteStream, StreamReason } from './session.ts';
import { RecordType } from './tls-record.ts';
import { fitted, WaitingBytes } from './waiting-bytes.ts';

/** Bytes of one stream that may be on their way or unread, as in the QUIC engine. */
export const streamWindowBytes = 1024 * 1024;

/** What a stream needs of its session. */
export interface TlsStreamHost {
  /** Bytes are to be sent. */
  hasBytes(stream: TlsStream): void;
  /** A record of one byte, sent before any bytes. */
  tell(id: number, type: number, code: number): void;
  /** The peer gets credit back: for the stream unless it is over, and for the connection. */
  consumed(stream: TlsStream, bytes: number, isOver: boolean): void;
  /** Both directions are done with. */
  forget(stream: TlsStream): void;
}

interface Write {
  bytes: Uint8Array;
  offset: number;
  readonly isLast: boolean;
  readonly resolve: () => void;
  readonly reject: (error: TransportError) => void;
}

/** A piece of what a stream has to send. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly isLast: boolean;
}

export class TlsStream implements ByteStream {
  readonly id: number;
  readonly stopped: Promise<TransportError>;
  readonly #host: TlsStreamHost;
  readonly #stopped = Promise.withResolvers<TransportError>();
  // Reading.
  #unread = new WaitingBytes();
  #reader: PromiseWithResolvers<Uint8Array | undefined> | undefined;
  #isEnded: boolean;
  #isDiscarding = false;
  #readError: TransportError | undefined;
  // Writing.
  #writes: Write[] = [];
  #credit = streamWindowBytes;
  #isFinishing = false;
  #isWritten: boolean;
  #writeError: TransportError | undefined;

  constructor(host: TlsStreamHost, id: number, directions: { reads: boolean; writes: boolean }) {
    this.#host = host;
    this.id = id;
    this.stopped = this.#stopped.promise;
    this.#isEnded = !directions.reads;
    this.#isWritten = !directions.writes;
    if (!directions.writes) {
      this.#writeError = new TransportError('protocol', 'stream: runs the other way');
      this.#stopped.resolve(this.#writeError);
    }
  }

  read(): Promise<Uint8Array | undefined> {
    const chunk = this.#unread.take();
    if (chunk) {
      this.#host.consumed(this, chunk.length, this.#isEnded);
      return Promise.resolve(chunk);
    }
    if (this.#readError) return Promise.reject(this.#readError);
    if (this.#isEnded) return Promise.resolve(undefined);
    this.#reader = Promise.withResolvers();
    return this.#reader.promise;
  }

  /** Bytes came. False when the peer sent what its credit does not cover, or after its end. */
  receive(bytes: Uint8Array, isLast: boolean): boolean {
    if (this.#isEnded) return false;
    if (this.#unread.length + bytes.length > streamWindowBytes) return false;
    this.#isEnded = isLast;
    if (this.#isDiscarding) this.#host.consumed(this, bytes.length, isLast);
    else if (bytes.length > 0) this.#take(bytes);
    if (isLast) {
      this.#takeReader()?.resolve(undefined);
      this.#forgetIfOver();
    }
    return true;
  }

  #take(bytes: Uint8Array): void {
    const reader = this.#takeReader();
    if (reader) {
      this.#host.consumed(this, bytes.length, this.#isEnded);
      reader.resolve(bytes);
    } else {
      this.#unread.add(bytes);
    }
  }

  #takeReader(): PromiseWithResolvers<Uint8Array | undefined> | undefined {
    const reader = this.#reader;
    this.#reader = undefined;
    return reader;
  }

  /** The peer gave up its direction. */
  onReset(code: number): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#dropUnread();
    this.#readError ??= streamError(code);
    this.#takeReader()?.reject(this.#readError);
    this.#forgetIfOver();
  }

  #dropUnread(): void {
    const { length } = this.#unread;
    this.#unread = new WaitingBytes();
    this.#host.consumed(this, length, this.#isEnded);
  }

  stopReading(): void {
    this.#stopReading(streamCodes.done);
  }

  #stopReading(code: number): void {
    if (this.#isDiscarding) return;
    this.#isDiscarding = true;
    this.#dropUnread();
    if (!this.#isEnded) this.#host.tell(this.id, RecordType.Stop, code);
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#write(bytes, false);
  }

  finish(last: Uint8Array): Promise<void> {
    return this.#write(last, true);
  }

  #write(bytes: Uint8Array, isLast: boolean): Promise<void> {
    if (this.#writeError) return Promise.reject(this.#writeError);
    if (this.#isFinishing) {
      return Promise.reject(new TransportError('protocol', 'stream: written after its end'));
    }
    this.#isFinishing = isLast;
    if (bytes.length === 0 && !isLast) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#writes.push({ bytes, offset: 0, isLast, resolve, reject });
      this.#host.hasBytes(this);
    });
  }

  /** The next bytes to send, at most so many; undefined when there are none, or no credit. */
  next(maxBytes: number): Piece | undefined {
    const [write] = this.#writes;
    if (!write) return undefined;
    const left = write.bytes.length - write.offset;
    const length = Math.min(left, maxBytes, this.#credit);
    if (length === 0 && left > 0) return undefined;
    const bytes = write.bytes.subarray(write.offset, write.offset + length);
    write.offset += length;
    this.#credit -= length;
    if (length < left) return { bytes, isLast: false };
    this.#writes.shift();
    write.resolve();
    if (write.isLast) {
      this.#isWritten = true;
      this.#forgetIfOver();
    }
    return { bytes, isLast: write.isLast };
  }

  /** What is left stays for long: the peer or the system takes no more now. */
  hold(): void {
    for (const write of this.#writes) {
      write.bytes = fitted(write.bytes.subarray(write.offset));
      write.offset = 0;
    }
  }

  /** The peer takes more. False when the sum is beyond its window. */
  onCredit(bytes: number): boolean {
    this.#credit += bytes;
    if (this.#writes.length > 0) this.#host.hasBytes(this);
    return this.#credit <= streamWindowBytes;
  }

  /** The peer wants no more. */
  onStop(code: number): void {
    if (this.#isWritten) return;
    this.#host.tell(this.id, RecordType.Reset, code);
    this.#endWriting(streamError(code));
  }

  #endWriting(error: TransportError): void {
    if (this.#isWritten) return;
    this.#isWritten = true;
    this.#writeError = error;
    this.#stopped.resolve(error);
    const writes = this.#writes;
    this.#writes = [];
    for (const { reject } of writes) reject(error);
    this.#forgetIfOver();
  }

  reset(reason: StreamReason): void {
    if (this.#isEnded && this.#isWritten && this.#unread.length === 0) return;
    const error = new TransportError('cancelled', `stream: given up here (${reason})`);
    this.#readError ??= this.#isEnded ? undefined : error;
    this.#takeReader()?.reject(error);
    this.#stopReading(streamCodes[reason]);
    if (this.#isWritten) return;
    this.#host.tell(this.id, RecordType.Reset, streamCodes[reason]);
    this.#endWriting(error);
  }

  #forgetIfOver(): void {
    if (this.#isEnded && this.#isWritten) this.#host.forget(this);
  }

  /** The session ended. */
  fail(error: TransportError): void {
    this.#readError ??= this.#isEnded ? undefined : error;
    this.#isEnded = true;
    this.#takeReader()?.reject(error);
    this.#endWriting(error);
    this.#writeError ??= error;
    this.#stopped.resolve(error);
  }
}
