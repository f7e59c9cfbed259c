/**
 * Question: how much of what SQLite can do is left of durable Enqueue/s when quotas, tags, numbers and
 * the way to the store's thread are there? Baseline: a bare loop of inserts into one table, same
 * pragmas, same encryption, as many rows in one commit as there are clients.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { EnqueueJob } from './enqueue-peer.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import type { Scratch } from './scratch.ts';

const rounds = 3;
const clientCounts = [1, 16, 64];
const peer = new URL('./enqueue-peer.ts', import.meta.url);

export async function floor(scratch: Scratch): Promise<BenchReport> {
  const rows: Comparison[] = [];
  const unit = 'rows/s';
  for (const clients of clientCounts) {
    const measure = async (how: 'bare' | 'grouped'): Promise<Round> => {
      const directory = mkdtempSync(join(scratch.directory, 'floor-'));
      // The peer is of this folder and answers with a Round.
      return (await askPeer(peer, { how, clients, directory } satisfies EnqueueJob)) as Round;
    };
    const name = `${clients} ${clients === 1 ? 'client' : 'clients'}`;
    const [bare = [], store = []] = await takeTurns(name, unit, rounds, [
      { name: 'bare inserts', measure: () => measure('bare') },
      { name: 'store', measure: () => measure('grouped') },
    ]);
    rows.push({ name: `store over bare inserts, ${name}`, unit, baseline: bare, candidate: store });
  }
  return { question: 'floor: durable rows/s of the store over a bare insert loop', rows };
}
