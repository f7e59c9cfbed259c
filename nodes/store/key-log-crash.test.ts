/**
 * What the disk holds of key log and accounts after SIGKILL in the middle of commits, on a full disk
 * and with broken pages. The log runs in a process of its own (this file, started with a task),
 * which tells each head after its commit and each update that was answered.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  bigLimits,
  hex,
  newAccount,
  newDevice,
  newManifest,
  storeFixture,
  type StoreFixture,
} from './contract/fixture.ts';
import { commitEffects, labelOf, logBatch, registerAccount } from './contract/log-batch.ts';
import { audit, openLog, writeEffect } from './contract/real-log.ts';
import { tell } from './contract/tell.ts';
import { openDatabase, pageBytes } from './database.ts';
import { openNodeStore, openNodeStoreInThread } from './open.ts';
import type { NodeStore } from './store.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const [, , task, path = '', keyHex = '', run = ''] = process.argv;
if (task === 'update') await updateForEver();
else suite();

/**
 * Accounts come, get devices, lose them and are closed, eight users at a time, until the process is
 * killed. Lines: `head size root`, `call user seq`, `done user seq`, `closed user`.
 */
async function updateForEver(): Promise<void> {
  const key = new Uint8Array(Buffer.from(keyHex, 'hex'));
  const store = await openNodeStore({ path, key, limits: bigLimits, runtime });
  const log = await openLog(store, runtime);
  log.onHead(({ size, root }) => tell(`head ${size} ${hex(root)}`));
  let count = 0;
  const liveAndDie = async (): Promise<never> => {
    for (;;) {
      count += 1;
      const userId = `user-${run}-${count}@red.example`;
      const account = newAccount(userId);
      tell(`call ${userId} 0`);
      await writeEffect(log, { kind: 'register', account });
      tell(`done ${userId} 0`);
      let dropped: readonly Uint8Array[] = [];
      for (let manifestSeq = 1; manifestSeq < 4; manifestSeq += 1) {
        const device = newDevice(`phone-${manifestSeq}`);
        const added = { device, sessionExpiresMs: 1 };
        const manifest = newManifest();
        tell(`call ${userId} ${manifestSeq}`);
        await writeEffect(log, { kind: 'manifest', userId, manifest, manifestSeq, added, dropped });
        tell(`done ${userId} ${manifestSeq}`);
        dropped = [device.identityPub];
      }
      if (count % 2 === 0) continue;
      tell(`call ${userId} 4`);
      await writeEffect(log, { kind: 'close', userId, manifest: newManifest(), manifestSeq: 4 });
      tell(`done ${userId} 4`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, liveAndDie));
}

interface Told {
  /** Root of each size that was published. */
  readonly heads: Map<number, string>;
  /** Newest version that was asked for, and that was answered, of each user. */
  readonly called: Map<string, number>;
  readonly done: Map<string, number>;
}

/** Runs the task on the store until it told of `heads` more heads, then kills it. */
async function runAndKill(fixture: StoreFixture, told: Told, kill: number, heads: number) {
  const args = [import.meta.filename, 'update', fixture.path, hex(fixture.key), String(kill)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const enough = told.heads.size + heads;
  for await (const line of createInterface({ input: child.stdout })) {
    const [verb, name = '', value = ''] = line.split(' ');
    if (verb === 'call') told.called.set(name, Number(value));
    else if (verb === 'done') told.done.set(name, Number(value));
    else if (verb === 'head') told.heads.set(Number(name), value);
    else assert.fail(line);
    if (told.heads.size >= enough) child.kill('SIGKILL');
  }
  await exited;
  assert.equal(child.signalCode, 'SIGKILL');
}

/** Everything of the store against what was told, and against itself. */
async function check(store: NodeStore, told: Told): Promise<void> {
  const { keyLog } = store;
  const size = (await keyLog.newestHead())?.size ?? 0;
  const published = Math.max(0, ...told.heads.keys());
  assert.ok(size === published || size === published + 1, `${size} after ${published}`);
  assert.equal((await keyLog.entries(0, size)).length, size);
  await assert.rejects(keyLog.entries(0, size + 1), { reason: 'STORE_CHANGED' });
  for (const [at, root] of told.heads)
    assert.equal(hex((await keyLog.head(at))?.root ?? assert.fail()), root);
  // A second head of a size that was seen is impossible, whatever it says.
  const second = logBatch(size - 1, []);
  await assert.rejects(keyLog.commit(second), { reason: 'SEQ_CONFLICT' });
  for (const [userId, called] of told.called) {
    const greatest = (await keyLog.positions(labelOf(userId))).length - 1;
    assert.ok(
      greatest === called || greatest === called - 1,
      `${userId}: ${greatest} of ${called}`,
    );
    assert.ok(greatest >= (told.done.get(userId) ?? -1), `${userId}: an answered version is gone`);
    const account = await store.account(userId);
    const devices = await store.devices(userId);
    if (greatest === -1 || greatest === 4) {
      assert.equal(account, undefined, userId);
      assert.deepEqual(devices, []);
      continue;
    }
    // Account rows and the entry are one transaction.
    assert.equal(account?.manifestSeq, greatest, userId);
    assert.equal(devices.length, greatest === 0 ? 1 : 2);
    const [newest] = await keyLog.versions(labelOf(userId), [greatest]);
    assert.deepEqual(newest?.value, account.manifest.manifest);
  }
}

function suite(): void {
  describe('a key log that is killed', () => {
    test('holds a published head or the one after it, and accounts exactly as the log says', async () => {
      const { fixture, store } = await storeFixture(openNodeStore, bigLimits);
      await using _ = fixture;
      await store[Symbol.asyncDispose]();
      const told: Told = { heads: new Map(), called: new Map(), done: new Map() };
      for (let kill = 0; kill < 4; kill += 1) {
        await runAndKill(fixture, told, kill, 1 + ((systemRandom.bytes(1)[0] ?? 0) % 24));
        const again = await fixture.open(openNodeStore, bigLimits);
        await check(again, told);
        const log = await openLog(again, runtime);
        await audit(log, systemClock.now());
        const { size, root } = log.head ?? assert.fail();
        told.heads.set(size, hex(root));
        await log[Symbol.asyncDispose]();
        await again[Symbol.asyncDispose]();
      }
    });
  });

  describe('a key log on a full disk', () => {
    test('refuses an entry as a whole, and goes on when there is room', async () => {
      const limits = { ...bigLimits, databaseBytes: 200 * pageBytes };
      const { fixture, store } = await storeFixture(openNodeStore, limits);
      await using _ = fixture;
      await registerAccount(store, newAccount('alice@red.example'));
      // Beyond what is left, and below the reserve that refuses before any write.
      const large = logBatch(1, [{ kind: 'register', account: newAccount('bob@red.example') }]);
      const tiles = Array.from({ length: 300 }, (_tile, i) => ({
        id: 2 + i,
        bytes: new Uint8Array(4_000),
      }));
      const full = { name: 'UnavailableError', reason: 'STORE_FULL' };
      await assert.rejects(store.keyLog.commit({ ...large, tiles }), full);
      assert.equal((await store.keyLog.newestHead())?.size, 1);
      assert.equal(await store.account('bob@red.example'), undefined);
      assert.deepEqual(await store.keyLog.positions(labelOf('bob@red.example')), []);
      await assert.rejects(store.keyLog.tiles([2]), { reason: 'STORE_CHANGED' });
      await store.keyLog.commit(large);
      assert.equal((await store.account('bob@red.example'))?.manifestSeq, 0);
    });
  });

  describe('a broken file', () => {
    for (const [name, open] of [
      ['thread', openNodeStore],
      ['calling thread', openNodeStoreInThread],
    ] as const) {
      test(`ends the store with a typed error, read by a connection of the ${name}`, async () => {
        const { fixture, store } = await storeFixture(open, bigLimits);
        await using _ = fixture;
        for (let i = 0; i < 40; i += 1) {
          await commitEffects(store, { kind: 'register', account: newAccount(`user-${i}`) });
        }
        await store[Symbol.asyncDispose]();
        breakTiles(fixture);
        const broken = await fixture.open(open, bigLimits);
        const failed = { name: 'StoreFailedError' };
        assert.equal((await broken.keyLog.newestHead())?.size, 40, 'other pages are whole');
        await assert.rejects(broken.keyLog.tiles([7]), failed);
        assert.equal((await broken.failed).name, 'StoreFailedError');
        // Nothing goes on: neither reads nor writes.
        await assert.rejects(broken.keyLog.newestHead(), failed);
        await assert.rejects(broken.account('user-1'), failed);
        await assert.rejects(broken.keyLog.commit(logBatch(40, [])), failed);
      });
    }
  });
}

/** Flips bits of the page in which the prefix tiles begin. */
function breakTiles(fixture: StoreFixture): void {
  const db = openDatabase(fixture.path, fixture.key, {});
  const page = db
    .prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'kt_tile'")
    .pluck()
    .get();
  db.close();
  assert.ok(typeof page === 'number');
  const file = openSync(fixture.path, 'r+');
  const at = (page - 1) * pageBytes + 1_000;
  const bytes = new Uint8Array(4);
  readSync(file, bytes, 0, 4, at);
  writeSync(
    file,
    bytes.map((byte) => byte ^ 1),
    0,
    4,
    at,
  );
  closeSync(file);
}
