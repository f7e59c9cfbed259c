/**
 * Hours of ordinary life for one engine: steady calls, blobs, connections that come and go, against
 * a server in a process of its own; RSS of both sides over time, with its slope. Growth fails a run of
 * four hours or more.
 * Usage: `npm run soak -- [minutes] [engine]`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { engineNames } from '@quicprochat/proto/transport';
import { Dice } from '../cluster/dice.ts';
import { LiveServer, slope } from '../fuzz/live-server.ts';

const [minutes = '30', name = 'quic'] = process.argv.slice(2);
const engine = engineNames.find((known) => known === name) ?? 'quic';
const endMs = performance.now() + Number(minutes) * 60_000;
const users = 40;
/** Long enough to tell growth from allocators that settle (minutes), and what may grow then (KiB). */
const judgedFrom = 240;
const allowedPerHour = 8 * 1024;
const dice = new Dice();
console.log(`seed ${dice.seed}, ${minutes} minutes, engine ${engine}, ${users} users`);

await using server = await LiveServer.start(engine);
const counts = { calls: 0, connections: 0 };

/** Connects, talks for a while, leaves, comes back. */
async function user(own: Dice): Promise<void> {
  while (performance.now() < endMs) {
    const connection = await server.dial();
    counts.connections += 1;
    for (let left = 1 + own.int(60); left > 0 && performance.now() < endMs; left -= 1) {
      const size = own.chance(0.02) ? own.int(1024 * 1024) : own.int(1_000);
      await server.echo(connection, own.bytes(size));
      counts.calls += 1;
      await sleep(own.int(400));
    }
    await connection.close(0, 'bye');
  }
}

const memory: { readonly minute: number; readonly server: number; readonly client: number }[] = [];
async function watch(): Promise<void> {
  const startMs = performance.now();
  while (performance.now() < endMs) {
    await sleep(Math.min(30_000, Math.max(0, endMs - performance.now())));
    const connection = await server.dial();
    const { rss, unhandled } = await server.state(connection);
    await connection.close(0, 'done');
    if (unhandled > 0) throw new Error(`${unhandled} unhandled rejections in the server`);
    const minute = (performance.now() - startMs) / 60_000;
    memory.push({ minute, server: rss / 1024, client: process.memoryUsage.rss() / 1024 });
  }
}

await Promise.all([
  ...Array.from({ length: users }, (_, index) => user(dice.branch(index))),
  watch(),
]);
const settled = memory.slice(Math.floor(memory.length / 4));
console.log(`${counts.calls} calls over ${counts.connections} connections`);
let isFlat = true;
for (const side of ['server', 'client'] as const) {
  const list = memory.map((one) => (one[side] / 1024).toFixed(0)).join(' ');
  const perHour = slope(settled.map((one) => [one.minute / 60, one[side]] as const));
  console.log(`${side}: RSS in MiB ${list}; slope ${perHour.toFixed(0)} KiB per hour`);
  if (Number(minutes) >= judgedFrom && perHour > allowedPerHour) isFlat = false;
}
if (!isFlat) console.log('FAILED: memory grows');
process.exit(isFlat ? 0 : 1);
