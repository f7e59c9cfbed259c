/** The sending side of the p2p bench, in its own process: over libp2p to a device, or through a node. */
import { makeSwarmKey, verifyEndpointRecord } from '@quicprochat/p2p';
import { startDeviceSwarm } from '@quicprochat/p2p/device';
import {
  call,
  methods,
  PushEvent,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { fromBinary, MessageEventSchema } from '@quicprochat/proto/messages';
import type { Connection } from '@quicprochat/proto/transport';
import { dialDevice, enqueueTo, type DeviceKeys } from './devices.ts';
import { measureLoad, type Round } from './measure.ts';
import type { Receiver } from './p2p-receiver.ts';
import { answerParent } from './peer-process.ts';

export type SenderJob = { readonly loops: number } & (
  | { readonly over: 'quic-v1' | 'tcp'; readonly to: Receiver; readonly serverPid: number }
  | { readonly over: 'node'; readonly from: DeviceKeys; readonly to: DeviceKeys }
);

const payloadBytes = 1024;
const load = { warmUpMs: 1_500, measureMs: 3_000 };

async function direct(job: Extract<SenderJob, { over: 'quic-v1' | 'tcp' }>): Promise<Round> {
  await using swarm = await startDeviceSwarm({
    runtime: { clock: systemClock, random: systemRandom, log: silentLog },
    key: makeSwarmKey(systemRandom),
    device: signingKeyFromSeed(systemRandom.bytes(32)),
    listen: [],
    relayOnly: false,
    reach: ['loopback'],
    lastSeq: 0,
    admit: () => Promise.resolve(),
    onDelivery: () => Promise.resolve('stored'),
  });
  const record = verifyEndpointRecord(job.to.record, { nowMs: Date.now(), reach: ['loopback'] });
  const addresses = record.addresses.filter((text) => text.includes(job.over));
  const to = { record: { ...record, addresses } };
  const payload = systemRandom.bytes(payloadBytes);
  const step = (): Promise<unknown> =>
    swarm.deliver(to, {
      rid: job.to.device,
      domain: 'bench.example',
      mid: systemRandom.bytes(16),
      payload,
      ttlS: 0,
    });
  const { loops, serverPid } = job;
  return await measureLoad({ ...load, loops, serverPid, step });
}

/** Subscribes and acks as clients do: one ack on its way, for all rows that came meanwhile. */
async function receive(connection: Connection, onMid: (mid: string) => void): Promise<void> {
  let acked = 0n;
  let newest = 0n;
  let isAcking = false;
  async function ack(storeId: Uint8Array): Promise<void> {
    if (isAcking) return;
    isAcking = true;
    while (acked < newest) {
      const upTo = newest;
      await call(connection, methods.ack, { log: {}, storeId, upTo });
      acked = upTo;
    }
    isAcking = false;
  }
  connection.onPushStream(async (frames) => {
    for await (const frame of frames) {
      if (frame.eventType !== PushEvent.Message) continue;
      const { row, storeId } = fromBinary(MessageEventSchema, frame.payload);
      if (row === undefined) continue;
      onMid(Buffer.from(row.mid).toString('hex'));
      newest = row.seq;
      void ack(storeId);
    }
  });
  await call(connection, methods.subscribe, { cursors: [{ log: {}, after: 0n }] });
}

/** From before Enqueue to the push at the recipient, which is a connection of this process. */
async function throughNode(job: Extract<SenderJob, { over: 'node' }>): Promise<Round> {
  const from = await dialDevice(job.from);
  const waiting = new Map<string, () => void>();
  await receive(await dialDevice(job.to), (mid) => {
    waiting.get(mid)?.();
    waiting.delete(mid);
  });
  const step = async (): Promise<void> => {
    const mid = systemRandom.bytes(16);
    const arrived = new Promise<void>((resolve) =>
      waiting.set(Buffer.from(mid).toString('hex'), resolve),
    );
    await Promise.all([arrived, enqueueTo(from, job.to, mid, payloadBytes)]);
  };
  return measureLoad({ ...load, loops: job.loops, step });
}

answerParent((job: SenderJob): Promise<Round> => {
  return job.over === 'node' ? throughNode(job) : direct(job);
});
