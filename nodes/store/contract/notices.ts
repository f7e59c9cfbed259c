/** Contract of a NodeStore: who is told when a message does not arrive (docs: protocol/delivery). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LaneName } from '@quicprochat/federation';
import { messageTag, RowKind, systemRandom } from '@quicprochat/proto';
import { fromBinary, NoticeSchema, NoticeType, type Notice } from '@quicprochat/proto/messages';
import { storeBounds } from '../bounds.ts';
import type { EnqueueRow } from '../message-store.ts';
import type { NodeStore } from '../store.ts';
import {
  addDevice,
  bigLimits,
  dayMs,
  hex,
  hourMs,
  minuteMs,
  newAccount,
  newManifest,
  newRow,
  smallLimits,
  storeFixture,
  type OpenStore,
} from './fixture.ts';
import { commitEffects, registerAccount } from './log-batch.ts';

const blue = 'blue.example';

export function noticeContract(open: OpenStore): void {
  test('a refused row bounces to the device that sent it, and to nobody else', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const row = newRow(systemRandom.bytes(32), { sender: alice });
    await store.enqueueRemote(blue, row);
    await store.enqueueRemote(blue, newRow(row.rid));
    const woken: string[] = [];
    using _rows = store.onRows((rid) => void woken.push(rid));
    await refuse(store, 2, row.rid, 'UNKNOWN_DEVICE');
    const [notice, ...others] = await notices(store, alice);
    assert.deepEqual(others, []);
    assert.deepEqual(
      { ...notice, $typeName: undefined },
      {
        $typeName: undefined,
        type: NoticeType.BOUNCE,
        mids: [row.mid],
        tag: messageTag(row.mid, row.payload),
        rid: row.rid,
        domain: blue,
        reason: 'UNKNOWN_DEVICE',
        sinceMs: 0n,
      },
    );
    assert.deepEqual(await notices(store, bob), []);
    assert.deepEqual(woken, [hex(alice)]);
  });

  test('the sender stays at this node: what goes along is sealed, and another one each time', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    await store.enqueueRemote(blue, newRow(systemRandom.bytes(32), { sender: alice }));
    const [row] = await store.readOutbox(blue, 'bulk', 0, 9, 9_999);
    assert.deepEqual(Object.keys(row ?? {}).toSorted(), [
      'chain',
      'kind',
      'mid',
      'payload',
      'rids',
      'seq',
      'slips',
      'ttlLeftMs',
    ]);
    const [slip = new Uint8Array(0)] = row?.slips ?? [];
    assert.ok(!Buffer.from(slip).includes(Buffer.from(alice.subarray(0, 4))));
    const [again] = await store.readOutbox(blue, 'bulk', 0, 9, 9_999);
    assert.notDeepEqual(again?.slips?.[0], slip);
  });

  test('a row that is delivered or deferred tells nothing', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(systemRandom.bytes(32), { sender: alice });
    await store.enqueueRemote(blue, row);
    await store.enqueueRemote(blue, newRow(systemRandom.bytes(32), { sender: alice }));
    const { streamId } = await store.outboundStream(blue, 'bulk');
    const later = { seq: 1, rid: row.rid, reason: 'QUEUE_FULL', temporary: true };
    await store.settleOutbox(blue, 'bulk', streamId, 2, [later]);
    assert.deepEqual(await notices(store, alice), []);
    fixture.nowMs += 5 * minuteMs;
    await store.requeueDue();
    await refuse(store, 3, row.rid, 'BLOCKED');
    assert.deepEqual(
      (await notices(store, alice)).map(({ reason }) => reason),
      ['BLOCKED'],
      'known also after it was deferred',
    );
  });

  test('a row past its ttl expires, one past the age limit bounces', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const rid = systemRandom.bytes(32);
    const [brief, long] = [
      newRow(rid, { sender: alice, ttlMs: hourMs }),
      newRow(rid, { sender: alice }),
    ];
    await store.enqueueRemote(blue, brief);
    await store.enqueueRemote(blue, long);
    fixture.nowMs += 7 * dayMs;
    assert.equal((await store.requeueDue()).deadRows, 2);
    await store.requeueDue();
    assert.deepEqual(
      (await notices(store, alice)).map(({ type, mids, reason }) => [type, hexes(mids), reason]),
      [
        [NoticeType.EXPIRED, [hex(brief.mid)], ''],
        [NoticeType.BOUNCE, [hex(long.mid)], 'PEER_UNREACHABLE'],
      ],
    );
  });

  test('a row that nobody fetched tells its sender; one that was acked does not', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const [read, unread] = [newRow(bob, { sender: alice }), newRow(bob, { sender: alice })];
    await store.enqueue(read);
    await store.enqueue(unread);
    await store.enqueue(newRow(bob));
    await store.ack(bob, 1);
    fixture.nowMs += 30 * dayMs;
    await store.sweep();
    const told = await notices(store, alice);
    assert.deepEqual(
      told.map(({ type, mids, rid, domain }) => [type, hexes(mids), hex(rid), domain]),
      [[NoticeType.EXPIRED, [hex(unread.mid)], hex(bob), '']],
    );
  });

  test('a notice that nobody fetches ends without another', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(systemRandom.bytes(32), { sender: alice });
    await store.enqueueRemote(blue, row);
    await refuse(store, 1, row.rid, 'UNKNOWN_DEVICE');
    fixture.nowMs += storeBounds.noticeTtlMs;
    await store.sweep();
    await store.sweep();
    const { head, rows, gap } = await store.fetch(alice, 0, 9, 9_999);
    assert.deepEqual({ head, rows, gap }, { head: 1, rows: [], gap: { from: 1, to: 1 } });
  });

  test('notices come into a full inbox, up to their bound; beyond it the reader finds a gap', async () => {
    const { fixture, store } = await storeFixture(open, {
      ...bigLimits,
      inboxRows: smallLimits.inboxRows,
    });
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    for (let row = 0; row < 8; row += 1) await store.enqueue(newRow(alice));
    await assert.rejects(store.enqueue(newRow(alice)), { reason: 'QUEUE_FULL' });
    const rid = systemRandom.bytes(32);
    const count = storeBounds.noticesPerInbox + 3;
    const sent = Array.from({ length: count }, () => newRow(rid, { sender: alice, ttlMs: 1_000 }));
    await Promise.all(sent.map((row) => store.enqueueRemote(blue, row)));
    fixture.nowMs += 1_000;
    await store.requeueDue();
    await store.requeueDue();
    const told = await notices(store, alice);
    assert.equal(told.length, storeBounds.noticesPerInbox);
    const { head, gap } = await store.fetch(alice, 8 + told.length, 9, 9_999);
    assert.equal(head, 8 + count);
    assert.deepEqual(gap, { from: head - 2, to: head });
    await store.ack(alice, head);
    await bounceOne(store, alice);
    assert.equal((await notices(store, alice, head)).length, 1, 'room again');
    assert.equal((await store.enqueue(newRow(alice))).outcome, 'stored');
  });

  test('who sent to a peer that lost what it confirmed is told once, and a repeat goes there again', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const rid = systemRandom.bytes(32);
    const [row, other] = [newRow(rid, { sender: alice }), newRow(rid, { sender: alice })];
    for (const one of [row, other, newRow(rid)]) await store.enqueueRemote(blue, one);
    await store.enqueueRemote('green.example', newRow(rid, { sender: bob }));
    const { streamId } = await store.outboundStream(blue, 'bulk');
    await store.settleOutbox(blue, 'bulk', streamId, 3, []);
    assert.equal((await store.enqueueRemote(blue, row)).outcome, 'duplicate');
    await store.restartOutbound(blue, 'bulk');
    assert.deepEqual(await notices(store, alice), [], 'its stream alone began anew');
    await store.restartOutbound(blue, 'bulk', true);
    await store.restartOutbound(blue, 'control', true);
    await store.requeueDue();
    const told = (await notices(store, alice)).map(({ type, domain, sinceMs }) => [
      type,
      domain,
      Number(sinceMs),
    ]);
    assert.deepEqual(told, [[NoticeType.RESTORED, blue, fixture.nowMs]]);
    assert.deepEqual(await notices(store, bob), [], 'another peer');
    fixture.nowMs += 1;
    assert.equal((await store.enqueueRemote(blue, row)).outcome, 'stored');
    assert.equal((await store.enqueueRemote(blue, row)).outcome, 'duplicate', 'once');
    fixture.nowMs += storeBounds.lossToldMs;
    await store.restartOutbound(blue, 'bulk', true);
    assert.equal((await notices(store, alice)).length, 2);
  });

  test('a second loss right after the first is told as well: the store of that peer has another id again', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(systemRandom.bytes(32), { sender: alice });
    const lose = async (): Promise<void> => {
      const proof = systemRandom.bytes(16);
      await store.setPeerMark(blue, { storeId: systemRandom.bytes(8), commits: 1, proof });
      await store.restartOutbound(blue, 'control', true);
      fixture.nowMs += 1;
      await store.restartOutbound(blue, 'bulk', true);
      await store.requeueDue();
    };
    for (const [n] of ['first', 'second'].entries()) {
      assert.equal((await store.enqueueRemote(blue, row)).outcome, 'stored');
      const { streamId, nextSeq } = await store.outboundStream(blue, 'bulk');
      await store.settleOutbox(blue, 'bulk', streamId, nextSeq - 1, []);
      fixture.nowMs += 1000;
      await lose();
      assert.equal((await notices(store, alice)).length, n + 1);
      fixture.nowMs += 1000;
    }
    await lose();
    await store.restartOutbound(blue, 'bulk', true);
    await store.requeueDue();
    assert.equal((await notices(store, alice)).length, 3, 'the same store is the same loss');
  });

  test('a peer that loses it again and again is told of a few times at once, then once in an hour with all of its losses since; each repeat goes there', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const rid = systemRandom.bytes(32);
    const [row, late] = [newRow(rid, { sender: alice }), newRow(rid, { sender: bob })];
    const lose = async (lane: LaneName = 'bulk'): Promise<number> => {
      await store.restartOutbound(blue, lane, true);
      return fixture.nowMs;
    };
    const told = async (device: Uint8Array): Promise<number[]> =>
      (await notices(store, device)).map(({ sinceMs }) => Number(sinceMs));
    const passOn = async (sent: EnqueueRow): Promise<void> => {
      assert.equal((await store.enqueueRemote(blue, sent)).outcome, 'stored');
      const { streamId, nextSeq } = await store.outboundStream(blue, 'bulk');
      await store.settleOutbox(blue, 'bulk', streamId, nextSeq - 1, []);
    };
    const burst = [];
    for (let n = 1; n < storeBounds.lossesToldAtOnce; n += 1) {
      await passOn(row);
      burst.push(await lose());
      await store.requeueDue();
      fixture.nowMs += minuteMs;
    }
    await passOn(row);
    burst.push(await lose());
    const [first = 0] = burst;
    assert.deepEqual(await told(alice), burst, 'a few at once');
    fixture.nowMs += 14_000;
    await lose('control');
    fixture.nowMs += 30_000;
    await passOn(row);
    await passOn(late);
    fixture.nowMs += minuteMs;
    await lose();
    fixture.nowMs += minuteMs;
    const last = await lose();
    fixture.nowMs = first + storeBounds.lossToldMs - 1;
    await store.requeueDue();
    assert.deepEqual([await told(alice), await told(bob)], [burst, []]);
    assert.equal((await store.enqueueRemote(blue, late)).outcome, 'stored', 'lost in between');
    fixture.nowMs += 1;
    await store.requeueDue();
    assert.deepEqual([await told(alice), await told(bob)], [[...burst, last], [last]]);

    // It says so all day, whatever the clock does.
    const startMs = fixture.nowMs;
    for (; fixture.nowMs < startMs + dayMs; fixture.nowMs += 5 * minuteMs) {
      await lose();
      await store.requeueDue();
    }
    assert.equal((await told(bob)).length, 1 + 23);
    fixture.nowMs -= 12 * hourMs + minuteMs;
    const back = await lose();
    await store.requeueDue();
    assert.equal((await told(bob)).at(-1), back);
  });

  test('a peer that is away for an hour delays: told to each device once in an outage', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const [alice, bob] = [await addDevice(store, 'alice'), await addDevice(store, 'bob')];
    const rid = systemRandom.bytes(32);
    const away = async (sinceMs: number): Promise<void> =>
      store.setPeerState(blue, {
        failures: sinceMs > 0 ? 1 : 0,
        nextTryMs: 0,
        failingSinceMs: sinceMs,
      });
    const sinceMs = fixture.nowMs;
    const [first, second] = [newRow(rid, { sender: alice }), newRow(rid, { sender: alice })];
    await store.enqueueRemote(blue, first);
    await store.enqueueRemote(blue, second);
    await store.enqueueRemote(blue, newRow(rid));
    await store.enqueueRemote('green.example', newRow(rid, { sender: bob }));
    await away(sinceMs);
    fixture.nowMs += hourMs - 1;
    await store.requeueDue();
    assert.deepEqual(await notices(store, alice), []);
    fixture.nowMs += 1;
    await store.requeueDue();
    await away(sinceMs);
    await store.requeueDue();
    await store.enqueueRemote(blue, newRow(rid, { sender: alice }));
    const told = await notices(store, alice);
    assert.deepEqual(
      told.map((one) => [one.type, hexes(one.mids), one.domain, Number(one.sinceMs)]),
      [[NoticeType.DELAYED, hexes([first.mid, second.mid]), blue, sinceMs]],
    );
    assert.deepEqual(await notices(store, bob), [], 'another peer');
    const late = newRow(rid, { sender: bob });
    await store.enqueueRemote(blue, late);
    assert.deepEqual(
      (await notices(store, bob)).map(({ mids }) => hexes(mids)),
      [[hex(late.mid)]],
      'who sends during the outage is told at once',
    );
    await away(0);
    await away(fixture.nowMs);
    fixture.nowMs += hourMs;
    await store.requeueDue();
    assert.equal((await notices(store, alice)).length, 2, 'another outage');
    assert.equal((await notices(store, bob)).length, 2);
  });

  test('a device that left is told nothing, nor is the one that comes after it', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const bob = await addDevice(store, 'bob');
    const account = newAccount('alice');
    const { identityPub: alice } = account.device;
    await registerAccount(store, account);
    const rid = systemRandom.bytes(32);
    await store.enqueueRemote(blue, newRow(rid, { sender: alice, ttlMs: hourMs }));
    await store.enqueue(newRow(bob, { sender: alice, ttlMs: hourMs }));
    await commitEffects(store, {
      kind: 'close',
      userId: 'alice',
      manifest: newManifest(),
      manifestSeq: 1,
    });
    const carol = await addDevice(store, 'carol');
    fixture.nowMs += hourMs;
    await store.requeueDue();
    await store.sweep();
    assert.equal((await store.deadLetters(0, 9)).length, 1);
    const { head } = await store.fetch(carol, 0, 9, 9_999);
    assert.equal(head, 0);
  });
}

async function refuse(
  store: NodeStore,
  cursor: number,
  rid: Uint8Array,
  reason: string,
): Promise<void> {
  const { streamId, acked } = await store.outboundStream(blue, 'bulk');
  const rejects = Array.from({ length: cursor - acked }, (_, index) => {
    return { seq: acked + 1 + index, rid, reason, temporary: false };
  });
  await store.settleOutbox(blue, 'bulk', streamId, cursor, rejects);
}

async function bounceOne(store: NodeStore, sender: Uint8Array): Promise<void> {
  const row: EnqueueRow = newRow(systemRandom.bytes(32), { sender });
  await store.enqueueRemote(blue, row);
  await store.restartOutbound(blue, 'bulk');
  await refuse(store, 1, row.rid, 'UNKNOWN_DEVICE');
}

/** The notices in an inbox, decoded. */
async function notices(store: NodeStore, rid: Uint8Array, from = 0): Promise<Notice[]> {
  const found: Notice[] = [];
  for (let after = from; ;) {
    const { rows } = await store.fetch(rid, after, 256, 2 ** 20);
    if (rows.length === 0) return found;
    for (const row of rows) {
      if (row.kind === RowKind.Notice) found.push(fromBinary(NoticeSchema, row.payload));
    }
    after = rows.at(-1)?.seq ?? after;
  }
}

function hexes(ids: readonly Uint8Array[]): string[] {
  return ids.map(hex);
}
