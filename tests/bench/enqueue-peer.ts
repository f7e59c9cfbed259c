/**
 * One measurement of the Enqueue bench, in a process of its own: rows into a fresh store (by one
 * commit each, or by the store's thread), or the clients of a node that runs elsewhere.
 */
import { join } from 'node:path';
import {
  createNodeStore,
  openNodeStore,
  openNodeStoreInThread,
  parseConfig,
  type NodeStore,
} from '@quicprochat/nodes';
import { registerAccount } from '@quicprochat/nodes/store/log-batch';
import { deviceIdOf, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import type { EngineName } from '@quicprochat/proto/transport';
import { dialDevice, enqueueTo, type DeviceKeys } from './devices.ts';
import { measureBare } from './bare-inserts.ts';
import { measureLoad, type Round } from './measure.ts';
import { answerParent } from './peer-process.ts';

export type EnqueueJob =
  | {
      /** `bare`: no store at all, one table, `clients` rows in each commit. */
      readonly how: 'oneByOne' | 'grouped' | 'bare';
      readonly clients: number;
      readonly directory: string;
    }
  | {
      readonly how: 'node';
      readonly clients: number;
      readonly devices: readonly DeviceKeys[];
      readonly serverPid: number;
      /** What the clients dial by. Default `quic`. */
      readonly engine?: EngineName;
    };

const payloadBytes = 1024;
const ttlMs = 3_600_000;
const warmUpMs = 500;
const measureMs = 1_500;
const recipients = 16;
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
/** A node's limits, with room for inboxes that nobody empties. */
const config =
  'domain = "red.example"\nlisten = "127.0.0.1:5001"\ndatabase = "x"\ndatabase_key_file = "y"\n' +
  '[limits]\ninbox_rows = 100000000\ninbox_mib = 100000\n';

async function addDevice(store: NodeStore): Promise<Uint8Array> {
  const rid = systemRandom.bytes(32);
  const deviceId = deviceIdOf(rid);
  await registerAccount(store, {
    userId: `user-${Buffer.from(rid).toString('hex').slice(0, 16)}@red.example`,
    setupId: 1,
    opaqueRecord: systemRandom.bytes(192),
    manifest: { manifest: systemRandom.bytes(100), signature: systemRandom.bytes(64) },
    manifestSeq: 0,
    device: { deviceId, identityPub: rid, transportSpki: systemRandom.bytes(32) },
    sessionExpiresMs: systemClock.now() + ttlMs,
  });
  return rid;
}

async function measureStore(job: EnqueueJob & { how: 'oneByOne' | 'grouped' }): Promise<Round> {
  const path = join(job.directory, 'node.db');
  const key = systemRandom.bytes(32);
  const options = { path, key, limits: parseConfig(config, 'bench').store, runtime };
  await createNodeStore(options);
  await using store =
    job.how === 'grouped' ? await openNodeStore(options) : openNodeStoreInThread(options);
  const rids: Uint8Array[] = [];
  while (rids.length < recipients) rids.push(await addDevice(store));
  const step = async (loop: number): Promise<void> => {
    const rid = rids[loop % rids.length] ?? new Uint8Array();
    const mid = systemRandom.bytes(16);
    const payload = systemRandom.bytes(payloadBytes);
    const { outcome } = await store.enqueue({ rid, kind: 1, mid, payload, ttlMs });
    if (outcome !== 'stored') throw new Error(`bench: enqueue answered ${outcome}`);
  };
  return await measureLoad({ loops: job.clients, warmUpMs, measureMs, step });
}

/** Every client has a connection of its own; the devices take turns. */
async function measureNode(job: EnqueueJob & { how: 'node' }): Promise<Round> {
  const { clients, devices, serverPid, engine } = job;
  const pairs = await Promise.all(
    Array.from({ length: clients }, async (_, index) => {
      const [from, to] = [devices[index % devices.length], devices[(index + 1) % devices.length]];
      if (from === undefined || to === undefined) throw new Error('bench: no devices');
      return { connection: await dialDevice(from, engine), to };
    }),
  );
  const step = async (loop: number): Promise<void> => {
    const pair = pairs[loop];
    if (pair === undefined) throw new Error('bench: no connection');
    await enqueueTo(pair.connection, pair.to, systemRandom.bytes(16), payloadBytes);
  };
  return measureLoad({ loops: clients, warmUpMs, measureMs, serverPid, step });
}

answerParent((job: EnqueueJob) => {
  if (job.how === 'node') return measureNode(job);
  if (job.how === 'bare') return measureBare(job.directory, job.clients);
  return measureStore({ ...job, how: job.how });
});
