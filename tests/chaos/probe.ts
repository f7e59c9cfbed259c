/** Small services for scenarios about one node: a probe below the clients, and waiting for it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { QpcError, methods, systemRandom } from '@quicprochat/proto';
import { CrashingNode, RawDevice } from '../cluster/crashing-node.ts';
import type { NodeProcess } from '../cluster/node-process.ts';

/** A device that asks the node for one small Enqueue to itself, and says what came back. */
export class Probe {
  readonly #device: RawDevice;
  readonly #domain: string;

  private constructor(device: RawDevice, domain: string) {
    this.#device = device;
    this.#domain = domain;
  }

  static async register(node: NodeProcess): Promise<Probe> {
    // Whoever watches the node's end goes on doing so.
    const { onUnexpectedEnd } = node;
    const crashing = new CrashingNode(node);
    node.onUnexpectedEnd = onUnexpectedEnd;
    return new Probe(await RawDevice.register(crashing, 'probe'), node.domain);
  }

  /** `OK`, or the reason of the refusal. */
  async enqueue(): Promise<string> {
    const [mid, payload] = [systemRandom.bytes(16), systemRandom.bytes(1_000)];
    const request = { rid: this.#device.rid, domain: this.#domain, mid, payload, ttlS: 0 };
    return this.#outcome(() => this.#device.tryCall(methods.enqueue, request));
  }

  /** `OK`, or the reason of the refusal. */
  async fetch(): Promise<string> {
    return this.#outcome(() => this.#device.tryCall(methods.fetch, { log: {}, maxRows: 1 }));
  }

  /** Waits for an OK; resolves with the time that it took (ms), undefined when it did not come. */
  async ok(timeoutMs: number): Promise<number | undefined> {
    const startMs = performance.now();
    while (performance.now() < startMs + timeoutMs) {
      if ((await this.enqueue()) === 'OK') return Math.round(performance.now() - startMs);
      await sleep(50);
    }
    return undefined;
  }

  disconnect(): void {
    this.#device.disconnect();
  }

  async #outcome(ask: () => Promise<unknown>): Promise<string> {
    try {
      await ask();
      return 'OK';
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      // A broken connection is dialed anew by the next call.
      if (error.name === 'TransportError') this.#device.disconnect();
      return error.reason;
    }
  }
}

/** Counts equal words. */
export function tally(words: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${count} ${word}`).join(', ');
}
