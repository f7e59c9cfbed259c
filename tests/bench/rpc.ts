/**
 * Question: how many calls/s does a real node answer (Health: typed caller, frames, our engine, the
 * whole middleware, handler), over an engine that only echoes? Two baselines in the same run: bare
 * streams of the stock @matrixai/quic, and our engine with frames that nobody decodes. The first
 * tells what we have, the second what dispatch costs.
 */
import { join } from 'node:path';
import { NodeProcess } from '../cluster/node-process.ts';
import type { BenchReport, Comparison, Round } from './measure.ts';
import { askPeer, startPeer } from './peer-process.ts';
import { takeTurns } from './report.ts';
import type { EchoEngine, RpcLoad, RpcServer, ServingPeer } from './rpc-peer.ts';
import { whileRunning, type Scratch } from './scratch.ts';

const rounds = 3;
const inFlights = [1, 16, 64];
/** Only what is measured is lifted: a bench of calls must not measure the rate limit. */
const config = '[rates.cheap]\nper_second = 1000000\nburst = 1000000\n';
const peer = new URL('./rpc-peer.ts', import.meta.url);

/** The peer is of this folder and answers a load with a Round. */
async function load(input: RpcLoad): Promise<Round> {
  return (await askPeer(peer, input)) as Round;
}

async function echo(engine: EchoEngine, inFlight: number): Promise<Round> {
  const input: RpcServer = { do: 'serve', engine };
  await using server = await startPeer(peer, input);
  // Its answer to `serve`.
  const { address } = server.answer as ServingPeer;
  return await load({ do: 'load', target: engine, address, inFlight, serverPid: server.pid });
}

export async function rpc(scratch: Scratch): Promise<BenchReport> {
  const node = await NodeProcess.init('red.example', join(scratch.directory, 'red'), config);
  scratch.own([node]);
  const health = (inFlight: number): Promise<Round> =>
    whileRunning([node], () => {
      const { address, pid } = node;
      return load({ do: 'load', target: 'node', address, inFlight, serverPid: pid ?? 0 });
    });
  const rows: Comparison[] = [];
  for (const inFlight of inFlights) {
    const [stock = [], engine = [], whole = []] = await takeTurns(
      `${inFlight} in flight`,
      'calls/s',
      rounds,
      [
        { name: 'stock streams', measure: () => echo('stock', inFlight) },
        { name: 'our engine', measure: () => echo('ours', inFlight) },
        { name: 'node', measure: () => health(inFlight) },
      ],
    );
    const name = `rpc, ${inFlight} in flight`;
    const unit = 'calls/s';
    rows.push({ name: `${name}, over stock streams`, unit, baseline: stock, candidate: whole });
    rows.push({ name: `${name}, over our engine`, unit, baseline: engine, candidate: whole });
  }
  return { question: 'rpc: calls/s of a node (Health) over an engine that only echoes', rows };
}
