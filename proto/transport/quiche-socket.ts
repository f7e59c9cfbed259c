/**
 * A UDP socket under quiche: large kernel buffers, packets out of one slab without a copy, errors
 * that stay inside, and word when the socket is gone. Knows no connections.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import type { Log } from '../runtime.ts';
import { TransportError } from '../status.ts';
import { datagramBytes, type NativeAddress } from './quiche-native.ts';

/** Kernel buffers (bytes): a burst must survive while JavaScript is busy. The kernel may cap it. */
const bufferBytes = 4 * 1024 * 1024;
/** Packets that one slab has room for. */
const slabRooms = 64;

/** Memory that packets are written into: all sockets of an engine share it. */
export class PacketSlab {
  #rooms = slab();
  #next = 0;
  readonly #users = new Set<UdpSocket>();

  /** Room for one packet, valid until the next `room` or `take`. */
  room(): Uint8Array {
    if (this.#next === slabRooms) {
      // Where the system has not taken all packets yet, they are left to the collector.
      const isWaiting = [...this.#users].some((socket) => socket.isSending);
      if (isWaiting) this.#rooms = slab();
      this.#users.clear();
      this.#next = 0;
    }
    return this.#rooms[this.#next] as Uint8Array;
  }

  /** The first bytes of the room, which now belong to the socket until it has sent them. */
  take(length: number, socket: UdpSocket): Uint8Array {
    this.#users.add(socket);
    const room = this.room();
    this.#next += 1;
    return length === room.length ? room : room.subarray(0, length);
  }
}

/** Rooms side by side in one memory. */
function slab(): Uint8Array[] {
  const bytes = new Uint8Array(Buffer.allocUnsafeSlow(slabRooms * datagramBytes).buffer);
  return Array.from({ length: slabRooms }, (_, index) =>
    bytes.subarray(index * datagramBytes, (index + 1) * datagramBytes),
  );
}

export interface SocketHandlers {
  onDatagram(data: Buffer, from: dgram.RemoteInfo): void;
  /** The socket closed although nobody asked. */
  onLost(): void;
}

/** Bind with `openUdp`. */
export class UdpSocket {
  /** The bound address. */
  readonly local: NativeAddress;
  readonly #socket: dgram.Socket;
  readonly #log: Log;
  readonly #slab: PacketSlab;
  #isClosing = false;

  constructor(socket: dgram.Socket, slab: PacketSlab, log: Log, handlers: SocketHandlers) {
    const { address, port } = socket.address();
    this.local = { host: address, port };
    this.#socket = socket;
    this.#slab = slab;
    this.#log = log;
    socket.on('message', (data, from) => handlers.onDatagram(data, from));
    // Without a listener an error of the socket would end the process.
    socket.on('error', (error) => this.#fault(error));
    socket.on('close', () => {
      if (this.#isClosing) return;
      this.#isClosing = true;
      handlers.onLost();
    });
    try {
      socket.setRecvBufferSize(bufferBytes);
      socket.setSendBufferSize(bufferBytes);
    } catch {
      // A wish only: the kernel's default works, slower.
    }
  }

  /** The system has not taken all packets yet. */
  get isSending(): boolean {
    return !this.#isClosing && this.#socket.getSendQueueCount() > 0;
  }

  /** Room for one packet, valid until the next `room` or `send` of any socket with the same slab. */
  room(): Uint8Array {
    return this.#slab.room();
  }

  /**
   * Sends the first `length` bytes of the room. What cannot be sent is a lost packet; `onError`
   * hears of it.
   */
  send(length: number, to: NativeAddress, onError?: (error: Error) => void): void {
    this.#transmit(this.#slab.take(length, this), to, onError);
  }

  /** Sends a packet that the caller will not change any more. */
  sendCopy(packet: Uint8Array, to: NativeAddress): void {
    this.#transmit(packet, to);
  }

  #transmit(bytes: Uint8Array, to: NativeAddress, onError?: (error: Error) => void): void {
    if (this.#isClosing) return;
    const callback = onError && ((error: Error | null) => error && onError(error));
    try {
      this.#socket.send(bytes, to.port, to.host, callback);
    } catch (error) {
      // An address that the socket cannot reach, or a socket that was closed under us.
      this.#fault(error);
      if (onError && error instanceof Error) onError(error);
    }
  }

  #fault(error: unknown): void {
    this.#log.warn('quic.socket.error', { error: String(error) });
  }

  /** A socket without work of its own does not keep the process alive. */
  unref(): void {
    if (!this.#isClosing) this.#socket.unref();
  }

  /** Resolves when the port is free. Idempotent, never rejects. */
  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const closed = once(this.#socket, 'close');
    this.#socket.close();
    await closed;
  }
}

/**
 * Binds a socket; `::` is dual stack; with others of this user on its port when `isShared`. Throws
 * TransportError `internal` when the address cannot be bound, with the system's error (`EADDRINUSE`) as
 * its cause.
 */
export async function openUdp(
  at: NativeAddress,
  slab: PacketSlab,
  log: Log,
  handlers: SocketHandlers,
  isShared = false,
): Promise<UdpSocket> {
  const type = isIPv6(at.host) ? 'udp6' : 'udp4';
  const socket = dgram.createSocket({
    type,
    ipv6Only: false,
    // SO_REUSEPORT: several sockets on one port, among which the system spreads the senders.
    reusePort: isShared,
    // Only addresses come here; the default would defer each packet to the next tick.
    lookup: (host, _options, callback) => callback(null, host, type === 'udp6' ? 6 : 4),
  });
  try {
    const listening = once(socket, 'listening');
    socket.bind({ port: at.port, address: at.host });
    await listening;
  } catch (cause) {
    socket.close();
    const message = `quic: cannot bind UDP ${at.host} port ${at.port}`;
    throw new TransportError('internal', message, { cause });
  }
  return new UdpSocket(socket, slab, log, handlers);
}
