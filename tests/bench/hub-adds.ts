/**
 * Question: what does it cost to add 1 000 members, up to 64 in a commit: the time and bytes of who adds them, of
 * the hub, and of who joins last? Suite 1, which groups of more than 256 have. Client and hub are measured apart:
 * a client in memory makes and applies the real commits; then a real node gets commits and Welcomes of the
 * very sizes, random bytes over QUIC. Ratios: the last whole commit over the first.
 */
import { join } from 'node:path';
import { openForReading, readKeyFile } from '@quicprochat/nodes';
import { systemRandom } from '@quicprochat/proto';
import type { NodeProcess } from '../cluster/node-process.ts';
import { dialDevice, type DeviceKeys } from './devices.ts';
import type { AddCommit, Adds, AddsJob } from './hub-adds-peer.ts';
import { measureLoad, type Comparison, type Round } from './measure.ts';
import { askPeer } from './peer-process.ts';
import { RawGroup } from './raw-group.ts';

const crowd = 998;
const hubRounds = 3;
const waitMs = 880_000;
const peer = new URL('./hub-adds-peer.ts', import.meta.url);
const none = new Uint8Array(0);

/** What a node's store holds: pages that are not free (bytes). */
function storedBytes({ databaseFile, directory }: NodeProcess): number {
  const db = openForReading(databaseFile, readKeyFile(join(directory, 'database.key')));
  try {
    const [pages, free, bytes] = ['page_count', 'freelist_count', 'page_size'].map((name) =>
      Number(db.pragma(name, { simple: true })),
    );
    return ((pages ?? 0) - (free ?? 0)) * (bytes ?? 0);
  } finally {
    db.close();
  }
}

/** One commit with its Welcomes to disk at the hub (ms). */
async function atHub(
  node: NodeProcess,
  devices: readonly DeviceKeys[],
  { commitBytes, groupInfoBytes, sharedWelcomeBytes, welcomeBytes }: AddCommit,
): Promise<Round> {
  const [from] = devices;
  if (from === undefined) throw new Error('bench: no devices');
  const connection = await dialDevice(from);
  const group = await RawGroup.begin(connection, [node.domain]);
  let commits = 0;
  const before = storedBytes(node);
  const step = async (): Promise<void> => {
    commits += 1;
    const mid = systemRandom.bytes(16);
    const sharedWelcome = systemRandom.bytes(sharedWelcomeBytes);
    const welcomes = welcomeBytes.map((bytes, index) => {
      const { rid, domain } = devices[index % devices.length] ?? from;
      const target = { rid, domain, token: none };
      return { target, mid, welcome: systemRandom.bytes(bytes) };
    });
    const groupInfo = systemRandom.bytes(groupInfoBytes);
    await group.submit(
      connection,
      group.commit(from, commitBytes, { welcomes, sharedWelcome, groupInfo }),
    );
  };
  const load = { loops: 1, warmUpMs: 500, measureMs: 2_000, step };
  const { value, notes } = await measureLoad({ ...load, serverPid: node.pid ?? 0 });
  const hubBytes = (storedBytes(node) - before) / commits;
  return { value: 1_000 / value, notes: { ...notes, hubBytes } };
}

export async function hubAdds(
  node: NodeProcess,
  devices: readonly DeviceKeys[],
): Promise<Comparison[]> {
  const job: AddsJob = { crowd };
  // The peer is of this folder.
  const adds = (await askPeer(peer, job, waitMs)) as Adds;
  const { commits, gatherMs, followMs, joinMs, joinBytes, cpuMs } = adds;
  const [first, last] = [commits[0], commits.at(-2)];
  if (first === undefined || last === undefined) throw new Error('bench: too few commits');
  const sum = (of: (one: AddCommit) => number): number =>
    commits.reduce((total, one) => total + of(one), 0);
  const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(2)} MiB`;
  const seconds = (ms: number, cpu?: number): string =>
    `${(ms / 1_000).toFixed(2)} s${cpu === undefined ? '' : ` (${(cpu / 1_000).toFixed(2)} of CPU)`}`;
  const allWelcomes = sum(({ welcomeBytes, sharedWelcomeBytes }) =>
    welcomeBytes.reduce((a, b) => a + b, sharedWelcomeBytes),
  );
  console.log(
    `  adding ${crowd + 1} to one: ${commits.length} commits of ${commits.map((one) => one.adds).join(' ')}`,
  );
  console.log(
    `  who adds: keys ${seconds(gatherMs, cpuMs.gather)}, commits ${seconds(
      sum(({ ms }) => ms),
      cpuMs.commits,
    )}`,
  );
  console.log(
    `  bytes sent: ${mib(sum(({ requestBytes }) => requestBytes))}, Welcomes ${mib(allWelcomes)} of it`,
  );
  console.log(
    `  who is in follows in ${seconds(followMs, cpuMs.follow)}, the last one joins in ${seconds(joinMs, cpuMs.join)} by ${mib(joinBytes)}`,
  );
  const row = (name: string, unit: string, baseline: Round[], candidate: Round[]): Comparison => ({
    ...{ name: `adding, last commit over first: ${name}`, unit, baseline, candidate },
  });
  const of = (value: number): Round[] => [{ value, notes: {} }];
  const [hubFirst, hubLast]: [Round[], Round[]] = [[], []];
  for (let round = 0; round < hubRounds; round += 1) {
    hubFirst.push(await atHub(node, devices, first));
    hubLast.push(await atHub(node, devices, last));
  }
  const kib = (taken: readonly Round[]): string =>
    taken.map(({ notes }) => ((notes['hubBytes'] ?? 0) / 1024).toFixed(0)).join(', ');
  console.log(
    `  a hub stores KiB for the first commit: ${kib(hubFirst)}; for the last: ${kib(hubLast)}`,
  );
  const each = ({ ms, adds: count }: AddCommit): number => ms / count;
  const bytesEach = ({ requestBytes, adds: count }: AddCommit): number => requestBytes / count;
  return [
    row('committer, each member', 'ms', of(each(first)), of(each(last))),
    row('bytes, each member', 'B', of(bytesEach(first)), of(bytesEach(last))),
    row('hub, each commit', 'ms', hubFirst, hubLast),
  ];
}
