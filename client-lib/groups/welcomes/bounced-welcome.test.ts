/**
 * A Welcome that a hub could not bring, since the inbox was full for strangers, is the inviter's to bring
 * (docs/protocol/delivery.md, "Delivery tokens"), also when it hears of that before it hears that its commit won.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, RowKind } from '@quicprochat/proto';
import { create, NoticeSchema, NoticeType, toBinary } from '@quicprochat/proto/messages';
import { mandatorySuite } from '../../mls/index.ts';
import { outboxBounds } from '../../store/outbox-bounds.ts';
import { takeNotice } from '../../sending/notices.ts';
import { TestDevice, testStoreId } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { testRuntime } from '../../test-runtime.ts';

function bounce(mid: Uint8Array, { rid }: TestDevice) {
  const fields = { type: NoticeType.BOUNCE, mids: [mid], rid, domain: 'blue.example' };
  const payload = toBinary(NoticeSchema, create(NoticeSchema, { ...fields, reason: 'QUEUE_FULL' }));
  const row = { seq: 1, kind: RowKind.Notice, receivedMs: 0, payload };
  return { ...row, mid: testRuntime.random.bytes(16) };
}

for (const isEarly of [false, true]) {
  test(`a Welcome that came back ${isEarly ? 'before' : 'after'} the hub's OK is brought by its inviter`, async () => {
    const directory = new TestDirectory();
    const options = { suites: [mandatorySuite] };
    const alice = new TestDevice('alice@red.example', directory, options);
    const bob = new TestDevice('bob@blue.example', directory, options);
    const carol = new TestDevice('carol@blue.example', directory, options);
    const mids: Uint8Array[] = [];
    const nothing = (): void => undefined;
    const quiet = {
      ...{ store: alice.store, emit: nothing },
      ...{ onWaits: nothing, onDue: nothing, onStuckPost: nothing },
    };
    directory.hub.beforeSubmit = async (_from, { welcomes }) => {
      for (const { mid } of welcomes) mids.push(mid);
      for (const { mid } of isEarly ? welcomes : []) {
        await alice.writer.run(async (batch) => takeNotice(quiet, bounce(mid, bob), batch));
      }
    };
    const id = await alice.conversations.create('full', [bob.userId, carol.userId]);
    const [mid] = mids;
    assert.ok(mid !== undefined);
    // Told twice, of a device that is not meant, and of nothing: only the one copy waits.
    for (const one of isEarly ? [alice] : [bob, bob, alice])
      await alice.receive(bounce(mid, one), RowKind.Notice);
    await alice.receive(bounce(new Uint8Array(0), bob), RowKind.Notice);

    const { outbox } = alice.store;
    const nowMs = alice.runtime.clock.now();
    const waits = outbox.tokenWaits(nowMs);
    assert.deepEqual(
      waits.map(({ target, isHeld }) => [target, isHeld]),
      [[hex(bob.rid), true]],
    );
    assert.equal(outbox.isHeld(hex(bob.rid), nowMs + outboxBounds.tokenWaitMinMs), false);
    const told = alice.events.filter(({ type }) => type === 'waitsForToken');
    assert.deepEqual(told, [{ type: 'waitsForToken', messageId: undefined, rid: bob.rid }]);
    assert.equal(outbox.next(hex(carol.rid), 0), undefined, 'nobody brings hers yet');

    const entry = outbox.next(hex(bob.rid), 0);
    assert.ok(entry !== undefined);
    outbox.markAccepted(entry.id, testStoreId, nowMs, { tokenWaits: 1, token: undefined });
    // The hub's word once more: the copy is on its own way.
    await alice.receive(bounce(mid, bob), RowKind.Notice);
    assert.deepEqual(outbox.tokenWaits(nowMs), []);
    await bob.receive({ mid: entry.mid, payload: entry.payload });
    assert.equal(bob.store.groups.conversation(id)?.name, 'full');
    // And what comes back under its own mid waits again.
    await alice.receive(bounce(entry.mid, bob), RowKind.Notice);
    assert.equal(outbox.tokenWaits(nowMs).length, 1);
  });
}
