/** Rows that came before their Welcome, and are of a later epoch than it leads to, are opened all the same. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, systemRandom } from '@quicprochat/proto';
import { openHybrid, parseEnvelope, sealChannel } from '../../crypto/envelope.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { HastyClock } from '../../test-company.ts';
import { assertHas, TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';

/** The text that alice has for bob, as she sends it to who has been seen in the group: so nothing names the group. */
async function underGroupKey(alice: TestDevice, bob: TestDevice, id: Uint8Array) {
  const entry = alice.store.outbox.next(hex(bob.rid), 0);
  assert.ok(entry !== undefined);
  const { mid, payload } = entry;
  const seedOf = (keyId: Uint8Array) => bob.store.keys.hybridKey(keyId)?.seed;
  const envelope = parseEnvelope(payload);
  assert.ok(envelope.mode === 'hybrid');
  const content = openHybrid(envelope, seedOf, bob.rid, mid);
  const { key } = await alice.writer.run(async (batch) => {
    const group = batch.group(id);
    assert.ok(group !== undefined);
    return envelopeKeyOf(alice.mls, group);
  });
  return { mid, payload: sealChannel({ content, key, random: systemRandom }) };
}

test('a late Welcome of an epoch that is over leads on to what waits already', async () => {
  const directory = new TestDirectory();
  const options = { suites: [mandatorySuite], clock: new HastyClock() };
  const alice = new TestDevice('alice@red.example', directory, options);
  const bob = new TestDevice('bob@red.example', directory, options);
  const id = await alice.conversations.create('late', [bob.userId]);
  await alice.conversations.rotateKeys(id);
  await alice.conversations.rotateKeys(id);
  // Of what the hub had for bob only the first row comes, his Welcome, and that last.
  const [welcome] = directory.hub.takeRows(alice.rid, bob.rid);
  assert.ok(welcome !== undefined);
  await alice.conversations.send(id, 'before it');
  await bob.receive(await underGroupKey(alice, bob, id));
  assert.ok(bob.store.inbox.hasParked('UNKNOWN_KEY'));
  await bob.receive(welcome);
  while (bob.store.inbox.hasParked('UNKNOWN_KEY')) await options.clock.sleep(1);
  await bob.settle();
  assertHas(bob, id, ['before it']);
});
