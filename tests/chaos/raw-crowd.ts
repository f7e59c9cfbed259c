/**
 * The workload below the level of clients: lanes that enqueue at one node, each repeating a message
 * until it is answered, and an inbox that is read at the end. No client memory helps the node here:
 * what it acknowledged and does not have is lost.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageTag, methods, hex } from '@quicprochat/proto';
import { CrashingNode, RawDevice } from '../cluster/crashing-node.ts';
import type { Dice } from '../cluster/dice.ts';
import type { NodeProcess } from '../cluster/node-process.ts';
import type { Recorder } from './recorder.ts';

const lanesPerDevice = 6;
const payloadBytes = 2_000;
const senders = ['alice', 'carol', 'erin'];
const recipient = 'bob';

export class RawCrowd implements AsyncDisposable {
  readonly node: CrashingNode;
  readonly #recorder: Recorder;
  readonly #dice: Dice;
  readonly #senders: readonly RawDevice[];
  readonly #reader: RawDevice;
  readonly #stop = new AbortController();
  #sending: Promise<unknown> = Promise.resolve();
  /** Calls that were answered OK so far, and when the last one was (ms). */
  acknowledged = 0;
  lastOkMs = 0;

  private constructor(
    node: CrashingNode,
    devices: readonly RawDevice[],
    reader: RawDevice,
    recorder: Recorder,
    dice: Dice,
  ) {
    this.node = node;
    this.#senders = devices;
    this.#reader = reader;
    this.#recorder = recorder;
    this.#dice = dice;
  }

  /** Starts the node and registers everybody. */
  static async gather(process: NodeProcess, recorder: Recorder, dice: Dice): Promise<RawCrowd> {
    const node = new CrashingNode(process);
    try {
      await node.start();
      const devices: RawDevice[] = [];
      for (const name of senders) devices.push(await RawDevice.register(node, name));
      const reader = await RawDevice.register(node, recipient);
      // Closed orderly once: the accounts are on disk, whatever the store syncs later.
      for (const device of node.devices) device.disconnect();
      await process.stop();
      await process.start();
      return new RawCrowd(node, devices, reader, recorder, dice);
    } catch (error) {
      await node[Symbol.asyncDispose]();
      throw error;
    }
  }

  send(): void {
    const lanes = this.#senders.flatMap((device) =>
      Array.from({ length: lanesPerDevice }, (_, index) => ({ device, index })),
    );
    this.#sending = Promise.all(
      lanes.map(({ device, index }, which) =>
        this.#lane(device, `${device.userId} lane ${index}`, this.#dice.branch(100 + which)),
      ),
    );
    // Waited for in `quiet`.
    this.#sending.catch(() => undefined);
  }

  async #lane(device: RawDevice, lane: string, dice: Dice): Promise<void> {
    for (let n = 1; !this.#stop.signal.aborted; n += 1) {
      const mid = dice.bytes(16);
      const payload = dice.bytes(1 + dice.int(payloadBytes));
      const innerId = hex(messageTag(mid, payload));
      this.#recorder.now({
        kind: 'sent',
        device: lane,
        user: device.userId,
        conversation: lane,
        innerId,
        n,
        recipients: [this.#reader.userId],
      });
      const { domain } = this.node.process;
      const request = { rid: this.#reader.rid, domain, mid, payload, ttlS: 0 };
      await device.call(methods.enqueue, request);
      this.acknowledged += 1;
      this.lastOkMs = Date.now();
      this.#recorder.now({ kind: 'accepted', device: lane, innerId });
      this.#lanesOf.set(innerId, { lane, n });
    }
  }

  /** Lane and number of each acknowledged message. */
  readonly #lanesOf = new Map<string, { readonly lane: string; readonly n: number }>();

  /** Resolves when so many more calls were answered OK; rejects when a lane was refused. */
  async oks(more: number): Promise<void> {
    const goal = this.acknowledged + more;
    const lanes = this.#sending.then(() => undefined);
    while (this.acknowledged < goal) await Promise.race([sleep(5), lanes]);
  }

  /** Ends the lanes; their last messages are answered, so the node must run. */
  async quiet(): Promise<void> {
    this.#stop.abort();
    await this.#sending;
  }

  /** The inbox as the node has it now: tags by seq. */
  async inbox(): Promise<ReadonlyMap<number, string>> {
    const rows = new Map<number, string>();
    for (let after = 0n; ;) {
      const fetched = await this.#reader.call(methods.fetch, {
        log: {},
        after,
        maxRows: 0,
        maxBytes: 0,
      });
      for (const row of fetched?.rows ?? []) {
        rows.set(Number(row.seq), hex(messageTag(row.mid, row.payload)));
        after = row.seq;
      }
      if (fetched === undefined || fetched.rows.length === 0) return rows;
    }
  }

  /** How many acknowledged messages the node does not have now. */
  async missing(): Promise<number> {
    const known = [...this.#lanesOf.keys()];
    const held = new Set((await this.inbox()).values());
    return known.filter((tag) => !held.has(tag)).length;
  }

  /** Writes the inbox into the history. */
  async testify(): Promise<void> {
    const atMs = Date.now();
    const { userId: log } = this.#reader;
    const node = this.node.process.domain;
    const counts = new Map<string, number>();
    for (const [seq, tag] of await this.inbox()) {
      this.#recorder.write({ kind: 'row', atMs, node, log, storeId: '', seq, tag });
      counts.set(tag, (counts.get(tag) ?? 0) + 1);
      const of = this.#lanesOf.get(tag);
      // What was never answered OK may be there or not: nothing is promised of it.
      if (of === undefined) continue;
      this.#recorder.write({
        kind: 'stored',
        atMs,
        device: log,
        user: log,
        conversation: of.lane,
        innerId: tag,
        senderDevice: of.lane,
        n: of.n,
      });
    }
    this.#recorder.now({ kind: 'rest', device: log, unsent: 0, parked: 0 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.node[Symbol.asyncDispose]();
  }
}
