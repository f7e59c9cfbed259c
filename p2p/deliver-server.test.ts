/** Streams without a Hello: bounded, and no way to keep out those that say it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signingKeyFromSeed, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { deliverServerLimits, serveDeliveries } from './deliver-server.ts';
import { signEndpointRecord } from './endpoint-record.ts';
import type { Host, HostConnection, StreamHandler } from './host.ts';
import { makeSwarmKey } from './swarm-key.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

/** The handler of a server, and streams that come to it. */
async function makeServer(strangers: number) {
  const device = signingKeyFromSeed(systemRandom.bytes(32));
  const nowMs = systemClock.now();
  const record = signEndpointRecord(
    {
      ...{ swarmKey: makeSwarmKey(systemRandom).publicKey, addresses: [], relays: [] },
      ...{ mailboxes: [], seq: 1, issuedMs: nowMs, expiresMs: nowMs + 1_000 },
    },
    device,
  );
  let handler: StreamHandler | undefined;
  const host: Pick<Host, 'handle'> = {
    handle: async (_protocol, _streams, given) => void (handler = given),
  };
  await serveDeliveries(host as Host, {
    ...{ runtime, device: device.publicKey, record: () => record, reach: ['public'] },
    admit: () => Promise.resolve(),
    onDelivery: () => Promise.resolve('stored'),
    limits: { ...deliverServerLimits, strangers, helloMs: 60_000 },
  });
  return (peerId: string) => {
    const closed = Promise.withResolvers<void>();
    const stream = {
      isEnded: false,
      pendingBytes: 0,
      write: () => undefined,
      onData: () => undefined,
      closed: closed.promise,
      abort(): void {
        stream.isEnded = true;
        closed.resolve();
      },
    };
    handler?.(stream, { peerId, isRelayed: false } as HostConnection);
    return stream;
  };
}

test('who fills the places of strangers with silence loses its own, oldest first', async () => {
  const open = await makeServer(8);
  const quiet = Array.from({ length: 6 }, () => open('mallory'));
  const [anna, bert] = [open('anna'), open('bert')];
  const late = open('carol');
  assert.deepEqual(
    quiet.map(({ isEnded }) => isEnded),
    [true, false, false, false, false, false],
  );
  const more = [open('mallory'), open('mallory')];
  assert.deepEqual([anna.isEnded, bert.isEnded, late.isEnded], [false, false, false]);
  assert.equal(quiet.filter(({ isEnded }) => isEnded).length, 3);
  assert.deepEqual(
    more.map(({ isEnded }) => isEnded),
    [false, false],
  );
  for (const stream of [...quiet, ...more, anna, bert, late]) stream.abort();
});

test('of many peers with one stream each the oldest goes', async () => {
  const open = await makeServer(3);
  const streams = ['a', 'b', 'c', 'd'].map((peerId) => open(peerId));
  assert.deepEqual(
    streams.map(({ isEnded }) => isEnded),
    [true, false, false, false],
  );
  // A place that is free again is taken by nobody's loss.
  streams[1]?.abort();
  await streams[1]?.closed;
  await systemClock.sleep(0);
  const next = open('e');
  assert.deepEqual(
    streams.map(({ isEnded }) => isEnded),
    [true, true, false, false],
  );
  for (const stream of [...streams, next]) stream.abort();
});
