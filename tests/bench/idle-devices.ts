/**
 * Question: what does a device cost a node that is connected, subscribed to its inbox, and silent?
 * Baseline: as many connections that said Hello and did not subscribe. Memory of the node's whole process
 * (RSS), for each. Directly: `node tests/bench/idle-devices.ts [devices ...]`, as with 10000.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { systemRandom } from '@quicprochat/proto';
import { makeIdentity } from '@quicprochat/proto/transport';
import type { CrowdJob } from './idle-crowd.ts';
import type { IdleDevice, IdleNodeJob } from './idle-node.ts';
import { machineLine, type BenchReport, type Comparison, type Round } from './measure.ts';
import { startPeer } from './peer-process.ts';
import { printTable, takeTurns } from './report.ts';
import { Scratch } from './scratch.ts';

const rounds = 3;
const waitMs = 3_600_000;
/** For garbage to be collected, if it is (ms). */
const restMs = 3_000;
const nodePeer = new URL('./idle-node.ts', import.meta.url);
const crowdPeer = new URL('./idle-crowd.ts', import.meta.url);

function rssKib(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/mu.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1]);
}

export async function idleDevices(
  scratch: Scratch,
  sizes: readonly number[] = [1_000],
): Promise<BenchReport> {
  const rows: Comparison[] = [];
  for (const count of sizes) {
    const devices: IdleDevice[] = [];
    while (devices.length < count) {
      const { certificatePem, privateKeyPem, spkiSha256 } = await makeIdentity(systemRandom);
      devices.push({ rid: systemRandom.bytes(32), certificatePem, privateKeyPem, spkiSha256 });
    }
    let run = 0;
    const measure = async (isSubscribing: boolean): Promise<Round> => {
      run += 1;
      const path = join(scratch.directory, `idle-${count}-${run}.db`);
      await using node = await startPeer(nodePeer, { path, devices } satisfies IdleNodeJob, waitMs);
      await sleep(restMs);
      const before = rssKib(node.pid);
      const job: CrowdJob = { address: String(node.answer), devices, isSubscribing };
      await using crowd = await startPeer(crowdPeer, job, waitMs);
      await sleep(restMs);
      const after = rssKib(node.pid);
      const clientKib = rssKib(crowd.pid);
      return { value: (after - before) / count, notes: { beforeKib: before, clientKib } };
    };
    const name = `${count} idle devices`;
    const [baseline = [], candidate = []] = await takeTurns(name, 'KiB', rounds, [
      { name: 'connected', measure: () => measure(false) },
      { name: 'subscribed', measure: () => measure(true) },
    ]);
    rows.push({ name: `${name}, each`, unit: 'KiB', baseline, candidate });
  }
  return { question: 'idle-devices: KiB of a subscribed device over a connected one', rows };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await using scratch = new Scratch();
  console.log(machineLine());
  const asked = process.argv.slice(2).map(Number);
  printTable([await idleDevices(scratch, asked.length > 0 ? asked : undefined)]);
  console.log(machineLine());
}
