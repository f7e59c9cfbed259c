/** The receiving device of the p2p bench: what it answers is on its disk, many messages in one sync. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { makeSwarmKey } from '@quicprochat/p2p';
import { startDeviceSwarm } from '@quicprochat/p2p/device';
import { signingKeyFromSeed, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import type { SignedEndpointRecord } from '@quicprochat/proto/messages';
import { answerParent } from './peer-process.ts';

export interface ReceiverJob {
  readonly directory: string;
}
export interface Receiver {
  readonly device: Uint8Array;
  readonly record: SignedEndpointRecord;
}

answerParent(async ({ directory }: ReceiverJob): Promise<Receiver> => {
  const file = await open(join(directory, `received-${process.pid}`), 'a');
  let waiting: { readonly bytes: Uint8Array; readonly stored: () => void }[] = [];
  let isWriting = false;
  /** One write and one sync for all that came meanwhile. */
  async function flush(): Promise<void> {
    isWriting = true;
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      await file.writev(batch.map(({ bytes }) => bytes));
      await file.datasync();
      for (const { stored } of batch) stored();
    }
    isWriting = false;
  }
  const device = signingKeyFromSeed(systemRandom.bytes(32));
  const lifted = { perSecond: 1e6, burst: 1e6 };
  const swarm = await startDeviceSwarm({
    runtime: { clock: systemClock, random: systemRandom, log: silentLog },
    key: makeSwarmKey(systemRandom),
    device,
    listen: ['/ip4/127.0.0.1/udp/0/quic-v1', '/ip4/127.0.0.1/tcp/0'],
    relayOnly: false,
    reach: ['loopback'],
    lastSeq: 0,
    admit: () => Promise.resolve(),
    onDelivery: ({ request }) =>
      new Promise((resolve) => {
        waiting.push({ bytes: request.payload, stored: () => resolve('stored') });
        if (!isWriting) void flush();
      }),
    serverLimits: { perDevice: lifted, hellos: lifted },
  });
  return { device: device.publicKey, record: swarm.record() };
});
