/** Generations of a node's keys: what each step of a rotation gives, refuses, and survives. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { hasReason, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  createNodeKeys,
  finishRotation,
  loadNodeKeys,
  prepareRotation,
  rotationMs,
} from './node-keys.ts';
import { bigLimits } from './store/contract/fixture.ts';
import { createNodeStore, openNodeStoreInThread } from './store/open.ts';
import type { NodeStore } from './store/store.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const nowMs = 1_800_000_000_000;

async function withStore(work: (store: NodeStore) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-keys-'));
  const key = new Uint8Array(32).fill(1);
  const path = join(directory, 'node.db');
  try {
    await createNodeStore({ path, key, runtime });
    await using store = openNodeStoreInThread({ path, key, limits: bigLimits, runtime });
    await work(store);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const refused = (error: unknown): boolean => hasReason(error, 'BAD_FIELD');

test('a rotation: both keys in the record, then the new one, which the old one signs for', async () => {
  await withStore(async (store) => {
    const first = await createNodeKeys(store, systemRandom);
    assert.deepEqual([first.generation, first.record.length, first.former.length], [1, 1, 0]);
    await assert.rejects(finishRotation(store, nowMs), refused, 'none is prepared');

    const both = await prepareRotation(store, systemRandom, nowMs);
    const { next } = both;
    assert.ok(next !== undefined);
    assert.deepEqual(both.current.identity.spkiSha256, first.current.identity.spkiSha256);
    assert.deepEqual(
      both.record.map(({ spkiSha256, fromMs, toMs }) => [spkiSha256, fromMs, toMs]),
      [
        [first.current.identity.spkiSha256, 0, 0],
        [next.identity.spkiSha256, nowMs, 0],
      ],
    );
    assert.deepEqual(await loadNodeKeys(store), both);
    await assert.rejects(prepareRotation(store, systemRandom, nowMs), refused, 'one at a time');
    await assert.rejects(finishRotation(store, nowMs + rotationMs - 1), refused, 'seven days');

    const second = await finishRotation(store, nowMs + rotationMs);
    assert.deepEqual(second.current.identity.spkiSha256, next.identity.spkiSha256);
    assert.deepEqual(second.current.signing.publicKey, next.signing.publicKey);
    assert.equal(second.record.length, 1);
    assert.deepEqual(
      second.former.map(({ publicKey }) => publicKey),
      [first.current.signing.publicKey],
    );
    assert.deepEqual(second.formerSignPubs, [first.current.signing.publicKey]);
    const third = await prepareRotation(store, systemRandom, nowMs + 2 * rotationMs);
    assert.deepEqual([third.generation, third.record.length, third.former.length], [2, 2, 1]);
    const last = await finishRotation(store, nowMs + 3 * rotationMs);
    assert.equal(last.former.length, 1);
    // What any of them certified is read for years.
    assert.deepEqual(
      last.formerSignPubs,
      [second, first].map(({ current }) => current.signing.publicKey),
    );
  });
});

test('in need a rotation ends at once, and a crash between its steps loses nothing', async () => {
  await withStore(async (store) => {
    await createNodeKeys(store, systemRandom);
    // As after a crash before the pair was announced.
    const crashing: NodeStore = Object.create(store, {
      putSecret: {
        value: (name: string, value: Uint8Array) =>
          name.endsWith('-prepared')
            ? Promise.reject(new Error('killed'))
            : store.putSecret(name, value),
      },
      secret: { value: (name: string) => store.secret(name) },
    }) as NodeStore;
    await assert.rejects(prepareRotation(crashing, systemRandom, nowMs), /killed/);
    assert.equal((await loadNodeKeys(store)).next, undefined);
    const { next } = await prepareRotation(store, systemRandom, nowMs);
    const finished = await finishRotation(store, nowMs, true);
    assert.deepEqual(finished.current.identity.spkiSha256, next?.identity.spkiSha256);
  });
});
