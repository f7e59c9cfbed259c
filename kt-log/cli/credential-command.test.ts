/** A person's credential, checked by somebody who knows the log's keys and two auditors. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditorOf, device, pass, transportOf } from '../client-fixture.ts';
import { nativeSuite } from '../native-suite.ts';
import { parsePolicy } from '../policy.ts';
import { decode, encode } from '../presentation.ts';
import { labelOf, testLog } from '../test-log.ts';
import { wrappedCredential } from '../wrapped-credential.ts';
import { credentialFacts, isCredential } from './credential-command.ts';

const alice = labelOf('alice@red.example');
const auditors = ['blue.example', 'green.example'].map((name, i) => auditorOf(name, 90 + i));
const policy = parsePolicy(
  nativeSuite.sha256,
  `${auditors.map(({ name, vkey }) => `witness ${name} ${vkey}\n`).join('')}quorum none\n`,
);

test('a credential names its person, version and auditors, or is refused', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await pass(face, 4);
  await client.owner.start(transport, alice);
  await client.owner.update(transport, alice, [labelOf('her key')]);
  await pass(face, 9);
  const bare = (await client.credentials.refresh(transport, alice)) ?? assert.fail();
  const parts = decode(wrappedCredential, bare);
  const checkpoint = auditors.reduce((note, one) => one.cosigned(note), parts.checkpoint);
  const bytes = encode(wrappedCredential, { ...parts, checkpoint });
  const { identity, config, clock } = face;
  const keys = { origin: identity.origin, key: identity.key, config };

  assert.equal(isCredential(bytes), true);
  assert.equal(isCredential(bytes.subarray(1)), false);
  const facts = credentialFacts(bytes, keys, policy, clock.now());
  assert.equal(facts['label'], 'alice@red.example');
  assert.equal(facts['version'], 0);
  assert.equal(facts['auditors'], 'blue.example green.example');
  const value = nativeSuite.sha256(labelOf('her key'));
  assert.equal(facts['value sha256'], Buffer.from(value).toString('hex'));

  const now = clock.now();
  assert.throws(() => credentialFacts(bare, keys, policy, now), { reason: 'BAD_SIGNATURE' });
  assert.throws(() => credentialFacts(bytes, keys, policy, now + 864_000_001), {
    reason: 'TOO_OLD',
  });
  assert.throws(() => credentialFacts(bytes, undefined, policy, now), { name: 'UsageError' });
  assert.throws(() => credentialFacts(bytes, keys, undefined, now), { name: 'UsageError' });
  const [flipped] = [Uint8Array.from(bytes)];
  flipped[40] = (flipped[40] ?? 0) ^ 1;
  assert.throws(() => credentialFacts(flipped, keys, policy, now), { name: 'VerificationError' });
});
