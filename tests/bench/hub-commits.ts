/**
 * Question: how many commits/s does a hub of one accept, and a hub of three, over the durable Enqueues/s of the
 * same node? Alone, and of 16 groups at once: one group takes one commit after the other. Three real nodes
 * run all the time; each side is a fresh process of clients.
 */
import type { NodeProcess } from '../cluster/node-process.ts';
import type { DeviceKeys } from './devices.ts';
import type { HubJob } from './hub-peer.ts';
import type { Comparison, Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';

const rounds = 3;
const groupCounts = [1, 16];
const measureMs = 1_500;
const peer = new URL('./hub-peer.ts', import.meta.url);

export async function hubCommits(
  nodes: readonly NodeProcess[],
  devices: readonly DeviceKeys[],
): Promise<Comparison[]> {
  const serverPids = nodes.map(({ pid }) => pid ?? 0);
  const domains = nodes.map(({ domain }) => domain);
  const unit = 'per s';
  const rows: Comparison[] = [];
  for (const connections of groupCounts) {
    const measure = async (hubs: readonly string[]): Promise<Round> => {
      const job: HubJob = { hubs, connections, devices, serverPids, measureMs };
      // The peer is of this folder and answers with a Round.
      return (await askPeer(peer, job)) as Round;
    };
    const name = connections === 1 ? '1 at a time' : `${connections} groups at once`;
    const [bare = [], one = [], three = []] = await takeTurns(name, unit, rounds, [
      { name: 'Enqueue', measure: () => measure([]) },
      { name: 'hub of 1', measure: () => measure(domains.slice(0, 1)) },
      { name: 'hub of 3', measure: () => measure(domains) },
    ]);
    rows.push(
      { name: `hub of 1 over Enqueue, ${name}`, unit, baseline: bare, candidate: one },
      { name: `hub of 3 over Enqueue, ${name}`, unit, baseline: bare, candidate: three },
    );
  }
  return rows;
}
