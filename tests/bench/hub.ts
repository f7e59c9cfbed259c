/**
 * Question: what does it cost that groups cannot fork? Commits of hubs over bare Enqueues, conflicts, takeovers and
 * the addition of a thousand: each part says more at the head of its file. Directly, for some of them:
 * `node tests/bench/hub.ts [commits | conflicts | takeover | adds ...]`.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { initCluster, type NodeProcess } from '../cluster/node-process.ts';
import { registerDevice, type DeviceKeys } from './devices.ts';
import { hubAdds } from './hub-adds.ts';
import { hubCommits } from './hub-commits.ts';
import { hubConflicts } from './hub-conflicts.ts';
import { hubTakeover } from './hub-takeover.ts';
import { machineLine, type BenchReport, type Comparison } from './measure.ts';
import { printTable } from './report.ts';
import { Scratch, whileRunning } from './scratch.ts';

const domains = ['red.example', 'blue.example', 'green.example'];
/** Only what is measured is lifted: rates, what one host may do, and the size of inboxes that nobody empties. */
const config =
  '[limits]\ninbox_rows = 100000000\ninbox_mib = 100000\nmib_per_sender_per_minute = 100000\n' +
  'connections_per_host = 100000\nhandshakes_per_host_per_second = 100000\n' +
  ['cheap', 'auth', 'send', 'read', 'keys', 'lookup', 'relay', 'audit']
    .map((name) => `[rates.${name}]\nper_second = 1000000\nburst = 1000000\n`)
    .join('');

type Part = (scratch: Scratch) => Promise<Comparison[]>;

/** Nodes that run and federate. */
async function withNodes<T>(
  scratch: Scratch,
  what: string,
  names: readonly string[],
  job: (nodes: readonly NodeProcess[]) => Promise<T>,
): Promise<T> {
  const nodes = await initCluster(join(scratch.directory, what), names, config);
  scratch.own(nodes);
  return whileRunning(nodes, () => job(nodes));
}

const devicesAt = (node: NodeProcess): Promise<DeviceKeys[]> =>
  Promise.all(['anna', 'ben', 'cleo', 'dora'].map((name) => registerDevice(node, name)));

const parts: Readonly<Record<string, Part>> = {
  commits: (scratch) =>
    withNodes(scratch, 'commits', domains, async (nodes) =>
      hubCommits(nodes, await devicesAt(first(nodes))),
    ),
  conflicts: (scratch) => hubConflicts(scratch, config),
  takeover: (scratch) =>
    withNodes(scratch, 'takeover', domains, async (nodes) => {
      const seat = async (node: NodeProcess) => ({
        node,
        device: await registerDevice(node, 'anna'),
      });
      return hubTakeover(await Promise.all(nodes.map(seat)));
    }),
  adds: (scratch) =>
    withNodes(scratch, 'adds', domains.slice(0, 1), async (nodes) =>
      hubAdds(first(nodes), await devicesAt(first(nodes))),
    ),
};

function first(nodes: readonly NodeProcess[]): NodeProcess {
  const [node] = nodes;
  if (node === undefined) throw new Error('bench: no nodes');
  return node;
}

export async function hub(scratch: Scratch, asked = Object.keys(parts)): Promise<BenchReport> {
  const rows: Comparison[] = [];
  for (const name of asked) rows.push(...((await parts[name]?.(scratch)) ?? []));
  return {
    question:
      'hub: commits/s over Enqueue; changes/s of many committers over one; takeovers and additions: less is better',
    rows,
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await using scratch = new Scratch();
  console.log(machineLine());
  const asked = process.argv.slice(2);
  printTable([await hub(scratch, asked.length > 0 ? asked : undefined)]);
  console.log(machineLine());
}
