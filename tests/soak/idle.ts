/**
 * Memory of connections that only live: RSS of server and client for each of 1 000, then 10 000 idle ones.
 * Usage: `npm run soak:idle -- [engine]`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { engineNames, type Connection } from '@quicprochat/proto/transport';
import { LiveServer } from '../fuzz/live-server.ts';

const engine = engineNames.find((known) => known === process.argv[2]) ?? 'quic';
await using server = await LiveServer.start(engine);
const probe = await server.dial();
const rss = async (): Promise<{ readonly server: number; readonly client: number }> => {
  await sleep(3_000);
  const { rss: there } = await server.state(probe);
  return { server: there / 1024, client: process.memoryUsage.rss() / 1024 };
};
const before = await rss();
const connections: Connection[] = [];
for (const count of [1_000, 10_000]) {
  while (connections.length < count) {
    connections.push(...(await Promise.all(Array.from({ length: 20 }, () => server.dial()))));
  }
  const now = await rss();
  const [perServer, perClient] = [now.server - before.server, now.client - before.client].map(
    (grown) => (grown / count).toFixed(1),
  );
  console.log(
    `${engine}, ${count} idle: ${perServer} KiB each at the server, ${perClient} at the client`,
  );
}
let isAlive = true;
for (const connection of [connections[0], connections.at(-1)]) {
  if (connection) await server.echo(connection, new Uint8Array(100)).catch(() => (isAlive = false));
}
console.log(isAlive ? 'the first and the last one answer' : 'FAILED: a connection was lost');
process.exit(isAlive ? 0 : 1);
