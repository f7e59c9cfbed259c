/** Contract of a NodeStore: what a device may know of its messages to a peer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { storeBounds } from '../bounds.ts';
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
  storeFixture,
  type OpenStore,
} from './fixture.ts';
import { commitEffects, registerAccount } from './log-batch.ts';

const blue = 'blue.example';

export function relayStatusContract(open: OpenStore): void {
  test('a message is queued, deferred, relayed, bounced or unknown, each as long as promised', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const rid = systemRandom.bytes(32);
    const rows = Array.from({ length: 4 }, () => newRow(rid, { sender: alice }));
    for (const row of rows) await store.enqueueRemote(blue, row);
    const { streamId } = await store.outboundStream(blue, 'bulk');
    await store.settleOutbox(blue, 'bulk', streamId, 3, [
      { seq: 2, rid, reason: 'QUEUE_FULL', temporary: true },
      { seq: 3, rid, reason: 'BLOCKED', temporary: false },
    ]);
    const mids = [...rows.map(({ mid }) => mid), systemRandom.bytes(16)];
    const states = async (asker = alice, peer = blue): Promise<string[]> => {
      const { statuses } = await store.relayStatus(asker, peer, mids);
      assert.deepEqual(
        statuses.map(({ mid }) => hex(mid)),
        mids.map(hex),
      );
      return statuses.map(({ state, reason }) => `${state} ${reason}`.trim());
    };
    assert.deepEqual(await states(), [
      'relayed',
      'deferred',
      'bounced BLOCKED',
      'queued',
      'unknown',
    ]);
    const nothing = mids.map(() => 'unknown');
    assert.deepEqual(await states(alice, 'green.example'), nothing, 'another peer');
    assert.deepEqual(await states(await addDevice(store, 'bob')), nothing, 'another device');
    assert.deepEqual(await states(systemRandom.bytes(32)), nothing, 'nobody');
    fixture.nowMs += 5 * minuteMs;
    await store.requeueDue();
    assert.equal((await states())[1], 'queued');
    fixture.nowMs += 72 * hourMs;
    await store.sweep();
    assert.deepEqual(await states(), ['unknown', 'queued', 'bounced BLOCKED', 'queued', 'unknown']);
    fixture.nowMs += 30 * dayMs;
    await store.sweep();
    assert.equal((await states())[2], 'unknown');
  });

  test('a dead letter that is sent again is what it is now', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const row = newRow(systemRandom.bytes(32), { sender: alice });
    await store.enqueueRemote(blue, row);
    const { streamId } = await store.outboundStream(blue, 'bulk');
    const reject = { seq: 1, rid: row.rid, reason: 'BLOCKED', temporary: false };
    await store.settleOutbox(blue, 'bulk', streamId, 1, [reject]);
    const state = async (): Promise<string | undefined> =>
      (await store.relayStatus(alice, blue, [row.mid])).statuses[0]?.state;
    assert.equal(await state(), 'bounced');
    await store.enqueueRemote(blue, row);
    assert.equal(await state(), 'queued');
    await store.settleOutbox(blue, 'bulk', streamId, 2, []);
    assert.equal(await state(), 'relayed');
  });

  test('an answer is bounded, one for each device of a message', async () => {
    const { fixture, store } = await storeFixture(open, bigLimits);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    const sent = newRow(systemRandom.bytes(32), { sender: alice });
    const max = storeBounds.statusesPerAnswer;
    await Promise.all(
      Array.from({ length: max - 1 }, () =>
        store.enqueueRemote(blue, { ...sent, rid: systemRandom.bytes(32) }),
      ),
    );
    const other = systemRandom.bytes(16);
    const full = await store.relayStatus(alice, blue, [sent.mid, other, other]);
    assert.equal(full.statuses.length, max);
    assert.equal(new Set(full.statuses.map(({ rid }) => hex(rid))).size, max);
    const cut = await store.relayStatus(alice, blue, [other, other, sent.mid]);
    assert.deepEqual(
      cut.statuses.map(({ state }) => state),
      ['unknown', 'unknown'],
    );
  });

  test('it says since when the peer is away', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const alice = await addDevice(store, 'alice');
    assert.deepEqual(await store.relayStatus(alice, blue, []), { awaySinceMs: 0, statuses: [] });
    await store.setPeerState(blue, { failures: 1, nextTryMs: 0, failingSinceMs: 77 });
    assert.equal((await store.relayStatus(alice, blue, [])).awaySinceMs, 77);
  });

  test('what a device sent is not told to the one that comes after it', async () => {
    const { fixture, store } = await storeFixture(open);
    await using _ = fixture;
    const account = newAccount('alice');
    await registerAccount(store, account);
    const sender = account.device.identityPub;
    const rows = [1, 2].map(() => newRow(systemRandom.bytes(32), { sender }));
    for (const row of rows) await store.enqueueRemote(blue, row);
    const { streamId } = await store.outboundStream(blue, 'bulk');
    await store.settleOutbox(blue, 'bulk', streamId, 1, []);
    await commitEffects(store, {
      kind: 'close',
      userId: 'alice',
      manifest: newManifest(),
      manifestSeq: 1,
    });
    const carol = await addDevice(store, 'carol');
    const { statuses } = await store.relayStatus(
      carol,
      blue,
      rows.map(({ mid }) => mid),
    );
    assert.deepEqual(
      statuses.map(({ state }) => state),
      ['unknown', 'unknown'],
    );
  });
}
