/** Notices of the own node: what they change in the store, what they tell, and what they cannot do. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  create,
  NoticeSchema,
  NoticeType,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { RowKind } from '@quicprochat/proto';
import type { ClientEvent } from '../events.ts';
import { fullReason, takeBounce } from './bounces.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import { TestDevice, testStoreId } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { inboxLog, type InboxRow } from '../store/inbox-rows.ts';
import type { SendState } from '../store/message-rows.ts';

interface Sent {
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly conversationId: Uint8Array;
  /** Of alice's message for bob. */
  readonly mid: Uint8Array;
}

/** The node has everything that is for a device. */
function acceptAll(from: TestDevice, to: TestDevice): void {
  const target = Buffer.from(to.rid).toString('hex');
  for (let after = 0; ;) {
    const entry = from.store.outbox.next(target, after);
    if (entry === undefined) return;
    after = entry.id;
    from.store.outbox.markAccepted(entry.id, testStoreId, testRuntime.clock.now());
  }
}

/** alice sent one text to bob, and her node has it. */
async function sentOne(): Promise<Sent> {
  const directory = new TestDirectory();
  const alice = new TestDevice('alice@red.example', directory);
  const bob = new TestDevice('bob@blue.example', directory);
  const conversationId = await alice.conversations.create('notices', [bob.userId]);
  await alice.conversations.send(conversationId, 'hello');
  const mid = alice.rowsFor(bob).at(-1)?.mid;
  assert(mid !== undefined);
  acceptAll(alice, bob);
  alice.events.length = 0;
  return { alice, bob, conversationId, mid };
}

function noticeRow(
  notice: MessageInitShape<typeof NoticeSchema>,
): Pick<InboxRow, 'mid' | 'payload'> {
  const payload = toBinary(NoticeSchema, create(NoticeSchema, notice));
  return { mid: testRuntime.random.bytes(16), payload };
}

function stateOf({ alice, conversationId }: Sent): SendState | undefined {
  return alice.history(conversationId).at(-1)?.sendState;
}

function toldOf(device: TestDevice): ClientEvent[] {
  return device.events.splice(0);
}

describe('notices', () => {
  test('a bounce ends the message here and is told once, however often it comes', async () => {
    const sent = await sentOne();
    const { alice, bob, mid } = sent;
    assert.equal(stateOf(sent), 'accepted');
    const bounce = {
      type: NoticeType.BOUNCE,
      mids: [mid],
      rid: bob.rid,
      domain: 'blue.example',
      reason: 'UNKNOWN_DEVICE',
    };
    await alice.receive(noticeRow(bounce), RowKind.Notice);
    assert.equal(stateOf(sent), 'bounced');
    const messageId = alice.history(sent.conversationId).at(-1)?.id;
    assert.deepEqual(toldOf(alice), [
      { type: 'bounced', messageId, rid: bob.rid, reason: 'UNKNOWN_DEVICE' },
    ]);
    await alice.receive(noticeRow(bounce), RowKind.Notice);
    alice.restart();
    await alice.receive(noticeRow(bounce), RowKind.Notice);
    assert.deepEqual(toldOf(alice), []);
    assert.equal(stateOf(sent), 'bounced', 'after a restart too');
    assert.deepEqual(
      alice.store.outbox.failures().map(({ failure }) => failure),
      ['UNKNOWN_DEVICE'],
    );
  });

  describe('of an inbox that is full for strangers', () => {
    const fullFor = (sent: Sent): Pick<InboxRow, 'mid' | 'payload'> => {
      const lost = { mids: [sent.mid], rid: sent.bob.rid, domain: 'blue.example' };
      return noticeRow({ type: NoticeType.BOUNCE, ...lost, reason: 'QUEUE_FULL' });
    };
    const waits = ({ alice, conversationId }: Sent): boolean | undefined =>
      alice.history(conversationId).at(-1)?.waitsForToken;
    const target = ({ bob }: Sent): string => Buffer.from(bob.rid).toString('hex');

    test('let a copy without a token wait for one; told once, however often it comes', async () => {
      const sent = await sentOne();
      const { alice, bob, mid } = sent;
      const nowMs = alice.runtime.clock.now();
      const first = fullFor(sent);
      await alice.receive(first, RowKind.Notice);
      assert.deepEqual([stateOf(sent), waits(sent)], ['sealed', true]);
      const messageId = alice.history(sent.conversationId).at(-1)?.id;
      assert.deepEqual(toldOf(alice), [{ type: 'waitsForToken', messageId, rid: bob.rid }]);
      const [wait] = alice.store.outbox.tokenWaits(nowMs);
      assert.deepEqual([wait?.target, wait?.isHeld], [target(sent), true]);
      assert.equal(alice.store.outbox.sendableCount(nowMs), 0);
      alice.restart();
      await alice.receive(first, RowKind.Notice);
      await alice.receive(fullFor(sent), RowKind.Notice);
      assert.deepEqual(toldOf(alice), []);
      assert.deepEqual(alice.store.outbox.tokenWaits(nowMs), [wait], 'and for no longer');
      // An OK to what went before is no OK to what is sent now.
      const before = alice.store.outbox.next(target(sent), 0);
      assert.deepEqual([before?.mid, before?.tokenWaits], [mid, 1]);
      const stale = { tokenWaits: 0, token: undefined };
      alice.store.outbox.markAccepted(before?.id ?? 0, testStoreId, nowMs, stale);
      assert.deepEqual([stateOf(sent), waits(sent)], ['sealed', true]);

      alice.store.transaction(() => alice.store.tokens.put(bob.rid, new Uint8Array(16), true, 0));
      assert.equal(alice.store.outbox.isHeld(target(sent), nowMs), false);
      assert.equal(alice.store.outbox.sendableCount(nowMs), 1);
      const again = { tokenWaits: 1, token: new Uint8Array(16) };
      alice.store.outbox.markAccepted(before?.id ?? 0, testStoreId, nowMs, again);
      assert.deepEqual([stateOf(sent), waits(sent)], ['accepted', false]);
    });

    test('with a token: it is no longer in force, and the copy waits for the next one, for a month', async () => {
      const sent = await sentOne();
      const { alice, bob, mid } = sent;
      const { outbox, tokens } = alice.store;
      const nowMs = alice.runtime.clock.now();
      const [old, next] = [new Uint8Array(16).fill(1), new Uint8Array(16).fill(2)];
      const take = (token: Uint8Array): void =>
        alice.store.transaction(() => tokens.put(bob.rid, token, true, nowMs));
      const go = (token: Uint8Array): void => {
        const entry = outbox.next(target(sent), 0);
        assert(entry !== undefined);
        const { id, tokenWaits } = entry;
        assert.ok(outbox.markAccepted(id, testStoreId, nowMs, { tokenWaits, token }));
      };
      const isHeld = (): boolean => outbox.isHeld(target(sent), nowMs);
      take(old);
      await alice.receive(fullFor(sent), RowKind.Notice);
      assert.deepEqual([tokens.hasGood(bob.rid), isHeld()], [true, false], 'it went without');
      go(old);
      await alice.receive(fullFor(sent), RowKind.Notice);
      assert.deepEqual([stateOf(sent), waits(sent)], ['sealed', true]);
      assert.deepEqual([tokens.hasGood(bob.rid), isHeld()], [false, true]);
      assert.equal(tokens.toPass(bob.rid), undefined, 'nobody else gets it');
      assert.deepEqual(
        tokens.of(bob.rid),
        old,
        'tried with it all the same: the node may have lied',
      );
      assert.deepEqual([outbox.sendableCount(nowMs), outbox.tokenWaits(nowMs).length], [0, 1]);
      go(old);
      take(next);
      await alice.receive(fullFor(sent), RowKind.Notice);
      assert.deepEqual(
        [tokens.hasGood(bob.rid), isHeld()],
        [true, false],
        'that one was not meant',
      );
      go(next);
      assert.deepEqual(new Set(toldOf(alice).map(({ type }) => type)), new Set(['waitsForToken']));
      const monthLater = nowMs + outboxBounds.bytesKeptMs;
      const { told } = alice.store.transaction(() =>
        takeBounce(alice.store, mid, bob.rid, fullReason, monthLater),
      );
      assert.deepEqual(
        told.map(({ type }) => type),
        ['bounced'],
      );
    });

    test('are for good with another reason, after a month, and when too much waits', async () => {
      const sent = await sentOne();
      const { alice, bob, mid } = sent;
      const { outbox } = alice.store;
      const monthLater = alice.runtime.clock.now() + outboxBounds.bytesKeptMs;
      assert.deepEqual(outbox.returnForToken(mid, bob.rid, monthLater), []);
      assert.equal(stateOf(sent), 'accepted');
      await alice.receive(fullFor(sent), RowKind.Notice);
      toldOf(alice);
      const gone = noticeRow({
        ...{ type: NoticeType.BOUNCE, mids: [mid], rid: bob.rid, reason: 'UNKNOWN_DEVICE' },
      });
      await alice.receive(gone, RowKind.Notice);
      assert.deepEqual([stateOf(sent), waits(sent)], ['bounced', false]);
      assert.deepEqual(outbox.tokenWaits(0), []);

      const max = outboxBounds.tokenWaitsPerDevice;
      const targets = Array.from({ length: max + 1 }, () => ({ rid: bob.rid, domain: 'blue' }));
      const copies = { mid: new Uint8Array(16), payload: Uint8Array.of(1), targets };
      alice.store.transaction(() => {
        outbox.add({ ...copies, messageId: undefined }, 1_000);
        assert.equal(outbox.returnForToken(copies.mid, bob.rid, 1_000).length, max);
      });
    });
  });

  test('an expired message says so', async () => {
    const sent = await sentOne();
    const { alice, bob, mid } = sent;
    const row = noticeRow({ type: NoticeType.EXPIRED, mids: [mid], rid: bob.rid });
    await alice.receive(row, RowKind.Notice);
    assert.equal(stateOf(sent), 'expired');
    assert.deepEqual(
      toldOf(alice).map(({ type }) => type),
      ['expired'],
    );
  });

  test('a delay is told and dated, and the message stays on its way', async () => {
    const sent = await sentOne();
    const { alice, mid } = sent;
    const delayed = {
      type: NoticeType.DELAYED,
      mids: [mid, testRuntime.random.bytes(16)],
      domain: 'blue.example',
      sinceMs: 77n,
    };
    await alice.receive(noticeRow({ ...delayed, domain: 'green.example' }), RowKind.Notice);
    assert.deepEqual(toldOf(alice), [], 'nothing of ours waits for that domain');
    await alice.receive(noticeRow(delayed), RowKind.Notice);
    const [message] = alice.history(sent.conversationId).slice(-1);
    assert.deepEqual([message?.sendState, message?.delayedMs], ['accepted', 0]);
    assert.deepEqual(toldOf(alice), [
      { type: 'delayed', domain: 'blue.example', sinceMs: 77, messageIds: [message?.id] },
    ]);
  });

  test('what nobody confirmed goes to a node that was restored once more, at once, and twice in all', async () => {
    const sent = await sentOne();
    const { alice, bob, mid } = sent;
    const { outbox } = alice.store;
    const restored = { type: NoticeType.RESTORED, domain: 'blue.example', sinceMs: 77n };
    const due = (): boolean =>
      outbox.due(testRuntime.clock.now() + 1, 99).some((row) => Buffer.compare(row.mid, mid) === 0);
    await alice.receive(noticeRow({ ...restored, domain: 'green.example' }), RowKind.Notice);
    assert.equal(due(), false, 'nothing of ours was for that domain');
    for (const isDue of [true, true, false]) {
      await alice.receive(noticeRow(restored), RowKind.Notice);
      assert.equal(due(), isDue);
      for (const { id } of outbox.due(testRuntime.clock.now() + 1, 99)) outbox.sendAgain(id);
      acceptAll(alice, bob);
    }
    assert.equal(stateOf(sent), 'accepted');
    assert.deepEqual(toldOf(alice), []);
  });

  test('another device, another message, later kinds and nonsense change nothing, and are acked', async () => {
    const sent = await sentOne();
    const { alice, bob, mid } = sent;
    const { random } = testRuntime;
    const strange = [
      noticeRow({ type: NoticeType.BOUNCE, mids: [mid], rid: random.bytes(32), reason: 'BLOCKED' }),
      noticeRow({ type: NoticeType.BOUNCE, mids: [random.bytes(16)], rid: bob.rid }),
      noticeRow({ type: 99 as NoticeType, mids: [mid], rid: bob.rid }),
      noticeRow({ type: NoticeType.EXPIRED, rid: bob.rid }),
      { mid: random.bytes(16), payload: Uint8Array.of(0xff, 0xff, 0xff) },
    ];
    const before = alice.store.inbox.cursor(inboxLog)?.seq ?? 0;
    for (const row of strange) await alice.receive(row, RowKind.Notice);
    assert.equal(alice.store.inbox.cursor(inboxLog)?.seq, before + strange.length);
    assert.equal(stateOf(sent), 'accepted');
    assert.deepEqual(toldOf(alice), []);
    assert.deepEqual(alice.store.inbox.undecryptable(), []);
  });

  test('what bounced is not sent again when the node changes its store', async () => {
    const sent = await sentOne();
    const { alice, bob, mid } = sent;
    const bounce = { type: NoticeType.BOUNCE, mids: [mid], rid: bob.rid, reason: 'BLOCKED' };
    await alice.receive(noticeRow(bounce), RowKind.Notice);
    alice.store.outbox.reopen(new Uint8Array(8).fill(9));
    assert.ok(!alice.rowsFor(bob).some((row) => Buffer.compare(row.mid, mid) === 0));
  });
});
