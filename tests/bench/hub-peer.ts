/**
 * One measurement of the hub bench, in a process of its own: durable Enqueues, or commits of as many groups
 * as there are connections. Both bring a KiB to one device of the node.
 */
import { systemRandom } from '@quicprochat/proto';
import type { Connection } from '@quicprochat/proto/transport';
import { dialDevice, enqueueTo, type DeviceKeys } from './devices.ts';
import { measureLoad, type Round } from './measure.ts';
import { answerParent } from './peer-process.ts';
import { RawGroup } from './raw-group.ts';

export interface HubJob {
  /** The group's hubs, the answering node first; none: messages instead of commits. */
  readonly hubs: readonly string[];
  readonly connections: number;
  readonly devices: readonly DeviceKeys[];
  /** Of all nodes that take part. */
  readonly serverPids: readonly number[];
  readonly measureMs: number;
}

const payloadBytes = 1_024;
const warmUpMs = 500;

/** What one connection does over and over. */
async function stepOf(
  connection: Connection,
  hubs: readonly string[],
  to: DeviceKeys,
): Promise<() => Promise<void>> {
  if (hubs.length === 0) {
    return () => enqueueTo(connection, to, systemRandom.bytes(16), payloadBytes);
  }
  const group = await RawGroup.begin(connection, hubs);
  return () => group.submit(connection, group.commit(to, payloadBytes));
}

async function measure(job: HubJob): Promise<Round> {
  const { hubs, connections, devices, serverPids, measureMs } = job;
  const steps = await Promise.all(
    Array.from({ length: connections }, async (_, index) => {
      const [from, to] = [devices[index % devices.length], devices[(index + 1) % devices.length]];
      if (from === undefined || to === undefined) throw new Error('bench: no devices');
      return stepOf(await dialDevice(from), hubs, to);
    }),
  );
  const step = async (loop: number): Promise<void> => steps[loop]?.();
  return measureLoad({ loops: connections, warmUpMs, measureMs, serverPid: serverPids, step });
}

answerParent<HubJob>(measure);
