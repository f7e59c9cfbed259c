/**
 * Connections that come, call once and go: RSS of both sides at every tenth of the way, and its slope.
 * Native connections live outside of V8's heap (40 KiB each and side): a kept one would show as more than
 * that for each cycle. Smaller growth says that V8 and the allocator still touch pages of what they hold, or
 * of small things that are lost; which of them, RSS cannot tell (docs/decisions/0005).
 * Usage: `npm run soak:churn -- [cycles] [engine]`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { engineNames } from '@quicprochat/proto/transport';
import { LiveServer, slope } from '../fuzz/live-server.ts';

const [cyclesText = '100000', name = 'quic'] = process.argv.slice(2);
const cycles = Number(cyclesText);
const engine = engineNames.find((known) => known === name) ?? 'quic';
const atOnce = 16;
const steps = 10;
/** Growth of RSS (KiB a cycle) from which on something is kept of each connection, and below which it is flat. */
const allowed = 1;
const flat = 0.1;

await using server = await LiveServer.start(engine);
const payload = new Uint8Array(32);
async function cycle(): Promise<void> {
  const connection = await server.dial();
  await server.echo(connection, payload);
  await connection.close(0, 'done');
}

interface Sample {
  readonly cycles: number;
  readonly server: number;
  readonly client: number;
}
const samples: Sample[] = [];
console.log(`${cycles} cycles, ${atOnce} at a time, engine ${engine}`);
const startMs = performance.now();
for (let step = 1; step <= steps; step += 1) {
  let left = cycles / steps;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (left > 0) {
        left -= 1;
        await cycle();
      }
    }),
  );
  // The last ones still answer late packets for a second.
  await sleep(1_500);
  const connection = await server.dial();
  const { rss, unhandled } = await server.state(connection);
  await connection.close(0, 'done');
  if (unhandled > 0) throw new Error(`${unhandled} unhandled rejections in the server`);
  const done = (step * cycles) / steps;
  samples.push({ cycles: done, server: rss / 1024, client: process.memoryUsage.rss() / 1024 });
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
  const [there, here] = [rss, process.memoryUsage.rss()].map((bytes) => bytes / 1024 / 1024);
  console.log(
    `${done} after ${seconds} s: server ${there?.toFixed(0)} MiB, client ${here?.toFixed(0)}`,
  );
}
// The first three tenths bring allocator and collector to their working size.
const settled = samples.slice(3);
let isBounded = true;
for (const side of ['server', 'client'] as const) {
  const perCycle = slope(settled.map((sample) => [sample.cycles, sample[side]] as const));
  const verdict =
    perCycle > allowed ? 'FAILED' : perCycle > flat ? 'no connection is kept, not flat' : 'flat';
  console.log(`${side}: slope ${perCycle.toFixed(3)} KiB per cycle: ${verdict}`);
  if (perCycle > allowed) isBounded = false;
}
process.exit(isBounded || cycles < 50_000 ? 0 : 1);
