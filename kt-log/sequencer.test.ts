/** Effects, refusals, growth and closed labels: what the writer lets into the log and what not. */
import {
  ConflictError,
  InternalError,
  InvalidArgumentError,
  UnavailableError,
} from '@quicprochat/proto/status';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KtLog } from './log.ts';
import * as operations from './operations.ts';
import { encode } from './presentation.ts';
import { MemoryTreeStore } from './store.ts';
import type { ManualClock } from './test-log.ts';
import { labelOf, testKeys, testLog } from './test-log.ts';
import { verifySearch } from './verify-search.ts';

const create = (log: KtLog, name: string, effects: readonly unknown[] = []) =>
  log.update({ label: labelOf(name), values: [labelOf(name)] }, { effects });

/** Rows of users: an effect is a name, which nobody may have twice. */
function rows() {
  const names: unknown[] = [];
  let commits = 0;
  const store = new MemoryTreeStore((effects) => {
    commits++;
    const all = [...names, ...effects];
    if (effects.includes('bad')) throw new InvalidArgumentError('BAD_FIELD', 'a bad row');
    if (effects.includes('lost')) throw new UnavailableError('STORE_FULL', 'maybe');
    if (new Set(all).size !== all.length) throw new ConflictError('NAME_TAKEN', 'a row twice');
    names.push(...effects);
  });
  return { names, store, commits: () => commits };
}

/** Runs `make` and lets the batch that it filled close. */
async function inOneBatch<T>(clock: ManualClock, make: () => Promise<T>[]) {
  const armed = clock.timerSet();
  const all = Promise.allSettled(make());
  await armed;
  clock.advance(500);
  return all;
}
const reasonOf = (result: PromiseSettledResult<unknown>): unknown =>
  result.status === 'rejected' ? (result.reason as { reason: unknown }).reason : 'done';

test('the rows of updates are written with their entry, in order', async () => {
  const { names, store } = rows();
  const { log, clock } = await testLog({ store, sequencerLimits: { batchMs: 500 } });
  const all = await inOneBatch(clock, () => [
    create(log, 'alice', ['a1', 'a2']),
    create(log, 'bob'),
    create(log, 'carol', ['c']),
  ]);
  assert.deepEqual(all.map(reasonOf), ['done', 'done', 'done']);
  assert.deepEqual([log.size, names], [1, ['a1', 'a2', 'c']]);
});

test('no more than a number of versions wait for their entry; the rest is told so at once', async () => {
  const sequencerLimits = { batchMs: 500, queuedLeaves: 2 };
  const { log, clock } = await testLog({ sequencerLimits });
  const names = ['alice', 'bob', 'carol'];
  const all = await inOneBatch(clock, () => names.map((name) => create(log, name)));
  assert.deepEqual(all.map(reasonOf), ['done', 'done', 'QUEUE_FULL']);
  const [again] = await inOneBatch(clock, () => [create(log, 'carol')]);
  assert.equal(again && reasonOf(again), 'done');
});

test('a refused row fails its own update with its own error and nothing else', async () => {
  const { names, store, commits } = rows();
  const { log, clock, verifier } = await testLog({ store, sequencerLimits: { batchMs: 500 } });
  await inOneBatch(clock, () => [create(log, '@red.example', ['taken'])]);
  const heads = new Map<number, string>();
  log.onHead(({ size, root }) => {
    assert.equal(heads.has(size), false);
    heads.set(size, root.toString());
  });
  const people = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  const effectOf = (name: string): string => (name === 'c' ? 'taken' : name === 'h' ? 'bad' : name);
  const all = await inOneBatch(clock, () => people.map((one) => create(log, one, [effectOf(one)])));
  assert.deepEqual(all.map(reasonOf), [
    ...['done', 'done', 'NAME_TAKEN', 'done'],
    ...['done', 'done', 'done', 'BAD_FIELD'],
  ]);
  assert.deepEqual(names, ['taken', 'a', 'b', 'd', 'e', 'f', 'g']);
  // 8 are halved to abcd: ab, cd: c, d and efgh: ef, gh: g, h: one commit each, and the first ones.
  assert.deepEqual([log.size, commits()], [5, 12]);
  for (const name of ['a', 'b', 'd', 'e', 'f', 'g']) {
    const bytes = encode(
      operations.searchResponse(1, false),
      await log.search({ label: labelOf(name) }),
    );
    const { found } = verifySearch(
      verifier,
      undefined,
      { label: labelOf(name) },
      bytes,
      clock.now(),
    );
    assert.deepEqual(found.value, labelOf(name));
  }
  for (const name of ['c', 'h']) {
    await assert.rejects(log.search({ label: labelOf(name) }), { reason: 'UNKNOWN_USER' });
  }
  // The names are free: with other rows they come in.
  await inOneBatch(clock, () => [create(log, 'c', ['c']), create(log, 'h')]);
  assert.equal(log.size, 6);
});

test('an outcome that the store leaves open fails the whole batch, which is not tried again', async () => {
  const { names, store, commits } = rows();
  const { log, clock } = await testLog({ store, sequencerLimits: { batchMs: 500 } });
  const all = await inOneBatch(clock, () => [
    create(log, 'alice', ['a']),
    create(log, 'bob', ['lost']),
  ]);
  assert.deepEqual(all.map(reasonOf), ['STORE_FULL', 'STORE_FULL']);
  assert.deepEqual([log.size, names, commits()], [0, [], 1]);
});

test('a store that went on without the log is read again instead of asked again', async () => {
  const store = new MemoryTreeStore();
  const one = await testLog({ store });
  const other = await testLog({ store });
  await create(one.log, 'alice');
  await assert.rejects(create(other.log, 'bob'), { name: 'UnavailableError' });
  assert.equal(other.log.size, 1);
  await create(other.log, 'bob');
  assert.equal(other.log.size, 2);
});

test('who brings rows never gets old news for an answer', async () => {
  const { names, store } = rows();
  const { log } = await testLog({ store });
  await create(log, 'alice', ['a']);
  await assert.rejects(create(log, 'alice', ['b']), {
    name: 'ConflictError',
    reason: 'NAME_TAKEN',
  });
  const label = labelOf('alice');
  await log.update({ label, greatestVersion: 0, values: [label] });
  const late = log.update({ label, greatestVersion: 0, values: [label] }, { effects: ['c'] });
  await assert.rejects(late, { name: 'ConflictError', reason: 'SEQ_CONFLICT' });
  assert.deepEqual(names, ['a']);
});

test('a VRF that cannot be computed fails its own update only', async () => {
  const { keys } = testKeys(40);
  const vrf: typeof keys.vrf = {
    publicKey: keys.vrf.publicKey,
    prove: (label, versions) => keys.vrf.prove(label, versions),
    places(label, versions) {
      if (label.toString() === labelOf('bob').toString()) throw new InternalError('a dead worker');
      return keys.vrf.places(label, versions);
    },
  };
  const sequencerLimits = { batchMs: 500 };
  const { log, clock } = await testLog({ keys: { ...keys, vrf }, sequencerLimits });
  const all = await inOneBatch(clock, () => [create(log, 'alice'), create(log, 'bob')]);
  assert.deepEqual(all.map(reasonOf), ['done', 'INTERNAL']);
});

test('new labels come in at a bounded pace, updates and background work are not held up', async () => {
  const sequencerLimits = { batchMs: 0, newLeavesPerSecond: 10, newLeavesBurst: 255 };
  const { log, clock } = await testLog({ sequencerLimits });
  const label = labelOf('alice');
  const many = (name: string, count: number) =>
    log.update({ label: labelOf(name), values: Array.from({ length: count }, () => label) });
  await many('alice', 255);
  const limited = { name: 'ResourceExhaustedError', reason: 'RATE_LIMITED', retryAfterMs: 100 };
  await assert.rejects(create(log, 'bob'), limited);
  await log.update({ label, greatestVersion: 254, values: [label] });
  const heads = { label: labelOf('@red.example/heads'), values: [label] };
  const armed = clock.timerSet();
  const inBackground = log.update(heads, { isBackground: true });
  await armed;
  clock.advance(60_000);
  await inBackground;
  // A minute fills the bucket, and no more than that.
  await many('carol', 2);
  await many('dave', 253);
  await assert.rejects(create(log, 'bob'), limited);
  await assert.rejects(many('bob', 2), { reason: 'RATE_LIMITED', retryAfterMs: 200 });
  clock.advance(100);
  await create(log, 'bob');
});

test('a closed label is forgotten once a later entry is distinguished, and never given out again', async () => {
  const { log, clock, store } = await testLog();
  const alice = labelOf('alice');
  const value = labelOf('closed');
  assert.equal(await log.isTaken(alice), false);
  // Entry 3 is the root of the search tree and distinguished; alice's come right of it.
  for (let i = 0; i < 4; i++) await create(log, `label-${i}`);
  await create(log, 'alice');
  await log.update({ label: alice, greatestVersion: 0, values: [value] });
  clock.advance(10_000);
  await create(log, 'bob');
  const early = { name: 'FailedPreconditionError', reason: 'BAD_CURSOR' };
  await assert.rejects(log.eraseClosed(alice), early);
  clock.advance(600_000);
  await create(log, 'carol');
  clock.advance(600_000);
  await create(log, 'dave');
  await log.eraseClosed(alice);
  assert.deepEqual(await store.positions(alice), []);
  assert.equal(await log.isTaken(alice), true);
  assert.equal(await log.isTaken(labelOf('bob')), true);
  assert.equal(await log.isTaken(labelOf('eve')), false);
  const unknown = { name: 'NotFoundError', reason: 'UNKNOWN_USER' };
  const map = { label: alice, entries: [{ position: 4, version: 0 }] };
  await assert.rejects(log.search({ label: alice }), unknown);
  await assert.rejects(log.search({ label: alice, version: 0 }), unknown);
  await assert.rejects(log.absence({ label: alice }), unknown);
  await assert.rejects(log.contactMonitor(map), unknown);
  await assert.rejects(log.ownerInit({ label: alice, start: 0 }), unknown);
  await assert.rejects(log.ownerMonitor({ ...map, start: 0, greatestVersion: 1 }), unknown);
  await assert.rejects(log.credential(alice), unknown);
  const taken = { name: 'ConflictError', reason: 'NAME_TAKEN' };
  await assert.rejects(create(log, 'alice'), taken);
  const next = { label: alice, greatestVersion: 1, values: [value] };
  await assert.rejects(log.update(next), { name: 'InvalidArgumentError' });
  assert.equal(log.size, 9);
  await log.eraseClosed(alice);
  await log.absence({ label: labelOf('eve') });
});
