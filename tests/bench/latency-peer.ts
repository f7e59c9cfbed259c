/** The clients of the latency bench, in one process: a sender, a recipient near and one far. */
import { systemRandom } from '@quicprochat/proto';
import type { Connection } from '@quicprochat/proto/transport';
import { dialDevice, enqueueTo, subscribe, type DeviceKeys } from './devices.ts';
import { answerParent } from './peer-process.ts';

export interface LatencyJob {
  readonly from: DeviceKeys;
  /** On the sender's node. */
  readonly near: DeviceKeys;
  /** On the other node. */
  readonly far: DeviceKeys;
}

/** Milliseconds from before Enqueue to the push, message by message. */
export interface Latencies {
  readonly near: readonly number[];
  readonly far: readonly number[];
}

const payloadBytes = 512;
const blocks = 6;
const messagesPerBlock = 50;
const warmUpMessages = 100;

/** A recipient that tells when a message arrives. */
class Recipient {
  readonly #keys: DeviceKeys;
  readonly #waiting = new Map<string, () => void>();

  private constructor(keys: DeviceKeys) {
    this.#keys = keys;
  }

  static async subscribe(keys: DeviceKeys): Promise<Recipient> {
    const recipient = new Recipient(keys);
    await subscribe(await dialDevice(keys), (mid) => {
      recipient.#waiting.get(mid)?.();
      recipient.#waiting.delete(mid);
    });
    return recipient;
  }

  /** One message after the other; latencies in ms. A row that never comes is never answered. */
  async send(from: Connection, messages: number): Promise<number[]> {
    const latencies: number[] = [];
    while (latencies.length < messages) {
      const mid = systemRandom.bytes(16);
      const arrived = new Promise<number>((resolve) =>
        this.#waiting.set(Buffer.from(mid).toString('hex'), () => resolve(performance.now())),
      );
      const startMs = performance.now();
      // The push may come before the answer to the sender; both must come.
      const [atMs] = await Promise.all([arrived, enqueueTo(from, this.#keys, mid, payloadBytes)]);
      latencies.push(atMs - startMs);
    }
    return latencies;
  }
}

answerParent(async (job: LatencyJob): Promise<Latencies> => {
  const from = await dialDevice(job.from);
  const near = await Recipient.subscribe(job.near);
  const far = await Recipient.subscribe(job.far);
  await near.send(from, warmUpMessages);
  await far.send(from, warmUpMessages);
  const latencies = { near: [] as number[], far: [] as number[] };
  for (let block = 0; block < blocks; block += 1) {
    latencies.near.push(...(await near.send(from, messagesPerBlock)));
    latencies.far.push(...(await far.send(from, messagesPerBlock)));
  }
  return latencies;
});
