/**
 * A flood against a listener on two processes whose node does not keep up: forged packets, first
 * packets without end, calls of 8 KiB that are reset at once. The channel between the processes has
 * no flow control of its own, so memory of all three is what is watched; an honest client is served
 * afterwards. Usage: `npm run fuzz:flood -- [seconds]`.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { encodeRequest, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  transportOf,
  type DialOptions,
} from '@quicprochat/proto/transport';
import { quicheTransport } from '@quicprochat/proto/transport/quiche';
import { Dice } from '../cluster/dice.ts';
import { rssMiB } from '../cluster/process-memory.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const options = { deadlineMs: 20_000, maxResponseBytes: 1024 * 1024 };
const limits = { ...defaultLimits, handshakesPerHostPerSecond: 1_000_000 };
const attackers = 3;
const sessionsEach = 3;
/** Handlers that may run, however many calls are given up. */
const callsAtOnce = attackers * sessionsEach * defaultLimits.incomingStreams;
/** The node's loop stands still for so long, then runs for so long (ms). */
const stallMs = 3000;
const freeMs = 5;
const standStill = new Int32Array(new SharedArrayBuffer(4));
/** What each process may take above its beginning (MiB): the bound of the channel, and garbage. */
const allowedMiB = 200;

interface Target {
  readonly port: number;
  readonly pin: string;
  readonly seed: number;
}

const dialOptions = async (pin: string): Promise<DialOptions> => ({
  ...{ identity: await makeIdentity(systemRandom), limits, maxRequestBytes: () => 0 },
  pins: [Buffer.from(pin, 'base64url')],
});

/** Does its worst until it is killed. */
async function attack({ port, pin, seed }: Target): Promise<void> {
  const dice = new Dice(seed);
  const socket = createSocket('udp4');
  const counts = { calls: 0, packets: 0 };
  setInterval(() => process.send?.(counts), 500).unref();
  const engine = quicheTransport(runtime);
  const payload = new Uint8Array(8 * 1024);
  /** As many calls as the listener allows, whole, and given up before it can have answered. */
  const resets = async (): Promise<never> => {
    for (;;) {
      const at = { host: '127.0.0.1', port };
      // The node that stands still lets nobody in.
      const session = await engine.dialSession(at, await dialOptions(pin)).catch(() => undefined);
      if (!session) continue;
      session.start({ onStream() {}, onCredit() {}, onClosed() {} });
      for (let round = 0; round < 500; round += 1) {
        const streams: ReturnType<typeof session.openStream>[] = [];
        while (session.streamCredit('call') > 0) {
          const stream = session.openStream('call');
          streams.push(stream);
          counts.calls += 1;
          const frame = encodeRequest({ methodId: 1, requestId: counts.calls, payload });
          void Promise.resolve(stream.finish(frame)).catch(() => {});
        }
        await sleep(100 + dice.int(100));
        for (const stream of streams) stream.reset('cancelled');
        await sleep(1);
      }
      await session.close(CloseCode.Normal, 'again');
    }
  };
  /** Ids that seem to be the other process's, and first packets that ask for a Retry. */
  const packets = async (): Promise<never> => {
    for (;;) {
      for (let burst = 0; burst < 64; burst += 1) {
        const isFirst = dice.chance(0.3);
        const packet = Buffer.from(dice.bytes(isFirst ? 1200 : 1200 + dice.int(100)));
        packet[0] = isFirst ? 0xc3 : 0x41;
        if (isFirst) Buffer.of(0, 0, 0, 1, 16).copy(packet, 1);
        if (isFirst) Buffer.of(8).copy(packet, 22);
        if (isFirst) packet[31] = 0;
        socket.send(packet, port, '127.0.0.1');
        counts.packets += 1;
      }
      await sleep(1);
    }
  };
  await Promise.all([...Array.from({ length: sessionsEach }, resets), packets()]);
}

/** The processes of the listener: children of this one that are no attackers. */
function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ');
        return Number(fields?.[1]) === parent;
      } catch {
        return false;
      }
    });
}

async function main(seconds: number): Promise<void> {
  const dice = new Dice();
  console.log(`seed ${dice.seed}, ${seconds} s, ${attackers} attackers`);
  const identity = await makeIdentity(systemRandom);
  let [running, most, served] = [0, 0, 0];
  const listener = await transportOf(runtime, ['quic'], { processes: 2 }).listen({
    endpoint: { host: '127.0.0.1', port: 0 },
    identity,
    limits,
    maxRequestBytes: () => 1024 * 1024,
    onConnection: (connection) =>
      connection.onCall(async ({ requestId, payload }) => {
        running += 1;
        most = Math.max(most, running);
        await sleep(50);
        running -= 1;
        served += 1;
        return { status: 0, requestId, payload };
      }),
  });
  const processes = [process.pid, ...childrenOf(process.pid)];
  const { port } = listener.endpoint;
  const pin = Buffer.from(identity.spkiSha256).toString('base64url');
  const before = processes.map(rssMiB);
  const counts = { calls: 0, packets: 0 };
  const children: ChildProcess[] = Array.from({ length: attackers }, () => {
    const child = fork(fileURLToPath(import.meta.url), [], { stdio: 'inherit' });
    child.send({ port, pin, seed: dice.int(2 ** 31) } satisfies Target);
    let [calls, packets] = [0, 0];
    child.on('message', (now: typeof counts) => {
      counts.calls += now.calls - calls;
      counts.packets += now.packets - packets;
      [calls, packets] = [now.calls, now.packets];
    });
    return child;
  });
  const peaks = before.map(() => 0);
  const measure = (): void =>
    processes.forEach((pid, index) => (peaks[index] = Math.max(peaks[index] ?? 0, rssMiB(pid))));
  const endMs = performance.now() + seconds * 1000;
  while (performance.now() < endMs) {
    Atomics.wait(standStill, 0, 0, stallMs);
    measure();
    await sleep(freeMs);
  }
  for (const child of children) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  const started = performance.now();
  // It waits behind what the flood left.
  const honest = await transportOf(runtime, ['quic']).dial(
    { host: '127.0.0.1', port },
    await dialOptions(pin),
  );
  const request = { methodId: 1, requestId: 7, payload: new Uint8Array(1000) };
  const { status } = await honest.call(request, options);
  const answeredMs = performance.now() - started;
  measure();
  await honest.close(CloseCode.Normal, 'done');
  await listener.close(CloseCode.Normal, 'done');
  const grown = peaks.map((peak, index) => peak - (before[index] ?? 0));
  console.log(`${counts.calls} calls given up at once, ${counts.packets} forged packets`);
  console.log(`the node served ${served} of them, ${most} at a time at most`);
  console.log(
    `the highest RSS above the beginning: node ${grown[0]?.toFixed(0)} MiB, ` +
      `its processes ${grown
        .slice(1)
        .map((one) => one.toFixed(0))
        .join(' and ')} MiB`,
  );
  console.log(`an honest client afterwards: status ${status} after ${answeredMs.toFixed(0)} ms`);
  const isBounded = most <= callsAtOnce && grown.every((one) => one < allowedMiB);
  if (!isBounded) console.log(`FAILED: above ${callsAtOnce} calls or ${allowedMiB} MiB`);
  process.exit(isBounded && status === 0 ? 0 : 1);
}

if (process.send === undefined) await main(Number(process.argv[2] ?? 20));
else process.once('message', (target) => void attack(target as Target));
