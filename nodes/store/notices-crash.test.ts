/**
 * SIGKILL around the end of rows: after it each row of an outbox still waits, or is a dead letter
 * whose notice is in the sender's inbox. Never both, never neither. The store runs in a process of
 * its own (this file, started with a task).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { RowKind, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { fromBinary, NoticeSchema } from '@quicprochat/proto/messages';
import { addDevice, bigLimits, hex, newRow, storeFixture } from './contract/fixture.ts';
import { tell } from './contract/tell.ts';
import { openNodeStore } from './open.ts';
import type { NodeStore } from './store.ts';

const blue = 'blue.example';
const kills = 5;
const [, , task, path = '', keyHex = '', senderHex = ''] = process.argv;
if (task === 'write') await writeForEver();
else suite();

/** Four senders, and a peer that refuses half of what it gets while the other half expires. */
async function writeForEver(): Promise<void> {
  const key = new Uint8Array(Buffer.from(keyHex, 'hex'));
  const sender = new Uint8Array(Buffer.from(senderHex, 'hex'));
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const store = await openNodeStore({ path, key, limits: bigLimits, runtime });
  const send = async (): Promise<never> => {
    for (let count = 0; ; count += 1) {
      const ttl = count % 2 === 0 ? {} : { ttlMs: 1 };
      const row = newRow(systemRandom.bytes(32), { sender, ...ttl });
      await store.enqueueRemote(blue, row);
      tell(`sent ${hex(row.mid)}`);
    }
  };
  const refuse = async (): Promise<never> => {
    for (;;) {
      const { streamId, acked } = await store.outboundStream(blue, 'bulk');
      const rows = await store.readOutbox(blue, 'bulk', acked, 2, 99_999);
      const last = rows.at(-1);
      if (last !== undefined) {
        const rejects = rows.flatMap(({ seq, rids }) =>
          rids.map((rid) => ({ seq, rid, reason: 'UNKNOWN_DEVICE', temporary: false })),
        );
        await store.settleOutbox(blue, 'bulk', streamId, last.seq, rejects);
      }
      await store.requeueDue();
    }
  };
  await Promise.all([send(), send(), send(), send(), refuse()]);
}

function suite(): void {
  test('kill -9: a row is gone if and only if its sender is told', async () => {
    const { fixture, store } = await storeFixture(openNodeStore, bigLimits);
    await using _ = fixture;
    const sender = await addDevice(store, 'alice');
    await store[Symbol.asyncDispose]();
    const sent = new Set<string>();
    let told = 0;
    for (let kill = 0; kill < kills; kill += 1) {
      const child = spawn(
        process.execPath,
        [import.meta.filename, 'write', fixture.path, hex(fixture.key), hex(sender)],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      const exited = once(child, 'exit');
      const until = sent.size + 1 + (systemRandom.bytes(1)[0] ?? 0) / 2;
      for await (const line of createInterface({ input: child.stdout })) {
        sent.add(line.slice('sent '.length));
        if (sent.size >= until) child.kill('SIGKILL');
      }
      await exited;
      const again = await fixture.open(openNodeStore, bigLimits);
      const waiting = await waitingMids(again);
      const dead = (await again.deadLetters(0, 10_000)).map(({ mid }) => hex(mid)).toSorted();
      const noticed = (await noticedMids(again, sender)).toSorted();
      assert.deepEqual(noticed, dead, 'one notice for each dead letter');
      assert.deepEqual(
        waiting.filter((mid) => dead.includes(mid)),
        [],
      );
      const known = new Set([...waiting, ...dead]);
      assert.deepEqual(
        [...sent].filter((mid) => !known.has(mid)),
        [],
        'no OK was lost',
      );
      told = dead.length;
      await again[Symbol.asyncDispose]();
    }
    assert.ok(told > 0, 'rows did end');
  });
}

async function waitingMids(store: NodeStore): Promise<string[]> {
  const mids: string[] = [];
  for (let after = 0; ;) {
    const rows = await store.readOutbox(blue, 'bulk', after, 256, 2 ** 20);
    if (rows.length === 0) return mids;
    mids.push(...rows.map(({ mid }) => hex(mid)));
    after = rows.at(-1)?.seq ?? after;
  }
}

async function noticedMids(store: NodeStore, rid: Uint8Array): Promise<string[]> {
  const mids: string[] = [];
  for (let after = 0; ;) {
    const { rows, gap } = await store.fetch(rid, after, 256, 2 ** 20);
    assert.equal(gap, undefined);
    if (rows.length === 0) return mids;
    for (const { kind, payload } of rows) {
      assert.equal(kind, RowKind.Notice);
      mids.push(...fromBinary(NoticeSchema, payload).mids.map(hex));
    }
    after = rows.at(-1)?.seq ?? after;
  }
}
