/**
 * What the benches measure with: one number per round with what it cost, ratios to a baseline of the
 * same run, median and spread. Judges nothing: no number here can fail a test.
 */
import { readFileSync } from 'node:fs';
import { arch, cpus, loadavg, platform, release } from 'node:os';

/** One measurement in processes of its own. */
export interface Round {
  /** What is compared. */
  readonly value: number;
  /** What it cost beside it, named with its unit: CPU on each side, latencies, memory. */
  readonly notes: Readonly<Record<string, number>>;
}

/** One row of the table: the rounds of both sides, taken in turn. */
export interface Comparison {
  readonly name: string;
  readonly unit: string;
  readonly baseline: readonly Round[];
  readonly candidate: readonly Round[];
}

export interface BenchReport {
  readonly question: string;
  readonly rows: readonly Comparison[];
}

/** Relative spread of the ratios, highest less lowest over median, above which a row is "noisy". */
export const noisySpread = 0.15;

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const low = sorted[Math.ceil(half) - 1] ?? Number.NaN;
  const high = sorted[Math.floor(half)] ?? Number.NaN;
  return (low + high) / 2;
}

/** `share` 0.99 is the 99th percentile: that share of the values is not above it. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

export interface Ratios {
  readonly perRound: readonly number[];
  readonly median: number;
  readonly spread: number;
  readonly isNoisy: boolean;
}

/** Candidate over baseline, round by round. */
export function ratiosOf({ baseline, candidate }: Comparison): Ratios {
  const perRound = candidate.map(
    ({ value }, index) => value / (baseline[index]?.value ?? Number.NaN),
  );
  const middle = median(perRound);
  const spread = (Math.max(...perRound) - Math.min(...perRound)) / middle;
  return { perRound, median: middle, spread, isNoisy: spread > noisySpread };
}

/** CPU, cores, kernel, Node and load: without them no number means anything. */
export function machineLine(): string {
  const model = cpus()[0]?.model ?? 'unknown processor';
  const load = loadavg().map((value) => value.toFixed(1));
  return `${model}, ${cpus().length} cores, ${platform()} ${release()} ${arch()}, Node ${process.version}, load ${load.join(' ')}`;
}

interface Usage {
  readonly cpuUs: number;
  readonly rssBytes: number;
}

/** Of Linux, whatever the processor: USER_HZ in proc(5). */
const usPerTick = 10_000;
const pageBytes = 4096;

/** What another process has used so far; undefined where there is no /proc. */
function usageOf(pid: number): Usage | undefined {
  if (platform() !== 'linux') return undefined;
  // The name in brackets may hold anything; what follows it are numbers (proc(5), `stat`).
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /u, '')
    .split(' ');
  const [utime, stime, rss] = [11, 12, 21].map((index) => Number(fields[index]));
  return {
    cpuUs: ((utime ?? 0) + (stime ?? 0)) * usPerTick,
    rssBytes: (rss ?? 0) * pageBytes,
  };
}

/** Of several processes together; undefined where there are none, or no /proc. */
function usageOfAll(pids: readonly number[]): Usage | undefined {
  const usages = pids.map(usageOf).filter((usage) => usage !== undefined);
  const sum = (of: (usage: Usage) => number): number =>
    usages.reduce((total, usage) => total + of(usage), 0);
  if (usages.length === 0) return undefined;
  return { cpuUs: sum(({ cpuUs }) => cpuUs), rssBytes: sum(({ rssBytes }) => rssBytes) };
}

function ownCpuUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

export interface Load {
  /** Calls in flight: each loop has one, and starts the next when it is answered. */
  readonly loops: number;
  readonly warmUpMs: number;
  readonly measureMs: number;
  /** The other side, when it is another process, or several. */
  readonly serverPid?: number | readonly number[];
  readonly step: (loop: number) => Promise<unknown>;
}

/** Steps per second of a closed loop. Rejects with the first error of any step: then no number. */
export async function measureLoad(load: Load): Promise<Round> {
  await closedLoop(load, load.warmUpMs);
  const server = () => usageOfAll([load.serverPid ?? []].flat());
  const [serverBefore, cpuBefore] = [server(), ownCpuUs()];
  const startMs = performance.now();
  const latencies = await closedLoop(load, load.measureMs);
  const seconds = (performance.now() - startMs) / 1000;
  const clientCpuUs = ownCpuUs() - cpuBefore;
  const serverAfter = server();
  const count = latencies.length;
  return {
    value: count / seconds,
    notes: {
      p50Ms: percentile(latencies, 0.5),
      p99Ms: percentile(latencies, 0.99),
      maxMs: percentile(latencies, 1),
      clientCpuUs: clientCpuUs / count,
      ...(serverBefore === undefined || serverAfter === undefined
        ? {}
        : {
            serverCpuUs: (serverAfter.cpuUs - serverBefore.cpuUs) / count,
            serverRssMib: serverAfter.rssBytes / 1024 ** 2,
          }),
    },
  };
}

async function closedLoop({ loops, step }: Load, ms: number): Promise<number[]> {
  const latencies: number[] = [];
  const endMs = performance.now() + ms;
  await Promise.all(
    Array.from({ length: loops }, async (_, loop) => {
      for (let atMs = performance.now(); atMs < endMs;) {
        await step(loop);
        const nowMs = performance.now();
        latencies.push(nowMs - atMs);
        atMs = nowMs;
      }
    }),
  );
  return latencies;
}
