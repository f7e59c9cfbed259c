/**
 * What the disk still holds after SIGKILL, a full disk and a failed write. The store runs in a
 * process of its own (this file, started with a task), which tells each call and each answer.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  addDevice,
  bigLimits,
  hex,
  newRow,
  storeFixture,
  type StoreFixture,
} from './contract/fixture.ts';
import { tell } from './contract/tell.ts';
import { openNodeStore } from './open.ts';
import type { NodeStore } from './store.ts';

const [, , task, path = '', keyHex = '', ridHex = ''] = process.argv;
if (task === 'write') await writeForEver();
else suite();

/** Enqueues with 16 senders until it is killed or the store fails. Lines: `call mid`, `done mid`. */
async function writeForEver(): Promise<void> {
  const key = new Uint8Array(Buffer.from(keyHex, 'hex'));
  const rid = new Uint8Array(Buffer.from(ridHex, 'hex'));
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const store = await openNodeStore({ path, key, limits: bigLimits, runtime });
  const send = async (): Promise<never> => {
    for (;;) {
      const row = newRow(rid, { payload: systemRandom.bytes(1_024) });
      tell(`call ${hex(row.mid)}`);
      await store.enqueue(row);
      tell(`done ${hex(row.mid)}`);
    }
  };
  const reasons = await Promise.allSettled(Array.from({ length: 16 }, send));
  const names = reasons.map((one) => (one.status === 'rejected' ? nameOf(one.reason) : '?'));
  tell(`errors ${[...new Set(names)].join(' ')}`);
  tell(`failed ${(await store.failed).name}`);
  await store.enqueue(newRow(rid)).catch((error: unknown) => tell(`after ${nameOf(error)}`));
  process.kill(process.pid, 'SIGKILL');
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : String(error);
}

type Writer = ChildProcessByStdio<null, Readable, null>;

interface WriterRun {
  readonly called: Set<string>;
  readonly done: Set<string>;
  readonly lines: string[];
}

/** Reads a writer's lines to its end; kills it after `killAfter` answers. */
async function follow(writer: Writer, killAfter: number): Promise<WriterRun> {
  const run: WriterRun = { called: new Set(), done: new Set(), lines: [] };
  const exited = once(writer, 'exit');
  for await (const line of createInterface({ input: writer.stdout })) {
    const [verb = '', mid = ''] = line.split(' ');
    if (verb === 'call') run.called.add(mid);
    else if (verb === 'done') run.done.add(mid);
    else run.lines.push(line);
    if (run.done.size >= killAfter) writer.kill('SIGKILL');
  }
  await exited;
  return run;
}

function writerArguments(fixture: StoreFixture, rid: Uint8Array): string[] {
  return [import.meta.filename, 'write', fixture.path, hex(fixture.key), hex(rid)];
}

/** Every row of an inbox, which must be gapless from 1. */
async function allMids(store: NodeStore, rid: Uint8Array): Promise<string[]> {
  const mids: string[] = [];
  for (;;) {
    const { rows, head, gap } = await store.fetch(rid, mids.length, 256, 2 ** 20);
    assert.equal(gap, undefined);
    for (const { seq, mid } of rows) assert.equal(seq, mids.push(hex(mid)));
    if (rows.length === 0) {
      assert.equal(head, mids.length);
      return mids;
    }
  }
}

function suite(): void {
  describe('crashes', () => {
    test('every acknowledged row survives kill -9, once and in place', async () => {
      const { fixture, store } = await storeFixture(openNodeStore, bigLimits);
      await using _ = fixture;
      const rid = await addDevice(store, 'alice');
      await store[Symbol.asyncDispose]();
      const done = new Set<string>();
      const called = new Set<string>();
      let openCalls = 0;
      for (let kill = 0; kill < 8; kill += 1) {
        const writer = spawn(process.execPath, writerArguments(fixture, rid), {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        const killAfter = 1 + (systemRandom.bytes(2)[0] ?? 0) * 4;
        const run = await follow(writer, killAfter);
        assert.equal(writer.signalCode, 'SIGKILL');
        assert.ok(run.done.size >= killAfter);
        openCalls += run.called.size - run.done.size;
        for (const mid of run.called) called.add(mid);
        for (const mid of run.done) done.add(mid);
        const again = await fixture.open(openNodeStore, bigLimits);
        const mids = await allMids(again, rid);
        assert.equal(new Set(mids).size, mids.length, 'no row twice');
        assert.deepEqual(
          [...done].filter((mid) => !mids.includes(mid)),
          [],
          'no acknowledged row is missing',
        );
        assert.ok(mids.every((mid) => called.has(mid)));
        await again[Symbol.asyncDispose]();
      }
      assert.ok(openCalls > 0, 'the kills fell into open calls');
    });

    test(
      'a failed write ends the store for good, and loses nothing that was acknowledged',
      { skip: process.platform === 'win32' && 'needs ulimit' },
      async () => {
        const { fixture, store } = await storeFixture(openNodeStore, bigLimits);
        await using _ = fixture;
        const rid = await addDevice(store, 'alice');
        await store[Symbol.asyncDispose]();
        // No file of the process may grow beyond 3 000 blocks of 512 bytes: write() answers EFBIG.
        const command = ['ulimit -f 3000 && exec "$0" "$@"', process.execPath];
        const writer = spawn('sh', ['-c', ...command, ...writerArguments(fixture, rid)], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        const { done, lines } = await follow(writer, Infinity);
        assert.deepEqual(lines, [
          'errors StoreFailedError',
          'failed StoreFailedError',
          'after StoreFailedError',
        ]);
        assert.ok(done.size > 0);
        const again = await fixture.open(openNodeStore, bigLimits);
        const mids = new Set(await allMids(again, rid));
        assert.deepEqual(
          [...done].filter((mid) => !mids.has(mid)),
          [],
        );
      },
    );
  });

  describe('a full disk', () => {
    test('refuses what does not fit with STORE_FULL, and goes on once there is room', async () => {
      const limits = { ...bigLimits, databaseBytes: 400 * 4096 };
      const { fixture, store } = await storeFixture(openNodeStore, limits);
      await using _ = fixture;
      const rid = await addDevice(store, 'alice');
      const payload = new Uint8Array(4_000);
      const rows = Array.from({ length: 600 }, () => newRow(rid, { payload }));
      const settled = await Promise.allSettled(rows.map((row) => store.enqueue(row)));
      const stored = settled.filter(({ status }) => status === 'fulfilled').length;
      assert.ok(stored > 100 && stored < 400, `${stored} stored`);
      for (const one of settled) {
        if (one.status === 'rejected') assert.equal(reasonOf(one.reason), 'STORE_FULL');
      }
      const full = { name: 'UnavailableError', reason: 'STORE_FULL' };
      await assert.rejects(store.enqueue(newRow(rid, { payload: new Uint8Array(9_000) })), full);
      assert.equal((await store.fetch(rid, 0, 1, 1)).head, stored, 'reads go on');
      await store.ack(rid, stored);
      assert.equal((await store.enqueue(newRow(rid, { payload }))).outcome, 'stored');
      await store[Symbol.asyncDispose]();
      const again = await fixture.open(openNodeStore, limits);
      assert.equal((await again.fetch(rid, stored, 9, 9)).rows.length, 1);
    });
  });
}

function reasonOf(error: unknown): unknown {
  return error instanceof Error && 'reason' in error ? error.reason : error;
}
