/**
 * One measurement of the channel bench, in a process of its own: messages for a whole group into a
 * fresh store, and every member's ack of them.
 */
import { join } from 'node:path';
import { createNodeStore, openNodeStore, parseConfig, type NodeStore } from '@quicprochat/nodes';
import { TestGroup } from '@quicprochat/nodes/store/channel-group';
import { registerAccount } from '@quicprochat/nodes/store/log-batch';
import { deviceIdOf, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { answerParent } from './peer-process.ts';
import type { Round } from './measure.ts';

export interface ChannelJob {
  readonly how: 'direct' | 'channel';
  readonly members: number;
  /** Messages of the measurement. */
  readonly messages: number;
  readonly directory: string;
}

const payloadBytes = 1024;
const ttlMs = 3_600_000;
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const config =
  'domain = "red.example"\nlisten = "127.0.0.1:5001"\ndatabase = "x"\ndatabase_key_file = "y"\n';

async function addDevice(store: NodeStore): Promise<Uint8Array> {
  const rid = systemRandom.bytes(32);
  await registerAccount(store, {
    userId: `user-${deviceIdOf(rid)}@red.example`,
    setupId: 1,
    opaqueRecord: systemRandom.bytes(192),
    manifest: { manifest: systemRandom.bytes(100), signature: systemRandom.bytes(64) },
    manifestSeq: 0,
    device: { deviceId: deviceIdOf(rid), identityPub: rid, transportSpki: systemRandom.bytes(32) },
    sessionExpiresMs: systemClock.now() + ttlMs,
  });
  return rid;
}

/** Messages/s, from the first one sent to the last ack of the last member. */
async function measure({ how, members, messages, directory }: ChannelJob): Promise<Round> {
  const path = join(directory, 'node.db');
  const key = systemRandom.bytes(32);
  const options = { path, key, limits: parseConfig(config, 'bench').store, runtime };
  await createNodeStore(options);
  await using store = await openNodeStore(options);
  const rids: Uint8Array[] = [];
  while (rids.length < members) rids.push(await addDevice(store));
  const group = new TestGroup();
  const [creator] = rids;
  if (creator === undefined) throw new Error('bench: no members');
  await store.createChannel(creator, group.asNew());
  const add = rids.slice(1).map((rid) => ({ rid, token: new Uint8Array(0) }));
  await store.applyChannelUpdate('red.example', group.advance({ add }));

  const targets = rids.map((rid) => ({ payload: 0, rid, token: new Uint8Array(0) }));
  const payloads = Array.from({ length: messages }, () => systemRandom.bytes(payloadBytes));
  const posts = payloads.map((payload) => group.post({ payload }));
  const beganMs = systemClock.monotonic();
  const cpu = process.cpuUsage();
  await Promise.all(
    posts.map(async (post) => {
      if (how === 'channel') return store.postToChannel(post);
      const { mid, payload, kind } = post;
      return store.enqueueBatch({ payloads: [{ mid, payload }], targets, kind, ttlMs });
    }),
  );
  const acceptedMs = systemClock.monotonic() - beganMs;
  await Promise.all(
    rids.map((rid) =>
      how === 'channel' ? store.ackChannel(rid, group.cid, messages) : store.ack(rid, messages),
    ),
  );
  const wholeMs = systemClock.monotonic() - beganMs;
  const { user, system } = process.cpuUsage(cpu);
  return {
    value: (messages * 1_000) / wholeMs,
    notes: {
      acceptedPerSecond: (messages * 1_000) / acceptedMs,
      cpuUs: (user + system) / messages,
    },
  };
}

answerParent<ChannelJob>(measure);
