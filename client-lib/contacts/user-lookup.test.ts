/** A Welcome to strangers is opened when all of them are known, and not once for each of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mandatorySuite } from '../mls/index.ts';
import { publishCrowd } from '../test-crowd.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';

test('a Welcome that waits for many people is tried again when the last one is found', async (context) => {
  const directory = new TestDirectory();
  const [alice, zoe] = ['alice', 'zoe'].map(
    (name) => new TestDevice(`${name}@red.example`, directory, { suites: [mandatorySuite] }),
  );
  assert.ok(alice !== undefined && zoe !== undefined);
  const crowd = await publishCrowd(directory, 6, mandatorySuite);
  const id = await alice.conversations.create('crowd', [zoe.userId, ...crowd]);
  const [row] = directory.hub.takeRows(alice.rid, zoe.rid);
  assert.ok(row !== undefined);
  const tries = context.mock.method(zoe.store.keys, 'keyPackage');
  await zoe.receive(row);
  assert.equal((await zoe.conversations.groupState(id))?.epoch, 1);
  // Each time it looks for the package of each of the invited.
  const looks = tries.mock.callCount() / (crowd.length + 1);
  assert.equal(looks, 2, 'once without anybody known, and once with all');
  assert.deepEqual(zoe.store.inbox.parked(), []);
});
