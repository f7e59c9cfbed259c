/**
 * A peer for tests that shakes hands like any other and then writes its own packets, with whatever
 * frames a test wants in them (RFC 9000 section 19). quiche makes no packets that break rules or fill
 * memory; what it tells of its keys lets somebody else make them. Clients only, AES-128-GCM only.
 */
import { createCipheriv, createHmac } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemRandom } from '../runtime.ts';
import { makeIdentity } from './certificate.ts';
import { connectionIdBytes, datagramBytes, loadQuiche, nativeConfig } from './quiche-native.ts';
import { closeInfoOf, type NativeConnection } from './quiche-native.ts';
import { defaultLimits, type CloseInfo, type Endpoint } from './transport.ts';

/** Far above what the handshake used; what quiche still sends by itself, the listener ignores. */
const firstPacketNumber = 10_000;
const tagBytes = 16;

/** A variable-length integer (RFC 9000 section 16), up to 2^53. */
function varint(value: number): Buffer {
  if (value < 2 ** 6) return Buffer.of(value);
  if (value < 2 ** 14) return Buffer.of(0x40 | (value >> 8), value & 0xff);
  const bytes = Buffer.alloc(value < 2 ** 30 ? 4 : 8);
  if (bytes.length === 4) bytes.writeUInt32BE(value + 2 ** 31);
  else bytes.writeBigUInt64BE(BigInt(value) | (3n << 62n));
  return bytes;
}

/** Frames as their bytes. */
export const frames = {
  ping: Buffer.of(0x01),
  resetStream: (id: number, code: number, finalSize: number): Buffer =>
    Buffer.concat([Buffer.of(0x04), varint(id), varint(code), varint(finalSize)]),
  stopSending: (id: number, code: number): Buffer =>
    Buffer.concat([Buffer.of(0x05), varint(id), varint(code)]),
  crypto: (offset: number, data: Uint8Array): Buffer =>
    Buffer.concat([Buffer.of(0x06), varint(offset), varint(data.length), data]),
  stream: (id: number, offset: number, data: Uint8Array, isLast = false): Buffer =>
    Buffer.concat([
      Buffer.of(isLast ? 0x0f : 0x0e),
      ...[varint(id), varint(offset), varint(data.length), data],
    ]),
  newConnectionId: (sequence: number, retirePriorTo: number, id: Uint8Array): Buffer =>
    Buffer.concat([
      ...[Buffer.of(0x18), varint(sequence), varint(retirePriorTo), Buffer.of(id.length), id],
      systemRandom.bytes(16),
    ]),
  pathChallenge: (data: Uint8Array): Buffer => Buffer.concat([Buffer.of(0x1a), data]),
};

/** HKDF-Expand-Label of TLS 1.3 with an empty context, for at most one block (RFC 8446 section 7.1). */
function expandLabel(secret: Uint8Array, label: string, length: number): Buffer {
  const name = `tls13 ${label}`;
  const info = Buffer.concat([Buffer.of(0, length, name.length), Buffer.from(name), Buffer.of(0)]);
  const block = createHmac('sha256', secret).update(info).update(Buffer.of(1)).digest();
  return block.subarray(0, length);
}

export class ForgingPeer {
  /** Bytes of frames that one packet has room for. */
  static readonly room = datagramBytes - 1 - connectionIdBytes - 4 - tagBytes;

  #socket: Socket;
  readonly #to: Endpoint;
  readonly #listenerId: Uint8Array;
  readonly #keys: { readonly key: Buffer; readonly iv: Buffer; readonly header: Buffer };
  readonly #connection: NativeConnection;
  #packetNumber = firstPacketNumber;
  /** Bytes of all datagrams so far. */
  sentBytes = 0;

  private constructor(
    socket: Socket,
    to: Endpoint,
    connection: NativeConnection,
    secret: Uint8Array,
  ) {
    this.#socket = socket;
    this.#to = to;
    this.#connection = connection;
    this.#listenerId = connection.destinationId();
    this.#keys = {
      key: expandLabel(secret, 'quic key', 16),
      iv: expandLabel(secret, 'quic iv', 12),
      header: expandLabel(secret, 'quic hp', 16),
    };
  }

  /** Shakes hands with a certificate of its own. Throws when that does not work. */
  static async dial(to: Endpoint): Promise<ForgingPeer> {
    const quiche = await loadQuiche();
    const config = nativeConfig(quiche, await makeIdentity(systemRandom), defaultLimits, 'dial');
    config.logKeys();
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const { address: host, port } = socket.address();
    const ownId = systemRandom.bytes(connectionIdBytes);
    const connection = quiche.Connection.connect('qpc', ownId, { host, port }, to, config);
    const directory = mkdtempSync(join(tmpdir(), 'qpc-forging-'));
    try {
      const keyFile = join(directory, 'keys');
      connection.setKeylog(keyFile);
      const flush = (): void => {
        const room = new Uint8Array(datagramBytes);
        for (;;) {
          const packet = connection.send(room);
          if (packet === null) return;
          socket.send(room.slice(0, packet[0]), to.port, to.host);
        }
      };
      socket.on('message', (data, { address, port: from }) => {
        try {
          connection.recv(data, { from: { host: address, port: from }, to: { host, port } });
          flush();
        } catch {
          // It says what it thinks of the packet by closing.
        }
      });
      flush();
      while (!connection.isEstablished()) {
        if (connection.isClosed()) throw new Error('forging peer: no handshake');
        await once(socket, 'message');
      }
      const secret = /CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)/u.exec(readFileSync(keyFile, 'utf8'))?.[1];
      if (secret?.length !== 64) throw new Error('forging peer: not AES-128-GCM');
      return new ForgingPeer(socket, to, connection, Buffer.from(secret, 'hex'));
    } catch (error) {
      socket.close();
      throw error;
    } finally {
      rmSync(directory, { recursive: true });
    }
  }

  /** Why the other side ended the connection, once it has said so. */
  get closed(): CloseInfo | undefined {
    return this.#connection.peerError() === null ? undefined : closeInfoOf(this.#connection);
  }

  /** One packet with the frames, at most `room` bytes of them. */
  send(...list: readonly Uint8Array[]): void {
    const plain = Buffer.concat(list);
    const number = this.#packetNumber++;
    const header = Buffer.concat([Buffer.of(0x43), this.#listenerId, Buffer.alloc(4)]);
    const numberAt = header.length - 4;
    header.writeUInt32BE(number, numberAt);
    const { key, iv, header: headerKey } = this.#keys;
    const nonce = Buffer.from(iv);
    nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ number) >>> 0, 8);
    const cipher = createCipheriv('aes-128-gcm', key, nonce).setAAD(header);
    const sealed = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    // Header protection (RFC 9001 section 5.4).
    const mask = createCipheriv('aes-128-ecb', headerKey, null).update(sealed.subarray(0, 16));
    header[0] = 0x43 ^ ((mask[0] ?? 0) & 0x1f);
    header.writeUInt32BE((number ^ mask.readUInt32BE(1)) >>> 0, numberAt);
    const packet = Buffer.concat([header, sealed]);
    this.sentBytes += packet.length;
    this.#socket.send(packet, this.#to.port, this.#to.host);
  }

  /**
   * From now on sends from the address of the socket, which answers nothing, as if it were somebody
   * else's.
   */
  move(socket: Socket): void {
    this.#socket.close();
    this.#socket = socket;
  }

  close(): void {
    this.#socket.close();
  }
}
