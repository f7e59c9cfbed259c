/** Copies after the node took them: sent again, sealed anew, asked after; and what goes with age. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  create,
  Outcome,
  RelayState,
  RelayStatusResponseSchema,
} from '@quicprochat/proto/messages';
import { EventBus, type ClientEvent } from '../events.ts';
import { Housekeeping, housekeepingLimits } from '../housekeeping.ts';
import type { Session } from '../session.ts';
import { skippedKeys } from '../mls/index.ts';
import { Outbox } from './outbox.ts';
import { Redelivery } from './redelivery.ts';
import { inboxBounds } from '../store/inbox-rows.ts';
import {
  assertHas,
  handOver,
  takeRows,
  TestDevice,
  testStoreId,
  type TestRow,
} from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { LaterClock } from '../test-runtime.ts';

const hourMs = 3_600_000;

interface Pair {
  readonly clock: LaterClock;
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly id: Uint8Array;
  readonly redelivery: Redelivery;
  readonly events: ClientEvent[];
  readonly outbox: Outbox;
  /** How often the outbox found that a copy was overtaken. */
  readonly overtaken: { readonly count: number };
}

/** alice and bob in one group, and what looks after alice's copies. */
async function pair(): Promise<Pair> {
  const clock = new LaterClock();
  // The logs stand still while days pass: what they say may be that old here.
  const directory = new TestDirectory({ maxBehindMs: 1_000 * hourMs });
  const alice = new TestDevice('alice@red.example', directory, { clock });
  const bob = new TestDevice('bob@blue.example', directory, { clock });
  const id = await alice.conversations.create('again', [bob.userId]);
  await handOver(alice, bob);
  const bus = new EventBus();
  const events: ClientEvent[] = [];
  bus.listen((event) => events.push(event));
  const { store, runtime, writer, mls, contacts, userId, deviceId } = alice;
  const proofs = { isProven: async () => true };
  const overtaken = { count: 0 };
  const outbox = new Outbox({
    ...{ userId, proofs, store, runtime, events: bus },
    onDueAgain: () => void (overtaken.count += 1),
  });
  const redelivery = new Redelivery({
    ...{ store, runtime, events: bus, writer, mls, contacts, outbox },
    caller: directory,
    identity: { userId, deviceId },
  });
  return { clock, alice, bob, id, redelivery, events, outbox, overtaken };
}

describe('a copy that nobody confirms', () => {
  test('is sent again after 24 and 72 hours, same id and bytes, and then no more', async () => {
    const { clock, alice, bob, id, redelivery } = await pair();
    await alice.conversations.send(id, 'hello');
    const sent = takeRows(alice, bob);
    const again: TestRow[][] = [];
    for (let hour = 0; hour < 200; hour += 1) {
      clock.advance(hourMs);
      await redelivery.sweep();
      const rows = takeRows(alice, bob).filter(
        ({ mid }) => Buffer.compare(mid, sent[0]?.mid ?? mid) === 0,
      );
      if (rows.length > 0) again.push(rows);
    }
    assert.deepEqual(again, [sent, sent]);
  });

  test('is sent again at once where its time is from a clock that was months ahead', async () => {
    const { clock, alice, bob, id, redelivery } = await pair();
    const aheadMs = 60 * 24 * hourMs;
    clock.advance(aheadMs);
    await alice.conversations.send(id, 'hello');
    const sent = takeRows(alice, bob);
    clock.advance(-aheadMs);
    await redelivery.sweep();
    assert.deepEqual(takeRows(alice, bob), sent);
  });

  test('is sent again when the own node lost its disk, if it is an invitation: it may have lain at any node', async () => {
    const { alice, bob, redelivery, outbox } = await pair();
    // The one that a hub brought to bob's node was all that he was told of the group.
    await redelivery.sweep();
    assert.deepEqual(takeRows(alice, bob), []);
    outbox.storeChanged(new Uint8Array(8).fill(7));
    await redelivery.sweep();
    assert.equal(takeRows(alice, bob).length, 1);
  });

  test('is not sent again once its device said that it has it', async () => {
    const { clock, alice, bob, id, redelivery } = await pair();
    await alice.conversations.send(id, 'hello');
    await handOver(alice, bob);
    await bob.receipts.flush();
    await handOver(bob, alice);
    clock.advance(100 * hourMs);
    await redelivery.sweep();
    // Not even the invitation: who answers in the group has it.
    assert.deepEqual(takeRows(alice, bob), []);
  });

  test('is sealed anew when its device has dropped the key, and is shown once', async () => {
    const { clock, alice, bob, id, redelivery } = await pair();
    const texts = Array.from({ length: 259 }, (_, n) => `text ${n}`);
    for (const text of texts) await alice.conversations.send(id, text);
    // The first two and those of the middle are lost; of the rest bob confirms nothing.
    const rows = takeRows(alice, bob);
    const last = rows.at(-1);
    assert(last !== undefined);
    await bob.receive(last);
    clock.advance(25 * hourMs);
    await redelivery.sweep();
    await handOver(alice, bob);
    assertHas(bob, id, texts);
  });

  test('is sealed anew when it waited for a token and its device has dropped the key', async () => {
    const { alice, bob, id, redelivery, outbox, overtaken } = await pair();
    const texts = Array.from({ length: 261 }, (_, n) => `text ${n}`);
    for (const text of texts) await alice.conversations.send(id, text);
    const rows = takeRows(alice, bob);
    const [first, second, last] = [rows[0], rows[1], rows.at(-1)];
    assert(first !== undefined && second !== undefined && last !== undefined);
    await bob.receive(last);
    const nowMs = alice.runtime.clock.now();
    alice.store.transaction(() => {
      for (const { mid } of [first, second]) alice.store.outbox.returnForToken(mid, bob.rid, nowMs);
      alice.store.tokens.put(bob.rid, new Uint8Array(16), true, 0);
    });
    const sent: TestRow[] = [];
    const ended = new AbortController();
    const session = {
      signal: ended.signal,
      hello: { capabilities: [] },
      async call(_method: unknown, row: TestRow) {
        sent.push(row);
        return { outcome: Outcome.STORED, receivedMs: 1n, proof: new Uint8Array(64) };
      },
    };
    outbox.open(session as unknown as Session, testStoreId);
    await outbox.flush();
    assert.deepEqual([overtaken.count, sent.length], [2, 0], 'the originals do not leave');
    await redelivery.sweep();
    await outbox.flush();
    ended.abort();
    outbox.close();
    assert.equal(sent.length, 2);
    for (const row of sent) await bob.receive(row);
    assertHas(bob, id, ['text 0', 'text 1', 'text 260']);
    assert.deepEqual(alice.store.outbox.tokenWaits(nowMs), []);
  });

  test('is sealed anew when the group has moved on, and is shown once whichever comes', async () => {
    const { clock, alice, bob, id, redelivery } = await pair();
    await alice.conversations.send(id, 'hello');
    const lost = takeRows(alice, bob);
    for (let n = 0; n < 5; n += 1) {
      const joiner = new TestDevice(`joiner${n}@red.example`, alice.directory, { clock });
      await alice.conversations.addMembers(id, [joiner.userId]);
    }
    await handOver(alice, bob);
    clock.advance(25 * hourMs);
    await redelivery.sweep();
    const rows = takeRows(alice, bob);
    assert(rows.every(({ mid }) => Buffer.compare(mid, lost[0]?.mid ?? mid) !== 0));
    for (const row of [...rows, ...lost]) await bob.receive(row);
    assertHas(bob, id, ['hello']);
    assert.equal(alice.history(id)[0]?.sendState, 'accepted');
    await bob.receipts.flush();
    await handOver(bob, alice);
    const own = alice.history(id)[0];
    assert.equal(
      own !== undefined && alice.store.outbox.usersWithout(own.id, 'DELIVERED').length,
      0,
    );
  });
});

test('a store that fails to say when the next post is due ends no sweep', async () => {
  const { alice, redelivery } = await pair();
  const broken = new Error('disk I/O error');
  alice.store.outbox.nextDueMs = () => {
    throw broken;
  };
  redelivery.start();
  redelivery.wake();
  await redelivery.sweep();
  await redelivery.stop();
});

test('a post that came back to who has left the group is told as lost, once, with the reason', async () => {
  const { alice, bob, id, redelivery, events } = await pair();
  const { store } = alice;
  const { messageId } = await alice.conversations.send(id, 'hello');
  takeRows(alice, bob);
  const [cid, mid, gone] = [1, 16, 32].map((length) => new Uint8Array(32).fill(length));
  assert(cid !== undefined && mid !== undefined && gone !== undefined);
  const nowMs = alice.runtime.clock.now();
  // Of a group that is no more: its state went with it.
  const about = { kind: 'MESSAGE', groupId: gone, epoch: 1n } as const;
  const targets = [{ rid: cid, domain: '' }];
  const post = { bytes: new Uint8Array(1), readers: [bob.rid] };
  const payload = new Uint8Array(9);
  store.transaction(() => {
    const conversation = store.groups.conversation(id);
    assert(conversation !== undefined);
    store.groups.addConversation({ ...conversation, id: gone, groupId: gone, ended: undefined });
    store.groups.setEnded(gone, 'LEFT');
    store.outbox.add({ mid: mid.subarray(0, 16), payload, targets, messageId, about, post }, nowMs);
    assert.equal(
      store.outbox.returnPosts(mid.subarray(0, 16), cid, () => nowMs),
      1,
    );
  });
  await redelivery.sweep();
  await redelivery.sweep();
  assert.deepEqual(events, [{ type: 'sendFailed', messageId, rid: cid, reason: 'LEFT' }]);
});

describe('the node’s answer about a copy', () => {
  for (const [state, expected] of [
    [RelayState.RELAYED, 'relayed'],
    [RelayState.BOUNCED, 'bounced'],
    [RelayState.QUEUED, 'accepted'],
    [RelayState.UNSPECIFIED, 'sealed'],
  ] as const) {
    test(`makes it ${expected} (state ${state})`, async () => {
      const { alice, bob, id, redelivery, events } = await pair();
      await alice.conversations.send(id, 'hello');
      const rid = state === RelayState.UNSPECIFIED ? new Uint8Array(0) : bob.rid;
      const [{ mid } = { mid: rid }] = takeRows(alice, bob);
      const asked: unknown[] = [];
      await redelivery.poll({
        signal: new AbortController().signal,
        call: async (method, request) => {
          asked.push(method.name);
          const statuses = [{ mid, rid, state, reason: 'UNKNOWN_DEVICE' }];
          assert.equal((request as { domain: string }).domain, 'blue.example');
          return create(method.response, create(RelayStatusResponseSchema, { statuses }) as never);
        },
      });
      assert.deepEqual(asked, ['RelayStatus']);
      const [message] = alice.history(id);
      assert.equal(message?.sendState, expected);
      const told = events.map(({ type }) => type);
      assert.deepEqual(told, expected === 'relayed' || expected === 'bounced' ? [expected] : []);
    });
  }
});

describe('with age', () => {
  test('keys of messages that have not come go, and the messages come all the same', async () => {
    const { clock, alice, bob, id } = await pair();
    const { store, runtime, writer } = bob;
    const keeping = new Housekeeping({ store, runtime, writer });
    await alice.conversations.send(id, 'one');
    await alice.conversations.send(id, 'two');
    const [first, second] = takeRows(alice, bob);
    assert(first !== undefined && second !== undefined);
    await bob.receive(second);
    const count = (): Promise<number> =>
      writer.run(async (batch) => {
        const group = batch.group(id);
        return group === undefined ? -1 : skippedKeys(group).length;
      });
    assert.equal(await count(), 1);
    await keeping.round();
    clock.advance(housekeepingLimits.skippedKeptMs - hourMs);
    await keeping.round();
    assert.equal(await count(), 1);
    clock.advance(2 * hourMs);
    await keeping.round();
    assert.equal(await count(), 0);
    // Gone from the disk too.
    bob.restart();
    assert.equal(
      await bob.writer.run(async (batch) => {
        const group = batch.group(id);
        return group === undefined ? -1 : skippedKeys(group).length;
      }),
      0,
    );
    await bob.receive(first);
    assertHas(bob, id, ['two']);
    for (let times = 0; times < 2; times += 1) {
      await bob.holes.askDue();
      await handOver(bob, alice);
      await alice.resender.answerDue();
      await handOver(alice, bob);
      clock.advance(hourMs);
    }
    assertHas(bob, id, ['one', 'two']);
  });

  test('keys of epochs that are over go: those before the newest eight after an hour, all after a week', async () => {
    const { clock, alice, bob, id } = await pair();
    const { store, runtime, writer } = bob;
    const keeping = new Housekeeping({ store, runtime, writer });
    const past = (): readonly bigint[] => store.groups.pastEpochs(id).map(({ epoch }) => epoch);
    const held = async (): Promise<readonly bigint[] | undefined> =>
      writer.run(async (batch) => batch.group(id)?.pastEpochs());
    for (let times = 0; times < 12; times += 1) {
      await alice.groups.committer.ended(await alice.groups.committer.add(id, { kind: 'rekey' }));
      await handOver(alice, bob);
    }
    const before = past();
    assert(before.length >= 12);
    await keeping.round();
    assert.deepEqual(past(), before);
    clock.advance(2 * hourMs);
    await keeping.round();
    assert.deepEqual(past(), before.slice(-8));
    assert.deepEqual(await held(), before.slice(-8));
    bob.restart();
    assert.deepEqual(await held(), before.slice(-8));
    clock.advance(8 * 24 * hourMs);
    await keeping.round();
    assert.deepEqual(past(), []);
    await alice.conversations.send(id, 'now');
    await handOver(alice, bob);
    assertHas(bob, id, ['now']);
  });

  test('records of what nothing opens go: the oldest of too many, and the old ones', async () => {
    const { clock, bob } = await pair();
    const { store, runtime, writer } = bob;
    const keeping = new Housekeeping({ store, runtime, writer });
    store.transaction(() => {
      for (let seq = 0; seq < inboxBounds.undecryptableMax + 5; seq += 1) {
        const mid = new Uint8Array(16);
        store.inbox.addUndecryptable({
          mid,
          seq,
          reason: 'MALFORMED',
          bytes: 1,
          atMs: clock.now(),
        });
      }
    });
    await keeping.round();
    const kept = store.inbox.undecryptable();
    assert.deepEqual([kept.length, kept[0]?.seq], [inboxBounds.undecryptableMax, 5]);
    clock.advance(inboxBounds.keptMs + hourMs);
    await keeping.round();
    assert.deepEqual(store.inbox.undecryptable(), []);
  });
});
