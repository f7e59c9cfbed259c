/** Rows from one node's outbox to another node's inbox, over links that come and go. */
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { memoryNetwork, type MemoryNetwork } from '@quicprochat/proto/transport';
import { silentLog } from '@quicprochat/proto';
import { SimulatedClock } from '../simulated-clock.ts';
import { seededRandom, SimNode, type SimOptions } from './sim-node.ts';

let directory = '';
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'qpc-federation-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

interface Pair extends AsyncDisposable {
  readonly clock: SimulatedClock;
  readonly network: MemoryNetwork;
  readonly red: SimNode;
  readonly blue: SimNode;
}

let pairs = 0;
/** Two nodes that know each other, started unless told otherwise. */
async function makePair(
  options: Partial<SimOptions> & { readonly isStarted?: boolean } = {},
): Promise<Pair> {
  const clock = new SimulatedClock();
  const network = memoryNetwork(
    { clock, random: seededRandom(1), log: silentLog },
    { delayMs: () => 20 },
  );
  pairs += 1;
  const own = mkdtempSync(join(directory, `${pairs}-`));
  const red = await SimNode.make({
    domain: 'red.example',
    directory: own,
    network,
    clock,
    seed: 1,
  });
  const blue = await SimNode.make({
    domain: 'blue.example',
    directory: own,
    network,
    clock,
    seed: 2,
    ...options,
  });
  if (options.isStarted !== false) {
    await red.start([blue.asPeer]);
    await blue.start([red.asPeer]);
    await clock.advance(100);
  }
  return {
    clock,
    network,
    red,
    blue,
    async [Symbol.asyncDispose]() {
      const stopped = Promise.all([red.stop(), blue.stop()]);
      await clock.advance(1_000);
      await stopped;
    },
  };
}

const texts = (count: number, prefix = 'm'): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index}`);

test('rows arrive in order, in both lanes and both directions, and leave the outbox', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  for (const text of texts(300)) await red.send(blue, text);
  for (const text of texts(5, 'c')) await red.send(blue, text, { lane: 'control' });
  await blue.send(red, 'back');
  await clock.advance(2_000);
  const received = await blue.received();
  assert.deepEqual(
    received.filter((text) => text.startsWith('m')),
    texts(300),
  );
  assert.deepEqual(
    received.filter((text) => text.startsWith('c')),
    texts(5, 'c'),
  );
  assert.deepEqual(await red.received(), ['back']);
  assert.deepEqual(await red.held('blue.example'), []);
  const [status] = red.federation.status();
  assert.equal(status?.state, 'active');
  assert.ok(status.lanes.every((lane) => lane.isIdle));
});
