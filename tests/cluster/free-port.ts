/**
 * Ports of 127.0.0.1 for processes that come and go. Not those that the kernel hands to sockets that
 * ask for any (32 768 and up by default): while a killed node is away, some client's socket would
 * take its port, and the node could not start again.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { systemRandom } from '@quicprochat/proto';

const first = 10_000;
const count = 22_000;

/** A port that is free now, for UDP and for TCP. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = first + (Buffer.from(systemRandom.bytes(4)).readUInt32LE() % count);
    if ((await isFreeUdp(port)) && (await isFreeTcp(port))) return port;
  }
}

async function isFreeUdp(port: number): Promise<boolean> {
  const socket = createSocket('udp4');
  const isBound = await canListen(socket, () => socket.bind(port, '127.0.0.1'));
  if (isBound) await new Promise<void>((resolve) => socket.close(() => resolve()));
  return isBound;
}

async function isFreeTcp(port: number): Promise<boolean> {
  const server = createServer();
  const isBound = await canListen(server, () => server.listen(port, '127.0.0.1'));
  if (isBound) await new Promise<void>((resolve) => server.close(() => resolve()));
  return isBound;
}

async function canListen(
  socket: ReturnType<typeof createSocket> | ReturnType<typeof createServer>,
  start: () => void,
): Promise<boolean> {
  const listening = once(socket, 'listening');
  start();
  try {
    await listening;
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EADDRINUSE') return false;
    throw error;
  }
}
