/** The port of a device that was told none: the same at every start, and another one where that is taken. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, parseSwarmAddress } from '@quicprochat/p2p';
import { deviceSwarm, type DeviceSwarm } from '@quicprochat/p2p/device';
import { systemRandom } from '@quicprochat/proto';
import { everywhere, makeDeviceKey, recordOf, runtime } from './devices.ts';

const duties = {
  ...{ runtime, key: makeSwarmKey(systemRandom), device: makeDeviceKey(), lastSeq: 0 },
  admit: () => Promise.resolve(),
  onDelivery: () => Promise.resolve('stored' as const),
};
const portsOf = (swarm: DeviceSwarm): number[] => [
  ...new Set(recordOf(swarm).addresses.map((text) => parseSwarmAddress(text).port)),
];

test('a device is found where it was before it was started again', async () => {
  const any = deviceSwarm({ reach: everywhere });
  const first = await any.start(duties);
  const ports = portsOf(first);
  // Somebody else of this machine may have it.
  const isOwn = ports.length === 1;
  {
    await using second = await any.start(duties);
    for (const port of portsOf(second)) assert(!ports.includes(port));
    assert.deepEqual(portsOf(first), ports);
  }
  await first[Symbol.asyncDispose]();
  await using again = await any.start(duties);
  if (isOwn) assert.deepEqual(portsOf(again), ports);
});

test('a port that was told is the one, or none', async () => {
  const any = deviceSwarm({ reach: everywhere });
  await using one = await any.start({ ...duties, key: makeSwarmKey(systemRandom) });
  const [port = 0] = portsOf(one);
  const told = deviceSwarm({ reach: everywhere, port });
  await assert.rejects(told.start(duties), { failure: 'unreachable' });
});
