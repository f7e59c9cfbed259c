/**
 * Question: what do conflicts cost, when 2, 8 and 32 members of one group want something changed all the time, over
 * one of them alone? Members are the committers of 32 real clients with stores on disk, all in one process, at one
 * real node over QUIC; the group has the suite that clients choose (X-Wing), its hub is a hub of one.
 */
import { join } from 'node:path';
import { NodeProcess } from '../cluster/node-process.ts';
import type { ConflictJob, ConflictRounds } from './hub-conflicts-peer.ts';
import type { Comparison } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
const members = 32;
const alone = 1;
const committers = [2, 8, 32];
const measureMs = 5_000;
/** All rounds on a machine that is busy with other things (ms). */
const waitMs = 880_000;
const peer = new URL('./hub-conflicts-peer.ts', import.meta.url);

export async function hubConflicts(scratch: Scratch, config: string): Promise<Comparison[]> {
  const directory = join(scratch.directory, 'conflicts');
  const node = await NodeProcess.init('busy.example', directory, config);
  scratch.own([node]);
  const { domain, address: nodeAddress } = node;
  const counts = [alone, ...committers];
  const job: ConflictJob = {
    ...{ directory, nodeAddress, domain, members, rounds, measureMs },
    committers: counts,
  };
  // One process measures all of them, in turns. The peer is of this folder.
  const taken = await whileRunning(
    [node],
    async () => (await askPeer(peer, job, waitMs)) as ConflictRounds,
  );
  const unit = 'changes/s';
  let round = -1;
  const sides = counts.map((count, index) => ({
    name: `${count} at once`,
    measure: async () => {
      if (index === 0) round += 1;
      const found = taken.get(count)?.[round];
      if (found === undefined) throw new Error(`bench: no round of ${count}`);
      return found;
    },
  }));
  const [baseline = [], ...others] = await takeTurns('committers', unit, rounds, sides);
  return others.map((candidate, index) => ({
    name: `${committers[index]} committers over one`,
    unit,
    baseline,
    candidate,
  }));
}
