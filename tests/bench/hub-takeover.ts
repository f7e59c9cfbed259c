/**
 * Question: how long from the SIGKILL of the hub that leads until the next commit of a group is accepted, over an
 * ordinary commit of that group? A member asks the next hub to take over as soon as it is dead: how long a client
 * waits before it does (30 s of refusals) is a bound of its own and not measured. The dead hub comes back and is
 * brought up to date before its successor is killed.
 */
import { call, methods, QpcError } from '@quicprochat/proto';
import type { Connection } from '@quicprochat/proto/transport';
import type { NodeProcess } from '../cluster/node-process.ts';
import { dialDevice, type DeviceKeys } from './devices.ts';
import { median, type Comparison, type Round } from './measure.ts';
import { RawGroup } from './raw-group.ts';
import { takeTurns } from './report.ts';

const takeovers = 7;
const commitsBefore = 20;
const payloadBytes = 1_024;
/** A hub that is not back by then is an error (ms). */
const patienceMs = 60_000;
const pauseMs = 50;

/** A hub with a member at it. */
export interface Seat {
  readonly node: NodeProcess;
  readonly device: DeviceKeys;
}

class Relay {
  readonly #seats: readonly Seat[];
  readonly #connections: Connection[];
  readonly #group: RawGroup;
  /** Of the seats the one whose hub leads. */
  #leader = 0;

  private constructor(seats: readonly Seat[], connections: Connection[], group: RawGroup) {
    this.#seats = seats;
    this.#connections = connections;
    this.#group = group;
  }

  static async begin(seats: readonly Seat[]): Promise<Relay> {
    const connections = await Promise.all(seats.map(({ device }) => dialDevice(device)));
    const [first] = connections;
    if (first === undefined) throw new Error('bench: no hubs');
    const hubs = seats.map(({ node }) => node.domain);
    return new Relay(seats, connections, await RawGroup.begin(first, hubs));
  }

  /** Commits while nothing is wrong; the median (ms). */
  async ordinary(): Promise<Round> {
    const latencies: number[] = [];
    const { connection, device } = this.#at(this.#leader);
    while (latencies.length < commitsBefore) {
      const startMs = performance.now();
      await this.#group.submit(connection, this.#group.commit(device, payloadBytes));
      latencies.push(performance.now() - startMs);
    }
    return { value: median(latencies), notes: {} };
  }

  async takeover(): Promise<Round> {
    const dead = this.#leader;
    const next = (dead + 1) % this.#seats.length;
    const { connection, device } = this.#at(next);
    const request = this.#group.commit(device, payloadBytes);
    const startMs = performance.now();
    await this.#at(dead).node.kill();
    let tries = 0;
    await until(async () => {
      tries += 1;
      await this.#group.submitTakingOver(connection, request);
      return true;
    });
    const value = performance.now() - startMs;
    this.#leader = next;
    await this.#bringBack(dead);
    return { value, notes: { tries } };
  }

  /** It is there again, and has what the others have. */
  async #bringBack(index: number): Promise<void> {
    const { node, device } = this.#at(index);
    await node.start();
    const connection = await dialDevice(device);
    this.#connections[index] = connection;
    const leading = this.#at(this.#leader);
    await this.#group.submit(leading.connection, this.#group.commit(leading.device, payloadBytes));
    await until(async () => {
      const request = { group: this.#group.id, after: this.#group.head };
      const { position, entries } = await call(connection, methods.groupLog, request);
      // An unknown hash shows the log from its beginning; the newest one nothing.
      return entries.length === 0 && position === 0n;
    });
  }

  #at(index: number): Seat & { readonly connection: Connection } {
    const [seat, connection] = [this.#seats[index], this.#connections[index]];
    if (seat === undefined || connection === undefined) throw new Error(`bench: no hub ${index}`);
    return { ...seat, connection };
  }
}

/** Refusals are asked again: a majority may be on its way. */
async function until(attempt: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + patienceMs;
  for (;;) {
    try {
      if (await attempt()) return;
    } catch (error) {
      if (!(error instanceof QpcError) || performance.now() > endMs) throw error;
    }
    if (performance.now() > endMs) throw new Error('bench: the hubs do not get together');
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

export async function hubTakeover(seats: readonly Seat[]): Promise<Comparison[]> {
  const relay = await Relay.begin(seats);
  const unit = 'ms';
  const [baseline = [], candidate = []] = await takeTurns('commit', unit, takeovers, [
    { name: 'ordinary', measure: () => relay.ordinary() },
    { name: 'after SIGKILL of the leader', measure: () => relay.takeover() },
  ]);
  return [{ name: 'takeover over an ordinary commit', unit, baseline, candidate }];
}
