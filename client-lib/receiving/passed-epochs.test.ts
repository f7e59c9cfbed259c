/** What comes under a key that went with its epoch waits for nothing; what comes under one that never was here does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, systemRandom as random } from '@quicprochat/proto';
import { sealChannel } from '../crypto/envelope.ts';
import { Housekeeping } from '../housekeeping.ts';
import { receiverLimits } from './receiver.ts';
import { xwingSuite } from '../mls/index.ts';
import { pastEpochLimits } from '../mls/past-epochs.ts';
import { groupBounds } from '../store/group-rows.ts';
import { openMemoryStore } from '../store/index.ts';
import { company } from '../test-company.ts';
import { exchange, testStoreId } from '../test-devices.ts';

const hourMs = 3_600_000;

test('a row of an epoch that is kept no more is told as such, one under an unknown key waits', async () => {
  const { clock, alice, bob, carol, id } = await company([xwingSuite]);
  await bob.conversations.send(id, 'late');
  const entry = bob.store.outbox.next(hex(carol.rid), 0);
  assert.ok(entry !== undefined);
  bob.store.outbox.markAccepted(entry.id, testStoreId, clock.now());
  await alice.conversations.rotateKeys(id);
  await exchange(alice, bob, carol);
  clock.advance(pastEpochLimits.keptMs + 1);
  await new Housekeeping(carol).round();
  carol.restart();
  await carol.receive({ mid: entry.mid, payload: entry.payload });
  const reasons = carol.store.inbox.undecryptable().map(({ reason }) => reason);
  assert.deepEqual(reasons, ['EPOCH_GONE']);
  assert.deepEqual(carol.store.inbox.parked(), []);
  // Of a group whose Welcome is still under way, for all that is known here.
  const content = { kind: 'mlsMessage', bytes: new Uint8Array(64) } as const;
  const payload = sealChannel({ content, key: random.bytes(32), random });
  await carol.receive({ mid: random.bytes(16), payload });
  assert.deepEqual(
    carol.store.inbox.parked().map(({ reason }) => reason),
    ['UNKNOWN_KEY'],
  );
  // For as long as a Welcome lives, also where the device is never started anew.
  clock.advance(receiverLimits.parkedMs - hourMs);
  await carol.receiver.retryDue();
  assert.equal(carol.store.inbox.parked().length, 1);
  clock.advance(2 * hourMs);
  await carol.receiver.retryDue();
  assert.deepEqual(carol.store.inbox.parked(), []);
  assert.equal(carol.store.inbox.undecryptable().at(-1)?.reason, 'EXPIRED_UNKNOWN_KEY');
});

test('of the keys that are gone the newest are known', () => {
  const store = openMemoryStore();
  const { groups } = store;
  const isPassed = (epoch: number): boolean => groups.isPassedKey(idOf(epoch));
  const groupId = random.bytes(16);
  const idOf = (epoch: number): Uint8Array => {
    const keyId = Buffer.alloc(8);
    keyId.writeUInt32BE(epoch);
    return keyId;
  };
  const extra = 3;
  store.transaction(() => {
    for (let epoch = 0; epoch < groupBounds.passedKeys + extra; epoch += 1) {
      const key = { keyId: idOf(epoch), groupId, epoch: BigInt(epoch), key: new Uint8Array(32) };
      groups.putEnvelopeKey(key);
    }
    groups.putEnvelopeKey({
      ...{ keyId: idOf(1), groupId: random.bytes(16), epoch: 1n, key: new Uint8Array(32) },
    });
  });
  assert.equal(isPassed(5), false);
  groups.dropEpochsBelow(groupId, 5n);
  assert.deepEqual([4, 5].map(isPassed), [true, false]);
  // Another group's key may have the same id: it opens what it opens.
  assert.equal(groups.envelopeKeys(idOf(1)).length, 1);
  groups.dropEpochsBelow(groupId, BigInt(groupBounds.passedKeys + extra));
  const known = [0, extra - 1, extra, groupBounds.passedKeys + extra - 1];
  assert.deepEqual(known.map(isPassed), [false, false, true, true]);
});
