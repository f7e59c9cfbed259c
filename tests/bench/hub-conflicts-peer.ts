/**
 * The members of the bench of conflicts: real clients with their stores on disk, in one process, at a real node
 * over QUIC. Some of them change the group's keys as fast as they can, and all of them follow.
 */
import { join } from 'node:path';
import { QpcClient } from '@quicprochat/client-lib';
import {
  hasReason,
  methods,
  sameBytes,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { transportOf } from '@quicprochat/proto/transport';
import { CallMeter } from './call-meter.ts';
import type { Round } from './measure.ts';
import { answerParent } from './peer-process.ts';

export interface ConflictJob {
  readonly directory: string;
  readonly nodeAddress: string;
  readonly domain: string;
  readonly members: number;
  /** How many commit at once, one number after the other, and that so many times. */
  readonly committers: readonly number[];
  readonly rounds: number;
  readonly measureMs: number;
}

/** By the number of committers. */
export type ConflictRounds = ReadonlyMap<number, readonly Round[]>;

const password = new TextEncoder().encode('correct horse battery staple');
const warmUpMs = 1_000;
/** Longer than any group needs to come together (ms). */
const patienceMs = 300_000;
const pauseMs = 20;
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

class Members {
  readonly #clients: readonly QpcClient[];
  readonly #id: Uint8Array;
  readonly #meter: CallMeter;

  private constructor(clients: readonly QpcClient[], id: Uint8Array, meter: CallMeter) {
    this.#clients = clients;
    this.#id = id;
    this.#meter = meter;
  }

  static async gather({ directory, nodeAddress, domain, members }: ConflictJob): Promise<Members> {
    const meter = new CallMeter();
    const transport = meter.over(transportOf(runtime, ['quic']));
    const names = Array.from({ length: members }, (_, index) => `user${index}@${domain}`);
    const clients: QpcClient[] = [];
    for (const userId of names) {
      const storePath = join(directory, `${userId}.db`);
      const storeKey = systemRandom.bytes(32);
      const client = await QpcClient.open({ storePath, storeKey, runtime, transport });
      await client.register({ userId, password, nodeAddress });
      client.start();
      await client.online();
      clients.push(client);
    }
    const [first] = clients;
    if (first === undefined) throw new Error('bench: no members');
    const id = await first.createConversation({ name: 'busy', members: names.slice(1) });
    const all = new Members(clients, id, meter);
    await all.#together();
    return all;
  }

  /** Accepted changes/s while the first `committers` of them want fresh keys all the time. */
  async measure(committers: number, measureMs: number): Promise<Round> {
    await this.#commit(committers, warmUpMs);
    await this.#together();
    const { calls } = this.#meter;
    const submits = this.#meter.of(methods.submitCommit.id);
    const cpu = process.cpuUsage();
    const { accepted, refused, seconds } = await this.#commit(committers, measureMs);
    const { user, system } = process.cpuUsage(cpu);
    await this.#together();
    return {
      value: accepted / seconds,
      notes: {
        'submits per accepted change':
          (this.#meter.of(methods.submitCommit.id) - submits) / accepted,
        'calls of all clients per accepted change': (this.#meter.calls - calls) / accepted,
        'refused after six lost epochs, per accepted change': refused / accepted,
        clientCpuUs: (user + system) / accepted,
      },
    };
  }

  async #commit(committers: number, ms: number) {
    let [accepted, refused] = [0, 0];
    const startMs = performance.now();
    await Promise.all(
      this.#clients.slice(0, committers).map(async (client) => {
        while (performance.now() < startMs + ms) {
          try {
            await client.rotateKeys(this.#id);
            accepted += 1;
          } catch (error) {
            if (!hasReason(error, 'EPOCH_CONFLICT')) throw error;
            refused += 1;
          }
        }
      }),
    );
    return { accepted, refused, seconds: (performance.now() - startMs) / 1_000 };
  }

  /** Until all are in one epoch. */
  async #together(): Promise<void> {
    const endMs = performance.now() + patienceMs;
    for (;;) {
      const epochs = await Promise.all(this.#clients.map((client) => this.#epochOf(client)));
      if (new Set(epochs).size === 1 && epochs[0] !== undefined) return;
      if (performance.now() > endMs) throw new Error(`bench: epochs ${epochs.join(' ')}`);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  async #epochOf(client: QpcClient): Promise<number | undefined> {
    if (!client.conversations().some(({ id }) => sameBytes(id, this.#id))) return undefined;
    return (await client.groupState(this.#id))?.epoch;
  }
}

answerParent(async (job: ConflictJob): Promise<ConflictRounds> => {
  const members = await Members.gather(job);
  console.log(`  ${job.members} members are in after ${Math.round(process.uptime())} s`);
  const rounds = new Map(job.committers.map((count) => [count, [] as Round[]]));
  for (let round = 0; round < job.rounds; round += 1) {
    for (const [count, taken] of rounds) {
      const one = await members.measure(count, job.measureMs);
      // As they come: a busy machine may not let all of them come.
      console.log(
        `  ${count} at once: ${one.value.toFixed(2)} changes/s ${JSON.stringify(one.notes)}`,
      );
      taken.push(one);
    }
  }
  return rounds;
});
