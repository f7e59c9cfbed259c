/**
 * A member whose device has no prekey, as after weeks away: everybody else is written to, receipted and told as ever, and
 * its own copies wait for it.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { firstManifest, methods, signingKeyFromSeed, systemRandom } from '@quicprochat/proto';
import { EventBus, type ClientEvent } from '../events.ts';
import { mandatorySuite } from '../mls/index.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import { company, HastyClock, type Company } from '../test-company.ts';
import {
  assertHas,
  exchange,
  handOver,
  prekeyOf,
  takeRows,
  type TestDevice,
} from '../test-devices.ts';
import { LaterClock, testRuntime } from '../test-runtime.ts';
import { Outbox } from './outbox.ts';
import { Redelivery } from './redelivery.ts';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** What everybody has when bob goes. */
const before = 'before';

/** Serves a prekey that the device has the secret of. */
function publish({ directory }: Company, device: TestDevice): void {
  const key = device.store.keys.newestHybridKey();
  assert(key !== undefined);
  directory.serve(device.userId, { prekey: prekeyOf(device, key.publicKey) });
}

interface Away extends Company {
  /** Of alice's device. */
  readonly redelivery: Redelivery;
  readonly told: readonly ClientEvent[];
  /** How often prekeys were asked for since the last time. */
  readonly asked: () => number;
}

/** All prekeys have run out, and bob is not there to make another one. */
async function bobIsAway(clock = new LaterClock()): Promise<Away> {
  const all = await company([mandatorySuite], clock);
  const { directory, alice, bob, carol, id } = all;
  await alice.conversations.send(id, before);
  await exchange(alice, bob, carol);
  for (const one of [bob, carol]) await one.receipts.flush();
  await exchange(alice, bob, carol);
  clock.advance(8 * dayMs);
  for (const one of [alice, carol]) publish(all, one);
  directory.serve(bob.userId, { prekey: undefined });
  const bus = new EventBus();
  const told: ClientEvent[] = [];
  bus.listen((event) => told.push(event));
  const { store, runtime, writer, mls, contacts, userId, deviceId } = alice;
  const proofs = { isProven: async () => true };
  const outbox = new Outbox({
    ...{ userId, proofs, store, runtime, events: bus },
    onDueAgain: () => undefined,
  });
  const redelivery = new Redelivery({
    ...{ store, runtime, events: bus, writer, mls, contacts, outbox },
    caller: directory.callerOf(alice.rid),
    identity: { userId, deviceId },
  });
  let counted = 0;
  const asked = (): number => {
    const count = directory.calls.filter((name) => name === methods.fetchHybridKeys.name).length;
    const since = count - counted;
    counted = count;
    return since;
  };
  asked();
  return { ...all, redelivery, told, asked };
}

describe('a member without a prekey', () => {
  test('is asked about after a minute, and then ever more seldom', async () => {
    const { clock, alice, id, redelivery, asked } = await bobIsAway();
    const minutes: number[] = [];
    await alice.conversations.send(id, 'hello');
    for (let minute = 0; minute < 5 * 60; minute += 1) {
      await redelivery.sweep();
      if (asked() > 0) minutes.push(minute);
      clock.advance(60_000 + 1);
    }
    assert.deepEqual(minutes.slice(0, 2), [0, 1]);
    const waits = minutes.map((minute, at) => minute - (minutes[at - 1] ?? 0)).slice(2);
    // Twice as long each time, as far as minutes tell.
    assert(waits.length >= 8 && waits.length <= 10, minutes.join());
    assert(
      waits.every((wait, at) => wait >= (waits[at - 1] ?? 0) && wait <= 60),
      minutes.join(),
    );
  });

  test('gets what was sent meanwhile once it has one, in order and once', async () => {
    const all = await bobIsAway();
    const { clock, alice, bob, carol, id, redelivery, asked } = all;
    const texts = Array.from({ length: 40 }, (_, n) => `text ${n}`);
    for (const text of texts) await alice.conversations.send(id, text);
    // Not once for each of them.
    assert.equal(asked(), 1);
    await handOver(alice, carol);
    assertHas(carol, id, [before, ...texts]);
    assert.deepEqual(takeRows(alice, bob), []);
    for (let hour = 0; hour < 5; hour += 1) {
      clock.advance(hourMs);
      await redelivery.sweep();
    }
    assert.equal(asked(), 5);
    assert.deepEqual(takeRows(alice, bob), []);

    publish(all, bob);
    clock.advance(hourMs);
    await redelivery.sweep();
    assert.equal(asked(), 1);
    const keys = alice.store.outbox.openTargets();
    assert.equal(keys.length, 1);
    await handOver(alice, bob);
    assertHas(bob, id, [before, ...texts]);
    await exchange(alice, bob, carol);
    clock.advance(hourMs);
    await redelivery.sweep();
    assert.deepEqual(takeRows(alice, bob), []);
    for (const one of [bob, carol]) assertHas(one, id, [before, ...texts]);
  });

  test('holds back nobody: state, receipts and what members are told', async () => {
    const { alice, carol, id } = await bobIsAway();
    const { messageId } = await alice.conversations.send(id, 'hello');
    const state = (): unknown[] =>
      alice
        .history(id)
        .slice(-1)
        .map(({ sendState, waitsForPrekey }) => [sendState, waitsForPrekey]);
    assert.deepEqual(state(), [['sealed', true]]);
    await handOver(alice, carol);
    assert.deepEqual(state(), [['accepted', true]]);
    await carol.receipts.flush();
    await handOver(carol, alice);
    const isConfirmed = (of: TestDevice): boolean =>
      alice.store.outbox.usersWithout(messageId, 'DELIVERED').every((user) => user !== of.userId);
    assert.equal(isConfirmed(carol), true);
    await carol.conversations.send(id, 'and back');
    await handOver(carol, alice);
    assertHas(alice, id, ['and back']);
  });

  test('does not keep another one from leaving', async () => {
    const { alice, bob, carol, id } = await bobIsAway(new HastyClock());
    const leaving = carol.conversations.leave(id);
    await carol.settle();
    while (carol.store.groups.conversation(id)?.ended === undefined) {
      await exchange(alice, carol);
      await testRuntime.clock.sleep(1);
    }
    await leaving;
    await exchange(alice, carol);
    assert.deepEqual(await alice.conversations.members(id), [alice.userId, bob.userId]);
  });

  test('is asked about again soon after it is heard of, and at most once a minute', async () => {
    const all = await bobIsAway();
    const { clock, alice, bob, id, redelivery, asked } = all;
    await alice.conversations.send(id, 'hello');
    await bob.conversations.send(id, 'back');
    await handOver(bob, alice);
    asked();
    await redelivery.sweep();
    assert.equal(asked(), 0);
    clock.advance(outboxBounds.prekeyWaitMinMs);
    await bob.conversations.send(id, 'still here');
    await handOver(bob, alice);
    publish(all, bob);
    asked();
    await redelivery.sweep();
    assert.equal(asked(), 1);
    await handOver(alice, bob);
    assertHas(bob, id, [before, 'hello']);
  });

  test('that gets none for 30 days is told of to the application, once', async () => {
    const { clock, alice, bob, id, redelivery, told } = await bobIsAway();
    const { messageId } = await alice.conversations.send(id, 'hello');
    clock.advance(outboxBounds.bytesKeptMs - hourMs);
    await redelivery.sweep();
    assert.deepEqual(told, []);
    clock.advance(2 * hourMs);
    await redelivery.sweep();
    await redelivery.sweep();
    assert.deepEqual(told, [{ type: 'sendFailed', messageId, rid: bob.rid, reason: 'NO_PREKEY' }]);
    assert.equal(alice.history(id).at(-1)?.sendState, 'failed');
    assert.equal(alice.store.outbox.nextDueMs('all'), undefined);
  });

  test('is not given up where nobody answers, whose prekey it may have', async () => {
    const { clock, directory, alice, id, redelivery, told } = await bobIsAway();
    await alice.conversations.send(id, 'hello');
    clock.advance(outboxBounds.bytesKeptMs + hourMs);
    directory.isDown = true;
    await redelivery.sweep();
    assert.deepEqual(told, []);
    directory.isDown = false;
    clock.advance(hourMs);
    await redelivery.sweep();
    assert.deepEqual(
      told.map(({ type }) => type),
      ['sendFailed'],
    );
  });

  test('whose keys are refused holds back nobody either', async () => {
    const { directory, alice, bob, carol, id, asked } = await bobIsAway();
    // Not what the log shows.
    const accountKey = signingKeyFromSeed(systemRandom.bytes(32));
    directory.serve(bob.userId, { manifest: firstManifest(bob.userId, accountKey, bob.rid, 0) });
    await alice.conversations.send(id, 'hello');
    await alice.conversations.send(id, 'again');
    assert.equal(asked(), 1);
    await handOver(alice, carol);
    assertHas(carol, id, [before, 'hello', 'again']);
    assert.deepEqual(takeRows(alice, bob), []);
  });

  test('that is taken out of the group gets nothing', async () => {
    const all = await bobIsAway();
    const { clock, alice, bob, carol, id, redelivery, told } = all;
    const { messageId } = await alice.conversations.send(id, 'hello');
    await alice.conversations.removeMembers(id, [bob.userId]);
    await handOver(alice, carol);
    publish(all, bob);
    clock.advance(hourMs);
    await redelivery.sweep();
    const texts = takeRows(alice, bob).length;
    for (const { type, ...event } of told) {
      if (type === 'sendFailed') {
        assert.deepEqual(event, { messageId, rid: bob.rid, reason: 'UNKNOWN_DEVICE' });
      }
    }
    assert.equal(told.filter(({ type }) => type === 'sendFailed').length, 1);
    assert.deepEqual([texts, bob.history(id).length], [1, 1]);
  });

  test('is no reason to lose the copies: they are there after a restart, and wait on', async () => {
    const all = await bobIsAway();
    const { clock, alice, bob, id, redelivery } = all;
    await alice.conversations.send(id, 'hello');
    alice.restart();
    alice.store.outbox.expire(clock.now() + dayMs);
    publish(all, bob);
    clock.advance(hourMs);
    await redelivery.sweep();
    await handOver(alice, bob);
    assertHas(bob, id, [before, 'hello']);
  });
});
