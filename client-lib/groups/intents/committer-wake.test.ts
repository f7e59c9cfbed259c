/** When a committer looks once more: woken in the instant in which it decides to rest, or put off by a wrong clock. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeIntent } from './group-intents.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { company } from '../../test-company.ts';

test('an intent that comes while a committer makes up its mind to rest is done at once', async () => {
  const { clock, alice, bob, carol, id } = await company([mandatorySuite]);
  const { groupLog } = alice.store;
  const far = clock.now() + 24 * 3_600_000;
  const later = encodeIntent({ kind: 'rekey', isDuty: true });
  groupLog.addIntent({ groupId: id, dueMs: far, ...later }, clock.now());
  const openIntents = groupLog.openIntents.bind(groupLog);
  let added = 0;
  Object.assign(groupLog, {
    openIntents: (groupId: Uint8Array) => {
      const rows = openIntents(groupId);
      if (added === 0) {
        // The committer has read this, and is about to rest till tomorrow.
        added = -1;
        queueMicrotask(() => {
          const intent = encodeIntent({ kind: 'rekey' });
          added = groupLog.addIntent({ groupId: id, dueMs: clock.now(), ...intent }, clock.now());
          alice.groups.committer.wake(id);
        });
      }
      return rows;
    },
  });
  alice.groups.committer.kick();
  await alice.groups.committer.idle();
  assert.equal(groupLog.intent(added)?.state, 'DONE');
  for (const device of [alice, bob, carol]) await device.groups.stop();
});

test('an intent that was put off while the clock was months ahead is done at once', async () => {
  const { clock, alice, bob, carol, id } = await company([mandatorySuite]);
  const { groupLog } = alice.store;
  const dueMs = clock.now() + 60 * 24 * 3_600_000;
  const intent = encodeIntent({ kind: 'rekey', isDuty: true });
  const added = groupLog.addIntent({ groupId: id, dueMs, ...intent }, clock.now());
  alice.groups.committer.kick();
  await alice.groups.committer.idle();
  assert.equal(groupLog.intent(added)?.state, 'DONE');
  for (const device of [alice, bob, carol]) await device.groups.stop();
});
