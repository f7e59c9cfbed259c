/**
 * Question: how many durable Enqueues/s does the group commit give at 1, 16 and 64 clients, over one
 * commit for each message? Schema, pragmas (WAL, synchronous=FULL) and encryption are the same on
 * both sides: the baseline is the same store core, driven one row after the other. The second row
 * asks the same of a whole node over QUIC.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createNodeStore,
  openNodeStore,
  openNodeStoreInThread,
  parseConfig,
  type NodeStore,
} from '@quicprochat/nodes';
import {
  call,
  deviceIdOf,
  methods,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { NodeProcess } from '../cluster/node-process.ts';
import { BenchDevice } from './devices.ts';
import { interleave, perSecond, type BenchReport, type Comparison } from './measure.ts';

const rounds = 3;
const clientCounts = [1, 16, 64];
const payloadBytes = 1024;
const measureMs = 2_000;
const recipients = 16;
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
/** Only what is measured is lifted: rates and the size of an inbox. */
const config =
  '[limits]\ninbox_rows = 100000000\ninbox_mib = 100000\n[rates.send]\nper_second = 1000000\nburst = 1000000\n[rates.auth]\nper_second = 1000\nburst = 1000\n';

async function openStore(
  directory: string,
  name: string,
  isInThread: boolean,
): Promise<{ store: NodeStore; rids: Uint8Array[] }> {
  const path = join(directory, `${name}.db`);
  const key = systemRandom.bytes(32);
  const text = `domain = "red.example"\nlisten = "127.0.0.1:5001"\ndatabase = "x"\ndatabase_key_file = "y"\n${config}`;
  const limits = parseConfig(text, 'bench').store;
  await createNodeStore({ path, key, runtime });
  const options = { path, key, limits, runtime };
  const store = isInThread ? openNodeStoreInThread(options) : await openNodeStore(options);
  const rids = Array.from({ length: recipients }, () => systemRandom.bytes(32));
  for (const rid of rids) {
    await store.createAccount({
      userId: `${deviceIdOf(rid)}@red.example`,
      setupId: 1,
      opaqueRecord: systemRandom.bytes(192),
      manifest: { manifest: systemRandom.bytes(100), signature: systemRandom.bytes(64) },
      manifestSeq: 0,
      device: {
        deviceId: deviceIdOf(rid),
        identityPub: rid,
        transportSpki: systemRandom.bytes(32),
      },
      sessionExpiresMs: systemClock.now() + 3_600_000,
    });
  }
  return { store, rids };
}

function row(rids: readonly Uint8Array[], loop: number): Parameters<NodeStore['enqueue']>[0] {
  return {
    rid: rids[loop % rids.length] ?? new Uint8Array(32),
    kind: 1,
    mid: systemRandom.bytes(16),
    payload: systemRandom.bytes(payloadBytes),
    ttlMs: 3_600_000,
  };
}

export async function run(): Promise<BenchReport> {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-bench-'));
  const node = await NodeProcess.init('red.example', join(directory, 'red'), config);
  try {
    const single = await openStore(directory, 'single', true);
    const grouped = await openStore(directory, 'grouped', false);
    await using _single = single.store;
    await using _grouped = grouped.store;
    await node.start();
    const devices = await Promise.all(
      Array.from({ length: 4 }, (_, index) => BenchDevice.register(node, `user${index}`)),
    );
    const connections = await Promise.all(
      Array.from({ length: Math.max(...clientCounts) / devices.length }, () =>
        devices.map((device) => device.dial()),
      ).flat(),
    );

    const oneByOne = (): Promise<number> =>
      perSecond(1, measureMs, () => single.store.enqueue(row(single.rids, 0)));
    const rows: Comparison[] = [];
    for (const clients of clientCounts) {
      const numbers = await interleave(rounds, oneByOne, () =>
        perSecond(clients, measureMs, (loop) => grouped.store.enqueue(row(grouped.rids, loop))),
      );
      rows.push({ name: `store, ${clients} callers`, unit: 'rows/s', ...numbers });
    }
    for (const clients of clientCounts) {
      const numbers = await interleave(rounds, oneByOne, () =>
        perSecond(clients, measureMs, async (loop) => {
          const connection = connections[loop];
          const to = devices[(loop + 1) % devices.length];
          if (connection === undefined || to === undefined) throw new Error('bench: no connection');
          const { rid, mid, payload } = row([to.rid], loop);
          await call(connection, methods.enqueue, { rid, mid, payload, domain: node.domain });
        }),
      );
      rows.push({ name: `node over QUIC, ${clients} clients`, unit: 'rows/s', ...numbers });
    }
    return {
      question: `Enqueue: durable rows/s (${payloadBytes} B, SQLCipher, synchronous=FULL)`,
      baseline: 'one commit for each message, same store core, no transport',
      candidate: 'group commit in the store thread; then a whole node process',
      rows,
    };
  } finally {
    await node.kill();
    rmSync(directory, { recursive: true, force: true });
  }
}
