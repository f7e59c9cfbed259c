/** Who is let in by a Welcome that comes late finds the group where it is now, without a row that says so. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sameBytes } from '@quicprochat/proto';
import { mandatorySuite, type MlsGroup } from './mls/index.ts';
import { assertHas, exchange, TestDevice, TestDirectory } from './test-devices.ts';

test('a Welcome of an epoch that is over leads on to the newest one', async () => {
  const directory = new TestDirectory();
  const options = { suites: [mandatorySuite] };
  const alice = new TestDevice('alice@red.example', directory, options);
  const bob = new TestDevice('bob@red.example', directory, options);
  const id = await alice.conversations.create('late', [bob.userId]);
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  // Of what the hub had for bob only the first row, his Welcome, comes.
  const [welcome] = directory.hub.takeRows(alice.rid, bob.rid);
  assert.ok(welcome !== undefined);
  await bob.receive(welcome);
  await bob.settle();
  const groupOf = ({ writer }: TestDevice): Promise<MlsGroup | undefined> =>
    writer.run(async (batch) => batch.group(id));
  const [theirs, his] = [await groupOf(alice), await groupOf(bob)];
  assert.ok(theirs !== undefined && his !== undefined);
  assert.ok(sameBytes(theirs.epochAuthenticator, his.epochAuthenticator));
  await alice.conversations.send(id, 'welcome');
  await exchange(alice, bob);
  assertHas(bob, id, ['welcome']);
});
