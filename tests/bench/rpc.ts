/**
 * Question: what share of the bare engine's calls/s is left when our frames, the typed caller,
 * dispatch with the whole middleware, and a real node stand on top of it? Baseline: streams of the
 * stock @matrixai/quic that answer the same number of bytes, with the same kind of certificates,
 * retry and limits. Client and server are fresh processes for every number.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { NodeProcess } from '../cluster/node-process.ts';
import { interleave, type BenchReport, type Comparison } from './measure.ts';

const peer = fileURLToPath(new URL('./rpc-peer.ts', import.meta.url));
const rounds = 3;
const inFlights = [1, 16, 64];
/** Only what is measured is lifted: a bench of calls must not measure the rate limit. */
const config = '[rates.cheap]\nper_second = 1000000\nburst = 1000000\n';

/** A child of rpc-peer.ts and the first line that it prints. */
async function start(...args: readonly string[]): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn(process.execPath, [peer, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const { value } = await lines[Symbol.asyncIterator]().next();
  if (value === undefined) throw new Error(`bench: ${args.join(' ')} ended without a result`);
  return { child, line: value };
}

async function load(...args: readonly string[]): Promise<number> {
  const { child, line } = await start(...args);
  if (child.exitCode === null) await once(child, 'exit');
  return Number(line);
}

async function bare(inFlight: number): Promise<number> {
  const { child, line } = await start('serve-bare');
  try {
    return await load('load-bare', line, String(inFlight));
  } finally {
    const exited = once(child, 'exit');
    child.kill();
    await exited;
  }
}

export async function run(): Promise<BenchReport> {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-bench-'));
  try {
    const node = await NodeProcess.init('red.example', join(directory, 'red'), config);
    const ours = async (inFlight: number): Promise<number> => {
      await node.start();
      try {
        return await load('load-node', node.address, String(inFlight));
      } finally {
        await node.stop();
      }
    };
    const rows: Comparison[] = [];
    for (const inFlight of inFlights) {
      const numbers = await interleave(
        rounds,
        () => bare(inFlight),
        () => ours(inFlight),
      );
      rows.push({ name: `${inFlight} in flight`, unit: 'calls/s', ...numbers });
    }
    return {
      question: 'RPC: calls/s of a node (Health) over a bare engine echo',
      baseline: 'stock @matrixai/quic, one stream per call, same bytes',
      candidate: 'qpcd over its default engine, typed caller',
      rows,
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
