/**
 * Mutated UDP packets against a live QUIC server in a process of its own: random bytes, headers of
 * every kind, and altered, cut, doubled and replayed copies of real packets of all phases, from many
 * addresses. It must go on answering, take new connections, and keep its memory.
 * Usage: `npm run fuzz:packets -- [packets] [engine]`; QPC_SEED repeats the choices.
 */
import { createSocket } from 'node:dgram';
import { udpRelay } from '@quicprochat/proto/transport/udp-relay';
import { Dice } from '../cluster/dice.ts';
import { LiveServer, slope } from './live-server.ts';

const [packets = '200000', engine = 'quic'] = process.argv.slice(2);
const total = Number(packets);
/** Small enough for the socket buffer of the server: what the kernel drops tests nothing. */
const burst = 48;
const attackers = 16;
const samples = 20;
const dice = new Dice();
console.log(`seed ${dice.seed}, ${total} packets, engine ${engine}`);

await using server = await LiveServer.start(engine === 'quic-stock' ? 'quic-stock' : 'quic');
const recorded: Buffer[] = [];
const relay = await udpRelay(server.endpoint);
relay.onDatagram = (datagram, towards) => {
  if (towards === 'listener' && recorded.length < 2_000) recorded.push(Buffer.from(datagram));
  return [datagram];
};
// Packets of whole lives: handshake with Retry, calls large and small, the end.
for (let life = 0; life < 20; life += 1) {
  const connection = await server.dial(relay.endpoint);
  await server.echo(connection, dice.bytes(dice.int(20_000)));
  if (life > 10) await connection.close(0, 'done');
}
const victim = await server.dial(relay.endpoint);
await server.echo(victim, dice.bytes(100));

/** Bytes at the places that the parsers look at are hit more often than the rest. */
function altered(real: Buffer): Buffer {
  const packet = Buffer.from(real);
  const near = dice.chance(0.6) ? Math.min(packet.length, 40) : packet.length;
  for (let hits = 1 + dice.int(6); hits > 0 && packet.length > 0; hits -= 1) {
    const at = dice.int(near);
    packet[at] = dice.chance(0.5) ? dice.int(256) : (packet[at] ?? 0) ^ (1 << dice.int(8));
  }
  return packet;
}

function mutant(): Buffer {
  const real = recorded[dice.int(recorded.length)] ?? Buffer.alloc(0);
  switch (dice.int(8)) {
    case 0:
      return Buffer.from(dice.bytes(dice.int(200)));
    case 1: {
      const packet = Buffer.alloc(1200, dice.int(256));
      packet[0] = 0xc0 | dice.int(64);
      packet.writeUInt32BE(dice.chance(0.8) ? 1 : dice.int(2 ** 31), 1);
      packet[5] = dice.int(24);
      packet[6 + (packet[5] ?? 0)] = dice.int(24);
      return packet;
    }
    case 2:
      return real.subarray(0, dice.int(real.length + 1));
    case 3:
      return Buffer.concat([real, Buffer.from(dice.bytes(dice.int(60)))]);
    case 4: {
      // Two packets in one datagram (RFC 9000 section 12.2), each of its own connection.
      const other = recorded[dice.int(recorded.length)] ?? real;
      return Buffer.concat([real.subarray(0, dice.int(real.length + 1)), other]).subarray(0, 1400);
    }
    case 5:
      return real;
    default:
      return altered(real);
  }
}

const sockets = Array.from({ length: attackers }, () => createSocket('udp4'));
const memory: (readonly [packets: number, rss: number])[] = [];
let live = await server.dial();
const startMs = performance.now();
for (let sent = 0, nextSample = 0; sent < total;) {
  for (let count = 0; count < burst && sent < total; count += 1, sent += 1) {
    const socket = sockets[dice.int(sockets.length)];
    socket?.send(mutant(), server.endpoint.port, '127.0.0.1');
  }
  // A relay with the victim's address: what it sends comes from a connection that is open.
  if (dice.chance(0.2)) {
    relay.onDatagram = (datagram) => [datagram, altered(datagram)];
    await server.echo(victim, dice.bytes(200));
    relay.onDatagram = (datagram) => [datagram];
  }
  // Answered behind the burst: the server has read all of it.
  await server.echo(live, dice.bytes(50));
  if (sent < nextSample) continue;
  nextSample += Math.max(1, Math.floor(total / samples));
  const { rss, unhandled } = await server.state(live);
  if (unhandled > 0) throw new Error(`${unhandled} unhandled rejections in the server`);
  memory.push([sent, rss / 1024]);
  await live.close(0, 'another one');
  live = await server.dial();
}
const seconds = (performance.now() - startMs) / 1000;
for (const socket of sockets) socket.close();
await server.echo(victim, dice.bytes(5_000));
await victim.close(0, 'done');
await live.close(0, 'done');
relay.close();

// The first quarter brings allocator and collector to their working size.
const settled = memory.slice(Math.floor(memory.length / 4));
const growth = slope(settled.map(([x, y]) => [x / 1e6, y] as const));
const list = memory.map(([, rss]) => (rss / 1024).toFixed(0)).join(' ');
console.log(`${total} packets in ${seconds.toFixed(0)} s; RSS in MiB: ${list}`);
console.log(`slope ${growth.toFixed(0)} KiB per million packets`);
if (total >= 1e6 && growth > 20 * 1024) throw new Error('the server’s memory grows');
console.log('the server answered throughout');
process.exit(0);
