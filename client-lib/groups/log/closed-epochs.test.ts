/** Rows of epochs that a device was not in, and gets no keys of, are told as such when its log says so. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commitHash, parseEntry, sameBytes, systemRandom as random } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  GroupEntrySchema,
  toBinary,
  type GroupControl,
} from '@quicprochat/proto/messages';
import { sealChannel } from '../../crypto/envelope.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { closedBounds } from '../../store/closed-rows.ts';
import { openMemoryStore } from '../../store/sqlite-store.ts';
import { company, groupOf, HastyClock, type Company } from '../../test-company.ts';
import { exchange, type TestDevice, type TestRow } from '../../test-devices.ts';

/** As anybody seals it in the epoch that `device` is in. */
async function sealedNow(device: TestDevice, id: Uint8Array): Promise<TestRow> {
  const { key } = await envelopeKeyOf(device.mls, await groupOf(device, id));
  return underKey(key);
}

function underKey(key: Uint8Array): TestRow {
  const content = { kind: 'mlsMessage', bytes: random.bytes(64) } as const;
  return { mid: random.bytes(16), payload: sealChannel({ content, key, random }) };
}

/**
 * carol is taken out, invited, taken out and invited again: her two Welcomes, and what was sealed in the three epochs
 * from the first of them on and in the one of the second.
 */
async function outAndIn({ directory, alice, bob, carol, id }: Company) {
  const { hub } = directory;
  const rows: TestRow[] = [];
  const invite = async (): Promise<TestRow> => {
    await alice.conversations.addMembers(id, [carol.userId]);
    rows.push(await sealedNow(alice, id));
    const welcome = hub
      .takeRows(alice.rid, carol.rid)
      .find(({ payload }) => fromBinary(GroupControlSchema, payload).welcome.length > 0);
    assert.ok(welcome !== undefined);
    return welcome;
  };
  await alice.conversations.removeMembers(id, [carol.userId]);
  await exchange(alice, bob, carol);
  const first = await invite();
  await alice.conversations.rotateKeys(id);
  rows.push(await sealedNow(alice, id));
  await alice.conversations.removeMembers(id, [carol.userId]);
  rows.push(await sealedNow(alice, id));
  const second = await invite();
  await exchange(alice, bob);
  const own = rows.pop();
  assert.ok(own !== undefined);
  return { first, second, closed: rows, own };
}

const waiting = ({ store }: TestDevice): readonly Uint8Array[] =>
  store.inbox
    .parked()
    .filter(({ reason }) => reason === 'UNKNOWN_KEY')
    .map(({ mid }) => mid);
const goneAt = ({ store }: TestDevice): readonly Uint8Array[] =>
  store.inbox
    .undecryptable()
    .filter(({ reason }) => reason === 'EPOCH_GONE')
    .map(({ mid }) => mid);
const midsOf = (rows: readonly TestRow[]): readonly Uint8Array[] => rows.map(({ mid }) => mid);

async function look(device: TestDevice): Promise<void> {
  device.groups.closed.look();
  await device.settle();
}

/** Without what waits of timers. */
async function stop({ alice, bob, carol }: Company): Promise<void> {
  for (const device of [alice, bob, carol]) await device.groups.stop();
}

test('a Welcome closes the epochs before it, whatever waits for another key goes on waiting', async () => {
  const all = await company([mandatorySuite]);
  const { alice, bob, carol, id } = all;
  const { first, second, closed, own } = await outAndIn(all);
  const stranger = underKey(random.bytes(32));
  const early = [...closed.slice(0, 2), own, stranger];
  for (const row of early) await carol.receive(row);
  // The first one may come still, and brings the keys of all.
  await look(carol);
  assert.deepEqual(waiting(carol), midsOf(early));
  await carol.receive(second);
  await look(carol);
  assert.deepEqual(waiting(carol), [stranger.mid]);
  assert.deepEqual(goneAt(carol), midsOf(closed.slice(0, 2)));
  // Read once: what comes later is known, also after a restart, and without its hub.
  all.directory.hub.isSilent = true;
  carol.restart();
  for (const row of closed.slice(2)) await carol.receive(row);
  assert.deepEqual(goneAt(carol), midsOf(closed));
  await carol.receive(first);
  assert.deepEqual(waiting(carol), [stranger.mid]);
  assert.deepEqual(carol.store.closed.spans(), []);
  all.directory.hub.isSilent = false;
  await alice.conversations.send(id, 'here');
  await exchange(alice, bob, carol);
  assert.equal(carol.history(id).at(-1)?.text, 'here');
  await stop(all);
});

test(
  'by itself, a while after such a row came; and who never was in before reads from the beginning',
  { timeout: 60_000 },
  async () => {
    const all = await company([mandatorySuite], new HastyClock());
    const { carol } = all;
    const { second, closed } = await outAndIn(all);
    carol.fresh();
    await carol.receive(second);
    for (const row of closed) await carol.receive(row);
    while (waiting(carol).length > 0) {
      await carol.runtime.clock.sleep(1);
      await carol.settle();
    }
    assert.deepEqual(goneAt(carol), midsOf(closed));
    await stop(all);
  },
);

test('a hub that has not all of it, shows other commits, or puts entries beside the way closes nothing by that', async () => {
  const all = await company([mandatorySuite]);
  const { hub } = all.directory;
  const { carol, id } = all;
  const { second, closed } = await outAndIn(all);
  // Of a group whose Welcome is on its way, for all that she knows.
  const coming = underKey(random.bytes(32));
  await carol.receive(second);
  for (const row of [...closed, coming]) await carol.receive(row);
  const honest = hub.copyOf(id).map(({ control }) => control);
  const commit = coming.payload;
  const show = async (...entries: GroupControl[]): Promise<void> => {
    hub.beforeLog = async () => ({ entries, hasMore: false });
    await look(carol);
  };
  for (const entries of [[], honest.slice(0, -1)]) {
    await show(...entries);
    assert.deepEqual(goneAt(carol), []);
  }
  const beside = honest.slice(1).map(({ entry: certified }) => {
    const entry = { ...parseEntry(certified?.entry).entry, commitHash: commitHash(commit) };
    const bytes = toBinary(GroupEntrySchema, create(GroupEntrySchema, entry));
    return create(GroupControlSchema, {
      entry: { entry: { entry: bytes, signature: new Uint8Array(64) } },
      commit,
    });
  });
  // A commit in the place of another one: what only that says stays open.
  const swapped = honest.map((one, index) => (index % 2 === 1 ? { ...one, commit } : one));
  await show(...beside, ...swapped.slice(0, -1), ...honest.slice(-1));
  assert.ok(waiting(carol).some((mid) => sameBytes(mid, coming.mid)));
  assert.deepEqual(carol.store.closed.spans(), []);
  await stop(all);
});

test('an epoch that a device ended by coming back is closed for that device, and for who came after it', async () => {
  const all = await company([mandatorySuite]);
  const { directory, clock, alice, bob, carol, id } = all;
  const { hub } = directory;
  await alice.conversations.removeMembers(id, [carol.userId]);
  await exchange(alice, bob, carol);
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  hub.takeRows(alice.rid, bob.rid);
  // Too late for bob to read of it.
  hub.restore(id, hub.copyOf(id).slice(-1));
  await bob.groups.pull.pull(id);
  const row = await sealedNow(alice, id);
  clock.advance(3_600_000);
  await bob.groups.resyncs.run();
  await exchange(alice, bob);
  await alice.conversations.addMembers(id, [carol.userId]);
  await exchange(alice, bob, carol);
  for (const device of [bob, carol]) {
    await device.receive(row);
    await look(device);
    assert.deepEqual([waiting(device), goneAt(device)], [[], [row.mid]]);
  }
  await stop(all);
});

test('who comes in twice before it looked reads all of it at once; a reading of before ends nothing', () => {
  const { closed } = openMemoryStore();
  const [groupId, one, two, three] = [1, 2, 3, 4].map((n) => new Uint8Array(32).fill(n));
  assert.ok(groupId !== undefined && one !== undefined && two !== undefined && three !== undefined);
  const before = { groupId, after: one, entry: two, atMs: 1 };
  closed.addSpan(before);
  closed.addSpan({ groupId, after: two, entry: three, atMs: 2 });
  closed.dropSpan(before);
  const whole = { groupId, after: one, entry: three, atMs: 2 };
  assert.deepEqual(closed.spans(), [whole]);
  closed.expire(2 + closedBounds.spanMs);
  assert.deepEqual(closed.spans(), [whole]);
  closed.expire(3 + closedBounds.spanMs);
  assert.deepEqual(closed.spans(), []);
});

test('of the keys of closed epochs the newest are known', () => {
  const store = openMemoryStore();
  const keys = Array.from({ length: closedBounds.keys + 1 }, (_, index) => {
    const keyId = Buffer.alloc(8);
    keyId.writeUInt32BE(index);
    return new Uint8Array(keyId);
  });
  store.transaction(() => store.closed.addKeys(keys));
  const known = [0, 1, closedBounds.keys].map((at) => {
    const keyId = keys[at];
    return keyId !== undefined && store.closed.isClosedKey(keyId);
  });
  assert.deepEqual(known, [false, true, true]);
});
