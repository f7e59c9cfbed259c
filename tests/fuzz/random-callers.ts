/**
 * The attackers of calls.ts, in a process of their own: a stranger, a device and a federation peer call every row
 * that is open to them with what random-message.ts makes up, for so long, and answer with what they were answered.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  call,
  methods,
  QpcError,
  systemRandom,
  TransportError,
  type CallerClass,
  type Method,
} from '@quicprochat/proto';
import { loadIdentity, makeIdentity, type Connection } from '@quicprochat/proto/transport';
import { dialAs, dialDevice, type DeviceKeys } from '../bench/devices.ts';
import { answerParent } from '../bench/peer-process.ts';
import { Dice } from '../cluster/dice.ts';
import { RandomMessages, type Corpus } from './random-message.ts';

export interface AttackJob {
  readonly seed: number;
  readonly seconds: number;
  readonly corpus: Corpus;
  readonly device: DeviceKeys;
  readonly peer: {
    readonly domain: string;
    readonly certificatePem: string;
    readonly privateKeyPem: string;
  };
}

/** How often each answer came: caller, method, reason. */
export type Answers = readonly (readonly [answer: string, count: number])[];

/** Calls in flight of each kind of caller. */
const inFlight = 16;
const deadlineMs = 5_000;
/** These end the account or the session of who asks. */
const leftOut = new Set(['DeleteAccount', 'RevokeDevice', 'Logout']);
const rows: readonly Method[] = Object.values(methods);

async function attackAs(
  caller: CallerClass,
  dial: () => Promise<Connection>,
  dice: Dice,
  { seconds, corpus }: AttackJob,
  counts: Map<string, number>,
): Promise<void> {
  const random = new RandomMessages(dice, corpus);
  const endMs = performance.now() + seconds * 1_000;
  const mine = rows.filter(({ callers, name }) => callers.includes(caller) && !leftOut.has(name));
  let dialing: Promise<Connection> | undefined;
  const one = async (method: Method): Promise<string> => {
    const request = random.requestOf(method);
    const used = (dialing ??= dial());
    try {
      await call(await used, method, request, { deadlineMs });
      return 'OK';
    } catch (error) {
      if (!(error instanceof QpcError)) return 'does not encode';
      if (!(error instanceof TransportError)) return error.reason;
      if (error.failure !== 'timeout' && dialing === used) dialing = undefined;
      await sleep(50);
      return `no answer (${error.failure})`;
    }
  };
  const work = async (): Promise<void> => {
    while (performance.now() < endMs) {
      const method = mine[dice.int(mine.length)];
      if (method === undefined) return;
      const key = `${caller} ${method.name} ${await one(method)}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, work));
}

answerParent<AttackJob>(async (job): Promise<Answers> => {
  const dice = new Dice(job.seed);
  const counts = new Map<string, number>();
  const { device, peer } = job;
  const identity = loadIdentity(peer.certificatePem, peer.privateKeyPem);
  await Promise.all([
    attackAs(
      'anyone',
      async () => dialAs(device.nodeAddress, await makeIdentity(systemRandom)),
      dice.branch(0),
      job,
      counts,
    ),
    attackAs('device', () => dialDevice(device), dice.branch(1), job, counts),
    attackAs(
      'peer',
      async () => {
        const connection = await dialAs(device.nodeAddress, identity);
        const versions = { versionMin: 1, versionMax: 1 };
        await call(connection, methods.fedHello, { domain: peer.domain, ...versions });
        return connection;
      },
      dice.branch(2),
      job,
      counts,
    ),
  ]);
  return [...counts];
});
