/** A hub that takes long holds up its own groups, and nobody else's: neither reading, nor changes, nor coming back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { entryHash, hex } from '@quicprochat/proto';
import { hubCallLimits } from './hub-calls.ts';
import { laneLimits } from './hub-lanes.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { exchange, TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { LaterClock, testRuntime } from '../../test-runtime.ts';
import { groupOf } from '../../test-company.ts';

const slowGroups = 20;

/** bob is in a group of alice's, whose hub is red, and in many of eve's, whose hub is slow. */
const crowd = (async () => {
  const clock = new LaterClock();
  const directory = new TestDirectory({ maxBehindMs: 5_000 * 3_600_000 });
  const [alice, bob, eve] = ['alice@red.example', 'bob@red.example', 'eve@slow.example'].map(
    (userId) => new TestDevice(userId, directory, { clock, suites: [mandatorySuite] }),
  );
  assert(alice !== undefined && bob !== undefined && eve !== undefined);
  const good = await alice.conversations.create('good', [bob.userId]);
  const slow: Uint8Array[] = [];
  for (let i = 0; i < slowGroups; i += 1) {
    slow.push(await eve.conversations.create('slow', [bob.userId]));
  }
  await exchange(alice, bob, eve);
  return { clock, directory, alice, bob, eve, good, slow };
})();

type Crowd = Awaited<typeof crowd>;

/** The slow hub does not answer until the result is called. */
function hang({ directory, slow }: Crowd): {
  readonly asked: Set<string>;
  readonly end: () => void;
} {
  const { hub } = directory;
  const over = Promise.withResolvers<undefined>();
  const asked = new Set<string>();
  const isSlow = new Set(slow.map(hex));
  hub.beforeLog = async ({ group }) => {
    if (!isSlow.has(hex(group))) return undefined;
    asked.add(hex(group));
    return over.promise;
  };
  hub.beforeSubmit = async (_from, { hub: domain }) => {
    if (domain === 'slow.example') await over.promise;
  };
  const end = (): void => {
    hub.beforeLog = undefined;
    hub.beforeSubmit = undefined;
    over.resolve(undefined);
  };
  return { asked, end };
}

/** Until it is so; what never comes to be fails by the test's time. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo())) await testRuntime.clock.sleep(1);
}

test('groups of a hub that does not answer keep no other group from being read', async () => {
  const them = await crowd;
  const { alice, bob, good, slow } = them;
  await alice.conversations.rotateKeys(good);
  const { epoch } = await groupOf(alice, good);
  const { asked, end } = hang(them);
  for (const id of slow) bob.groups.pull.want(id);
  await until(async () => asked.size > 0);
  bob.groups.pull.want(good);
  await until(async () => (await groupOf(bob, good)).epoch === epoch);
  assert.ok(asked.size <= laneLimits.perHub, `${asked.size} at once`);
  end();
  await bob.settle();
});

test('nor from being changed, or come back into', async () => {
  const them = await crowd;
  const { bob, good, slow, directory } = them;
  const { end } = hang(them);
  const changes = slow.map((id) => bob.conversations.rotateKeys(id));
  await bob.conversations.rotateKeys(good);
  // All are lost now, the slow ones first.
  const { store, clock } = { store: bob.store, clock: them.clock };
  store.transaction(() => {
    for (const id of [...slow, good]) {
      store.groups.setEnded(id, 'BEHIND');
      store.resync.want(id, 'BEHIND', 0);
    }
  });
  clock.advance(1);
  const run = bob.groups.resyncs.run();
  const tip = () => directory.hub.copyOf(good).at(-1)?.parsed;
  await until(async () => store.groups.conversation(good)?.ended === undefined);
  assert.equal((await groupOf(bob, good)).epoch, BigInt(tip()?.epoch ?? 0));
  end();
  await run;
  await Promise.allSettled(changes);
  await bob.settle();
});

test('a log that comes entry by entry, each of them late, is read to its end beside the others', async () => {
  const them = await crowd;
  const { alice, bob, eve, good, slow, directory, clock } = them;
  const [id] = slow;
  assert(id !== undefined);
  await exchange(bob, eve, alice);
  for (let i = 0; i < 4; i += 1) await eve.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(good);
  const { epoch } = await groupOf(alice, good);
  let isGoodRead = false;
  directory.hub.beforeLog = async ({ group, after }) => {
    if (hex(group) !== hex(id)) return undefined;
    clock.advance(hubCallLimits.pageMs);
    bob.groups.pull.want(good);
    if (!isGoodRead) await until(async () => (await groupOf(bob, good)).epoch === epoch);
    isGoodRead = true;
    const log = directory.hub.copyOf(id);
    const at = log.findIndex(({ parsed }) => hex(parsed.hash) === hex(after));
    const next = log[at + 1];
    const hash = next?.control.entry?.entry && entryHash(next.control.entry.entry.entry);
    const hasMore = hash !== undefined && at + 2 < log.length;
    return { entries: next === undefined ? [] : [next.control], hasMore };
  };
  bob.groups.pull.want(id);
  await bob.settle();
  directory.hub.beforeLog = undefined;
  assert.ok(isGoodRead);
  assert.equal((await groupOf(bob, id)).epoch, (await groupOf(eve, id)).epoch);
  for (const device of [alice, bob, eve]) await device.groups.stop();
});
