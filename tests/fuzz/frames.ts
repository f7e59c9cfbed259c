/**
 * Peers that shake hands and then send what makes quiche keep much for little: pieces behind a hole,
 * packets that they never acknowledge the answers of, challenges, connection ids, streams that are
 * opened, reset and stopped. Each kind against a live server of its own: when the peer was ended, what
 * the server's memory grew by until then, and whether it still answers. Then many such peers at once.
 * Usage: `npm run fuzz:frames`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ForgingPeer, frames } from '@quicprochat/proto/transport/forging-peer';
import { LiveServer } from './live-server.ts';

const mebibyte = 1024 * 1024;
/** An attacker gives up after so much (bytes). */
const enough = 5 * mebibyte;
/** What one attacker, and what all of them together, may cost the server (MiB). */
const allowedMiB = 160;
const allowedTogetherMiB = 700;
const crowd = 24;
const one = Buffer.of(0);

interface Flood {
  readonly frame: (n: number) => Uint8Array;
  /** Frames in a packet; as many as fit by default. */
  readonly inPacket?: number;
}

const numbered = (bytes: number, n: number): Buffer => {
  const data = Buffer.alloc(bytes);
  data.writeUInt32BE(n);
  return data;
};
const floods: Record<string, Flood> = {
  'pieces behind a hole, 16 streams': {
    frame: (n) => frames.stream(4 * (n % 16), 1 + Math.floor(n / 16), one),
  },
  'every other byte of a stream': { frame: (n) => frames.stream(0, 1 + 2 * n, one) },
  'pieces behind a hole, one in a packet': {
    frame: (n) => frames.stream(0, 1 + n, one),
    inPacket: 1,
  },
  'pieces of TLS behind a hole': { frame: (n) => frames.crypto(1 + n, one) },
  'PING, nothing acknowledged': { frame: () => frames.ping, inPacket: 1 },
  PATH_CHALLENGE: { frame: (n) => frames.pathChallenge(numbered(8, n)) },
  'NEW_CONNECTION_ID that retires all before': {
    frame: (n) => frames.newConnectionId(2 + n, 2 + n, numbered(16, n)),
  },
  'NEW_CONNECTION_ID that retires none': {
    frame: (n) => frames.newConnectionId(2 + n, 0, numbered(16, n)),
  },
  'a byte on every stream there may be, and beyond': { frame: (n) => frames.stream(4 * n, 0, one) },
  'RESET_STREAM of stream after stream': { frame: (n) => frames.resetStream(4 * (n % 100), 1, 0) },
  'STOP_SENDING of stream after stream': { frame: (n) => frames.stopSending(4 * (n % 100), 1) },
};

/** Sends until it is ended, or has had enough. */
async function attack(server: LiveServer, { frame, inPacket = 1000 }: Flood): Promise<ForgingPeer> {
  const peer = await ForgingPeer.dial(server.endpoint);
  for (let n = 0, packets = 1; !peer.closed && peer.sentBytes < enough; packets += 1) {
    const list: Uint8Array[] = [];
    let next = frame(n);
    for (let left = ForgingPeer.room; next.length <= left && list.length < inPacket;) {
      list.push(next);
      left -= next.length;
      n += 1;
      next = frame(n);
    }
    peer.send(...list);
    // The socket of the server has room for so many; what the kernel drops costs nobody anything.
    if (packets % 32 === 0) await sleep(1);
  }
  return peer;
}

let hasFailed = false;
function judge(isGood: boolean, line: string): void {
  if (!isGood) hasFailed = true;
  console.log(`${isGood ? '' : 'FAILED: '}${line}`);
}

async function grownBy(server: LiveServer, step: () => Promise<void>): Promise<number> {
  const probe = await server.dial();
  const before = await server.state(probe);
  await step();
  await sleep(300);
  await server.echo(probe, new Uint8Array(1000));
  const after = await server.state(probe);
  if (after.unhandled > 0) judge(false, `${after.unhandled} unhandled rejections`);
  await probe.close(0, 'done');
  return (after.rss - before.rss) / mebibyte;
}

for (const [name, flood] of Object.entries(floods)) {
  await using server = await LiveServer.start('quic');
  let [sent, end] = [0, ''];
  const grown = await grownBy(server, async () => {
    const peer = await attack(server, flood);
    sent = peer.sentBytes / mebibyte;
    // Its own quiche may have given up before, for answers to questions that it never asked.
    if (peer.closed) end = `, then ended: ${peer.closed.reason}`;
    peer.close();
  });
  const line = `${name}: ${sent.toFixed(1)} MiB sent${end}; server ${grown.toFixed(0)} MiB more`;
  judge(grown < allowedMiB, line);
}
{
  await using server = await LiveServer.start('quic');
  const list = Object.values(floods);
  const grown = await grownBy(server, async () => {
    const attackers = Array.from({ length: crowd }, async (_, index) => {
      const flood = list[index % 5];
      if (flood) (await attack(server, flood)).close();
    });
    await Promise.all(attackers);
  });
  judge(grown < allowedTogetherMiB, `${crowd} at once: server ${grown.toFixed(0)} MiB more`);
}
process.exit(hasFailed ? 1 : 0);
