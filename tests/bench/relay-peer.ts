/** The clients of the relay bench: one fills the outbox of its node, one collects at the other end. */
import { call, methods, systemRandom } from '@quicprochat/proto';
import { dialDevice, enqueueTo, type DeviceKeys } from './devices.ts';
import type { Round } from './measure.ts';
import { answerParent } from './peer-process.ts';

export type RelayJob =
  | {
      readonly do: 'fill';
      readonly from: DeviceKeys;
      readonly to: DeviceKeys;
      readonly messages: number;
    }
  | { readonly do: 'collect'; readonly to: DeviceKeys; readonly messages: number };

const payloadBytes = 1024;
const inFlight = 64;
/** Of a fetch that waits (ms). */
const waitMs = 1_000;

async function fill({ from, to, messages }: RelayJob & { do: 'fill' }): Promise<null> {
  const connection = await dialDevice(from);
  let left = messages;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (left > 0) {
        left -= 1;
        await enqueueTo(connection, to, systemRandom.bytes(16), payloadBytes);
      }
    }),
  );
  return null;
}

/** By the clock of the node that wrote the rows: who reads them, and when, is of no matter. */
async function collect({ to, messages }: RelayJob & { do: 'collect' }): Promise<Round> {
  const connection = await dialDevice(to);
  const times: number[] = [];
  let after = 0n;
  let storeId: Uint8Array = new Uint8Array();
  while (times.length < messages) {
    const cursors = [{ log: {}, after, storeId }];
    const { logs } = await call(connection, methods.fetchWait, { cursors, waitMs });
    const fetched = logs[0]?.fetched;
    if (fetched === undefined) continue;
    ({ storeId } = fetched);
    for (const row of fetched.rows) {
      times.push(Number(row.receivedMs));
      after = row.seq;
    }
  }
  const [first, last] = [Math.min(...times), Math.max(...times)];
  return {
    value: ((messages - 1) / Math.max(1, last - first)) * 1000,
    notes: { ms: last - first },
  };
}

answerParent<RelayJob>((job) => (job.do === 'fill' ? fill(job) : collect(job)));
