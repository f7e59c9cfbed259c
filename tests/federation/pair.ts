/** Two simulated nodes, red and blue, that know each other: what most federation tests begin with. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog } from '@quicprochat/proto';
import { memoryNetwork, type MemoryNetwork } from '@quicprochat/proto/transport';
import { SimulatedClock } from '../simulated-clock.ts';
import { seededRandom, SimNode, type SimOptions } from './sim-node.ts';

export interface Pair extends AsyncDisposable {
  readonly clock: SimulatedClock;
  readonly network: MemoryNetwork;
  readonly red: SimNode;
  readonly blue: SimNode;
}

/** Time that a message takes from node to node (ms). */
export const delayMs = 20;

export interface PairOptions {
  readonly isStarted?: boolean;
  readonly seed?: number;
  readonly redOptions?: Partial<SimOptions>;
}

/** Makes both nodes; `blueOptions` shape blue alone. Started unless told otherwise. */
export async function makePair(
  blueOptions: Partial<SimOptions> = {},
  { isStarted = true, seed = 1, redOptions = {} }: PairOptions = {},
): Promise<Pair> {
  const clock = new SimulatedClock();
  const runtime = { clock, random: seededRandom(seed), log: silentLog };
  const network = memoryNetwork(runtime, { delayMs: () => delayMs });
  const directory = mkdtempSync(join(tmpdir(), 'qpc-federation-'));
  const common = { directory, network, clock };
  const red = await SimNode.make({
    ...common,
    domain: 'red.example',
    seed: seed * 2,
    ...redOptions,
  });
  const blue = await SimNode.make({
    ...common,
    domain: 'blue.example',
    seed: seed * 2 + 1,
    ...blueOptions,
  });
  if (isStarted) {
    await red.start([blue.asPeer]);
    await blue.start([red.asPeer]);
    await clock.advance(1_000);
  }
  return {
    clock,
    network,
    red,
    blue,
    async [Symbol.asyncDispose]() {
      await Promise.all([red.stop(), blue.stop()]);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
