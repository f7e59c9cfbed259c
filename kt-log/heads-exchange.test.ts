/** Contacts compare what one log showed them: agreement, forks, and messages that are none. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { device, pass, transportOf, twoFaces } from './client-fixture.ts';
import type { Face } from './client-fixture.ts';
import { compareHeads, decodeHeads, encodeHeads } from './heads-exchange.ts';
import { nativeSuite } from './native-suite.ts';
import { labelOf, testLog } from './test-log.ts';

async function looked(face: Face) {
  const { client } = device(face);
  const transport = transportOf(face);
  await client.search(transport, labelOf('user-0'));
  await client.distinguished(transport);
  return client;
}

test('contacts of an honest log agree, however far apart they looked', async () => {
  const { honest: face } = await twoFaces(6);
  const early = await looked(face);
  await pass(face, 6);
  const late = await looked(face);
  const { agreed } = early.compareHeads(late.headsMessage() ?? assert.fail());
  assert.ok(agreed.length > 1);
  assert.deepEqual(late.compareHeads(early.headsMessage() ?? assert.fail()).agreed, agreed);
  // Lists that do not meet say nothing.
  await pass(face, 60, 60_000);
  const distant = await looked(face);
  assert.equal(distant.distinguishedHeads().length, 10);
  const apart = early.compareHeads(distant.headsMessage() ?? assert.fail());
  assert.deepEqual(apart.agreed, []);
  const { client: fresh } = device(face);
  assert.equal(fresh.headsMessage(), undefined);
  assert.deepEqual(fresh.compareHeads(late.headsMessage() ?? assert.fail()).agreed, []);
});

test('a list with entries missing in between is not joined', async () => {
  const recency = { recentMs: 200_000, countMax: 10 };
  const face = await testLog({ recency });
  const transport = transportOf(face);
  const [rare, steady] = [device(face, { recency }).client, device(face, { recency }).client];
  await pass(face, 5);
  await rare.distinguished(transport);
  for (let i = 0; i < 4; i++) {
    await steady.distinguished(transport);
    await pass(face, 2, 61_000);
  }
  const before = rare.distinguishedHeads().map((head) => head.position);
  await rare.distinguished(transport);
  const after = rare.distinguishedHeads().map((head) => head.position);
  assert.ok(after.length < 10 && !after.some((position) => before.includes(position)));
  assert.ok(rare.compareHeads(steady.headsMessage() ?? assert.fail()).agreed.length > 0);
});

test('lists that differ where they overlap are a fork even without a common size', async () => {
  const { honest, liar } = await twoFaces(2);
  // The liar's branch has other distinguished entries.
  await pass(honest, 9);
  await pass(liar, 14, 13_000);
  const [one, two] = [await looked(honest), await looked(liar)];
  const theirs = two.headsMessage() ?? assert.fail();
  const theirSizes = two.distinguishedHeads().map((head) => head.position + 1);
  // Only what the liar's list does not have, so that no two signatures meet.
  const others = one
    .distinguishedHeads()
    .filter((head) => head.position < 12 && !theirSizes.includes(head.position + 1));
  assert.ok(others.length > 1, theirSizes.join());
  const newest = one.head()?.note ?? assert.fail();
  const keys = { ...honest, suite: nativeSuite };
  const notes = others.map((head) => head.note);
  const ours = encodeHeads(keys, notes, newest);
  assert.throws(() => compareHeads(keys, ours, theirs), { reason: 'FORK', evidence: undefined });
  assert.throws(() => one.compareHeads(two.headsMessage() ?? assert.fail()), { reason: 'FORK' });
});

test('a contact cannot accuse the log with what the log did not sign', async () => {
  const { honest: face } = await twoFaces(6);
  const client = await looked(face);
  const message = client.headsMessage() ?? assert.fail();
  const text = new TextDecoder('latin1').decode(message);
  let refused = 0;
  for (let at = 0; at < message.length; at += 3) {
    const mutant = message.with(at, (message[at] ?? 0) ^ 1);
    try {
      client.compareHeads(mutant);
    } catch (error) {
      const { name, reason } = error as { name: string; reason: string };
      assert.equal(name, 'VerificationError', `byte ${at} of ${text.length}`);
      assert.notEqual(reason, 'FORK', `byte ${at}`);
      refused++;
    }
  }
  assert.ok(refused > message.length / 4);
  for (let length = 0; length < message.length; length += 11) {
    assert.throws(() => decodeHeads(message.subarray(0, length)), { reason: 'MALFORMED' });
  }
  assert.deepEqual(client.evidence(), []);
  // Eleven heads, each without cosignatures.
  assert.ok(message.length < 11 * 400, `${message.length} bytes`);
  const other = await testLog({});
  const foreign = device(other, { identity: { ...other.identity, origin: 'blue.example' } }).client;
  assert.throws(() => foreign.compareHeads(message), { reason: 'CHAIN' });
});
