/** Credentials between people: by a known head, by auditors, and what is refused of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditorOf, device, pass, put, transportOf } from './client-fixture.ts';
import type { Face } from './client-fixture.ts';
import { nativeSuite } from './native-suite.ts';
import { parsePolicy } from './policy.ts';
import { decode, encode } from './presentation.ts';
import { labelOf, testLog } from './test-log.ts';
import type { StrangerRules } from './wrapped-credential.ts';
import { defaultAuditorsMin, wrapCredential, wrappedCredential } from './wrapped-credential.ts';

const alice = labelOf('alice@red.example');
const recentMs = 864_000_000;
const auditors = ['blue.example', 'green.example', 'red.example'].map((name, i) =>
  auditorOf(name, 90 + i),
);
const policy = parsePolicy(
  nativeSuite.sha256,
  `${auditors.map(({ name, vkey }) => `witness ${name} ${vkey}\n`).join('')}quorum none\n`,
);
const rules: StrangerRules = { policy, auditorsMin: defaultAuditorsMin, recentMs };

/** The wrapped credential with so many more cosignatures. */
function cosigned(wrapped: Uint8Array, signers: typeof auditors): Uint8Array {
  const parts = decode(wrappedCredential, wrapped);
  const checkpoint = signers.reduce((note, one) => one.cosigned(note), parts.checkpoint);
  return encode(wrappedCredential, { ...parts, checkpoint });
}

/** Alice with a credential: of a distinguished entry, or of one that is too young. */
async function withCredential(isProvisional: boolean) {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  // Her entry has the position 4, which has no wide bracket for some time.
  await pass(face, 4);
  await client.owner.start(transport, alice);
  await client.owner.update(transport, alice, [labelOf('her key')]);
  await pass(face, isProvisional ? 1 : 9);
  const wrapped = (await client.credentials.refresh(transport, alice)) ?? assert.fail();
  return { face, transport, client, wrapped };
}
async function contactOf(face: Face) {
  const { client } = device(face);
  await client.distinguished(transportOf(face));
  return client;
}

test('who knows the distinguished head needs nobody', async () => {
  const { face, wrapped } = await withCredential(false);
  const contact = await contactOf(face);
  const opened = contact.credentials.open(wrapped);
  assert.deepEqual(
    [opened.version, opened.value, opened.basis, opened.pending],
    [0, labelOf('her key'), 'known-head', undefined],
  );
  assert.deepEqual(contact.known(alice), undefined, 'opening changes no state');
});

test('a stranger goes by auditors of other operators, and by recent entries only', async () => {
  const { face, client: owner, wrapped } = await withCredential(false);
  const { client: stranger } = device(face);
  const [blue, green, red] = auditors;
  assert.ok(blue && green && red);
  const open = (bytes: Uint8Array, by: StrangerRules | undefined = rules) =>
    stranger.credentials.open(bytes, by);
  const opened = open(cosigned(wrapped, [blue, green]));
  assert.deepEqual(
    [opened.version, opened.basis, opened.auditors],
    [0, 'auditors', ['blue.example', 'green.example']],
  );
  const head = owner.distinguishedHeads().find((one) => one.timestampMs === opened.entryTimeMs);
  assert.ok(head !== undefined, 'dated by its entry');
  const tooFew = { reason: 'BAD_SIGNATURE', checked: 'cosignatures' };
  assert.throws(() => open(wrapped), tooFew);
  // The log's own operator does not count.
  assert.throws(() => open(cosigned(wrapped, [blue, red])), tooFew);
  assert.throws(() => stranger.credentials.open(cosigned(wrapped, [blue, green])), {
    reason: 'NOT_FOUND',
  });
  face.clock.advance(recentMs + 1);
  assert.throws(() => open(cosigned(wrapped, [blue, green])), { reason: 'TOO_OLD' });
});

test('an entry that is not in the cosigned tree, and proofs of another', async () => {
  const { face, wrapped } = await withCredential(false);
  const { client: stranger } = device(face);
  const signed = cosigned(wrapped, auditors);
  const parts = decode(wrappedCredential, signed);
  const lies: [Partial<typeof parts>, RegExp][] = [
    [{ entry: parts.entry.with(39, (parts.entry[39] ?? 0) ^ 1) }, /BAD_ROOT/],
    [{ entry: parts.entry.with(7, (parts.entry[7] ?? 0) ^ 1) }, /BAD_ROOT/],
    [{ inclusion: parts.inclusion.subarray(32) }, /COUNT|BAD_ROOT/],
    [{ inclusion: new Uint8Array([...parts.inclusion, ...new Uint8Array(32)]) }, /COUNT/],
  ];
  for (const [lie, reason] of lies) {
    const bytes = encode(wrappedCredential, { ...parts, ...lie });
    assert.throws(
      () => stranger.credentials.open(bytes, rules),
      (error: { reason: string }) => reason.test(error.reason),
    );
  }
  for (let length = 0; length < signed.length; length += 7) {
    assert.throws(() => stranger.credentials.open(signed.subarray(0, length), rules), {
      reason: 'MALFORMED',
    });
  }
  assert.throws(() => stranger.credentials.open(new Uint8Array([...signed, 0]), rules), {
    reason: 'MALFORMED',
  });
  // No byte of it can be changed to mean another value.
  for (let at = 0; at < signed.length; at += 5) {
    const mutant = signed.with(at, (signed[at] ?? 0) ^ 4);
    let opened;
    try {
      opened = stranger.credentials.open(mutant, rules);
    } catch (error) {
      assert.ok((error as Error).name === 'VerificationError', String(error));
      continue;
    }
    assert.deepEqual([opened.version, opened.value], [0, labelOf('her key')], `byte ${at}`);
  }
});

test('a provisional credential is settled by its sender’s update or by a later entry', async () => {
  const { face, client, transport, wrapped } = await withCredential(true);
  const contact = await contactOf(face);
  const { pending, value } = contact.credentials.open(wrapped);
  assert.deepEqual(value, labelOf('her key'));
  assert.ok(pending !== undefined);
  assert.equal(contact.credentials.settle(pending), false);
  // Strangers have nothing to check it against.
  const { client: stranger } = device(face);
  assert.throws(() => stranger.credentials.open(cosigned(wrapped, auditors), rules), {
    reason: 'NOT_FOUND',
  });
  await assert.rejects(client.credentials.settlement(transport, alice), { reason: 'BAD_CURSOR' });
  await pass(face, 12);
  const update = (await client.credentials.settlement(transport, alice)) ?? assert.fail();
  // A contact without the newer heads keeps the update for later.
  assert.throws(() => contact.credentials.settle(pending, update), { reason: 'NOT_FOUND' });
  await contact.distinguished(transport);
  assert.equal(contact.credentials.settle(pending, update), true);
  const standard = (await client.credentials.refresh(transport, alice)) ?? assert.fail();
  assert.equal(contact.credentials.open(standard).pending, undefined);
  assert.equal(await client.credentials.settlement(transport, alice), undefined);
});

test('one’s own credential is not kept when it is of another version, or of somebody else', async () => {
  const { face, client, transport } = await withCredential(false);
  const service = transport.credential.bind(transport);
  const old = await service(alice, {});
  await client.owner.update(transport, alice, [labelOf('her second key')]);
  const before = client.credentials.own(alice);
  const behind = { ...transport, credential: () => Promise.resolve(old) };
  assert.equal(await client.credentials.refresh(behind, alice), undefined);
  assert.deepEqual(client.credentials.own(alice), before);
  // A version that is not known here is news, which the owner's round is to bring.
  await client.owner.monitor(transport, alice);
  const isDue = (): boolean => (client.owner.labels()[0]?.dueMs ?? 0) <= face.clock.now();
  assert.equal(isDue(), false);
  await put(face, 'alice@red.example', 'planted', 1);
  assert.equal(await client.credentials.refresh(transport, alice), undefined);
  assert.equal(isDue(), true);
  await put(face, 'bob@red.example', 'his');
  const other = { ...transport, credential: () => service(labelOf('bob@red.example'), {}) };
  await assert.rejects(client.credentials.refresh(other, alice), {
    reason: 'CHAIN',
    checked: 'credential label',
  });
  assert.deepEqual(client.credentials.own(alice), before);
  assert.ok(wrapCredential(old).length < 2000, 'about 1.5 KB beside the value');
});
