/** Group commit: what shares a transaction, what a failing operation does to the others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InternalError, ResourceExhaustedError, systemRandom } from '@quicprochat/proto';
import { addDevice, bigLimits, newAccount, newRow, StoreFixture } from './contract/fixture.ts';
import { logBatch } from './contract/log-batch.ts';
import { StoreCore } from './core.ts';
import { openNodeStore } from './open.ts';
import type { OperationRequest } from './operations.ts';
import type { EnqueueRow } from './message-store.ts';
import { channelLimits } from './worker-channel.ts';

/** A row that passes every check of ours and breaks a constraint of the table half way. */
const poisonKind = 1_000;

async function coreFixture(): Promise<{
  readonly fixture: StoreFixture;
  readonly core: StoreCore;
  readonly alice: Uint8Array;
}> {
  const fixture = new StoreFixture();
  await fixture.create();
  const core = openCore(fixture);
  const account = newAccount('alice');
  core.run(fixture.nowMs, [
    { name: 'commitEntry', args: [logBatch(0, [{ kind: 'register', account }])] },
  ]);
  return { fixture, core, alice: account.device.identityPub };
}

function openCore(fixture: StoreFixture): StoreCore {
  return new StoreCore({ ...fixture.options(bigLimits), random: systemRandom });
}

function enqueue(row: EnqueueRow): OperationRequest {
  return { name: 'enqueue', args: [row] };
}

test('the operations of a batch share one commit, and reads make none', async () => {
  const { fixture, core, alice } = await coreFixture();
  await using _ = fixture;
  using _core = core;
  const before = core.commits;
  const rows = Array.from({ length: 50 }, () => newRow(alice));
  const { outcomes, woken } = core.run(fixture.nowMs, rows.map(enqueue));
  assert.ok(outcomes.every(({ isOk }) => isOk));
  assert.deepEqual(woken, [Buffer.from(alice).toString('hex')]);
  assert.equal(core.commits, before + 1);
  core.run(fixture.nowMs, [{ name: 'fetch', args: [alice, 0, 10, 1_000] }]);
  assert.equal(core.commits, before + 1);
});

test('a refused operation does not keep the others from their commit', async () => {
  const { fixture, core, alice } = await coreFixture();
  await using _ = fixture;
  using _core = core;
  const before = core.commits;
  const { outcomes } = core.run(fixture.nowMs, [
    enqueue(newRow(alice)),
    enqueue(newRow(systemRandom.bytes(32))),
    enqueue(newRow(alice)),
  ]);
  assert.deepEqual(
    outcomes.map((outcome) => (outcome.isOk ? 'ok' : outcome.error.reason)),
    ['ok', 'UNKNOWN_DEVICE', 'ok'],
  );
  assert.equal(core.commits, before + 1);
});

test('an operation that fails half way takes nobody along and leaves nothing behind', async () => {
  const { fixture, core, alice } = await coreFixture();
  await using _ = fixture;
  const before = core.commits;
  const { outcomes } = core.run(fixture.nowMs, [
    enqueue(newRow(alice)),
    enqueue(newRow(alice, { kind: poisonKind })),
    enqueue(newRow(alice)),
  ]);
  assert.deepEqual(
    outcomes.map((outcome) => (outcome.isOk ? 'ok' : outcome.error.reason)),
    ['ok', 'INTERNAL', 'ok'],
  );
  assert.equal(core.commits, before + 2, 'each of the good ones committed by itself');
  core[Symbol.dispose]();
  using again = openCore(fixture);
  const [fetched] = again.run(fixture.nowMs, [
    { name: 'fetch', args: [alice, 0, 10, 1_000] },
  ]).outcomes;
  assert.partialDeepStrictEqual(fetched, { value: { head: 2, rows: [{ seq: 1 }, { seq: 2 }] } });
});

test('the calls of one turn group in the thread, and errors arrive as they were thrown', async () => {
  const fixture = new StoreFixture();
  await using _ = fixture;
  await fixture.create();
  const store = await fixture.open(openNodeStore, bigLimits);
  const alice = await addDevice(store, 'alice');
  const rows = Array.from({ length: 1_000 }, (_row, index) =>
    newRow(alice, { kind: index === 500 ? poisonKind : 1 }),
  );
  const settled = await Promise.allSettled(rows.map((row) => store.enqueue(row)));
  const failed = settled.filter((one) => one.status === 'rejected');
  assert.equal(failed.length, 1);
  assert.ok(failed[0]?.reason instanceof InternalError);
  assert.equal((await store.fetch(alice, 0, 1, 1)).head, 999);
  await store[Symbol.asyncDispose]();
  using core = openCore(fixture);
  // The account; a commit per batch; the one with the poison fell into halves.
  assert.ok(core.commits <= 1 + 4 + 10, `${core.commits} commits`);
  const quiet = await groupedCommits();
  assert.ok(quiet <= 1 + 4, `${quiet} commits for 1000 rows without poison`);

  async function groupedCommits(): Promise<number> {
    await using calm = new StoreFixture();
    await calm.create();
    const calmStore = await calm.open(openNodeStore, bigLimits);
    const bob = await addDevice(calmStore, 'bob');
    await Promise.all(Array.from({ length: 1_000 }, () => calmStore.enqueue(newRow(bob))));
    await calmStore[Symbol.asyncDispose]();
    using calmCore = openCore(calm);
    return calmCore.commits;
  }
});

test('operations run in the order of their calls', async () => {
  const fixture = new StoreFixture();
  await using _ = fixture;
  await fixture.create();
  const store = await fixture.open(openNodeStore, bigLimits);
  const account = newAccount('alice');
  const { identityPub } = account.device;
  const [, , fetched] = await Promise.all([
    store.keyLog.commit(logBatch(0, [{ kind: 'register', account }])),
    store.enqueue(newRow(identityPub)),
    store.fetch(identityPub, 0, 1, 1),
    store.ack(identityPub, 1),
  ]);
  assert.equal(fetched.head, 1);
  assert.equal((await store.fetch(identityPub, 0, 1, 1)).rows.length, 0);
});

test('what waits for the thread is bounded; beyond it calls are refused at once', async () => {
  const fixture = new StoreFixture();
  await using _ = fixture;
  await fixture.create();
  const store = await fixture.open(openNodeStore, bigLimits);
  const alice = await addDevice(store, 'alice');
  const reads = Array.from({ length: channelLimits.callsWaiting + 5 }, () =>
    store.fetch(alice, 0, 1, 1),
  );
  const settled = await Promise.allSettled(reads);
  const refused = settled.filter((one) => one.status === 'rejected');
  assert.equal(refused.length, 5);
  const [first] = refused;
  assert.ok(first?.reason instanceof ResourceExhaustedError);
  assert.equal(first.reason.reason, 'OVERLOADED');
  assert.equal(first.reason.retryAfterMs, channelLimits.overloadRetryMs);
  assert.equal((await store.fetch(alice, 0, 1, 1)).head, 0, 'it goes on afterwards');
  const large = newRow(alice, { payload: new Uint8Array(512 * 1024) });
  const writes = await Promise.allSettled(
    Array.from({ length: 140 }, () => store.enqueue({ ...large, mid: systemRandom.bytes(16) })),
  );
  const tooMany = writes.filter((one) => one.status === 'rejected');
  assert.equal(tooMany.length, 140 - channelLimits.bytesWaiting / large.payload.length);
});

test('close ends what was called before it and refuses what comes after', async () => {
  const fixture = new StoreFixture();
  await using _ = fixture;
  await fixture.create();
  const store = await fixture.open(openNodeStore, bigLimits);
  const alice = await addDevice(store, 'alice');
  const writes = Array.from({ length: 2_000 }, () => store.enqueue(newRow(alice)));
  const closed = store[Symbol.asyncDispose]();
  await assert.rejects(store.fetch(alice, 0, 1, 1), { reason: 'DRAINING' });
  await Promise.all([...writes, closed, store[Symbol.asyncDispose]()]);
  const again = await fixture.open(openNodeStore, bigLimits);
  assert.equal((await again.fetch(alice, 0, 1, 1)).head, 2_000);
});
