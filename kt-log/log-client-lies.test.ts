/**
 * Logs that lie with their own keys to clients that keep state, and who catches them with what
 * reason (protocol section 13; kt-log/README.md):
 *
 * lie                                   | caught by                          | reason
 * swapped key, to who saw the true log  | next search: retained subtrees     | BAD_SIGNATURE
 *   and asked for the head seen before  | confront()                         | FORK, evidence same-size
 * swapped key, to its owner             | owner monitoring                   | alarm; a fork: BAD_SIGNATURE
 * withheld version (log stands still)   | any answer: age of the head        | TOO_OLD
 * withheld version (denied to owner)    | update without values              | NOT_FOUND
 * a known label denied to its owner     | the search of an owner's round     | NOT_FOUND
 * swapped value of a version, log tree  | value that was kept; monitoring    | CHAIN; LADDER, BAD_SIGNATURE
 *   consistent, prefix tree rewritten   |                                    |
 * rollback to an older tree             | any answer                         | ROLLBACK
 * rollback of one label                 | search ladder                      | LADDER
 *   over a rewritten prefix tree        | version that was kept; monitoring  | ROLLBACK; LADDER, BAD_SIGNATURE
 * two forks to two clients              | their heads, exchanged             | FORK, evidence same-size
 * another checkpoint than the answer    | extension line                     | FORK, evidence note-vs-head
 * two checkpoints of one size           | the one that was kept              | FORK, evidence same-size
 * skipped distinguished head            | count of timestamps                | COUNT or other
 * a head of the future                  | any answer                         | TOO_NEW
 * times that go back                    | replay of the view                 | NOT_MONOTONIC or BAD_SIGNATURE
 * dropped entry                         | monitoring of who saw it           | BAD_SIGNATURE
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { device, pass, put, rewritingLog, transportOf, twoFaces } from './client-fixture.ts';
import type { Face } from './client-fixture.ts';
import { checkEvidence } from './evidence-check.ts';
import type { LogAnswer, LogTransport } from './client-transport.ts';
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { nativeSuite } from './native-suite.ts';
import { formatNote, parseNote, signNote } from './note.ts';
import * as operations from './operations.ts';
import { decode, encode } from './presentation.ts';
import { labelOf, testLog } from './test-log.ts';
import type { VerificationReason } from './verification-error.ts';
import { VerificationError } from './verification-error.ts';

const alice = labelOf('alice@red.example');
const bob = labelOf('bob@red.example');

/** The failure of a call, which is a refusal for one of these reasons. */
async function refusal(
  call: Promise<unknown>,
  ...reasons: VerificationReason[]
): Promise<VerificationError> {
  const error = await call.then(
    () => assert.fail('the lie was accepted'),
    (one: unknown) => one,
  );
  assert.ok(error instanceof VerificationError, String(error));
  assert.ok(reasons.includes(error.reason), `${error.reason}: ${error.message}`);
  return error;
}

/** Common history, then alice's true key in one face and a swapped one in the other. */
async function swapped(common: number): Promise<{ honest: Face; liar: Face }> {
  const { honest, liar } = await twoFaces(common);
  await put(honest, 'alice@red.example', 'her key');
  await put(liar, 'alice@red.example', 'the key of somebody else');
  return { honest, liar };
}

/** A transport with one method that lies. */
function lying<K extends keyof LogTransport>(
  transport: LogTransport,
  method: K,
  lie: LogTransport[K],
): LogTransport {
  return { ...transport, [method]: lie };
}

test('a swapped key is not accepted by who saw the true log', async () => {
  const { honest, liar } = await swapped(5);
  const { client, store } = device(honest);
  await client.search(transportOf(honest), alice);
  const before = store.copy();
  await pass(liar, 3);
  honest.clock.advance(60_000);
  await refusal(client.search(transportOf(liar), alice), 'BAD_SIGNATURE');
  assert.deepEqual(store.blobs, before);
  // Asked for its head of the size that was seen, the liar convicts itself.
  const { reason } = await refusal(client.confront(transportOf(liar)), 'FORK');
  const verdict = checkEvidence(nativeSuite, client.evidence()[0] ?? assert.fail(reason));
  assert.equal(verdict.kind, 'same-size');
  await client.confront(transportOf(honest));
  // The truth is still accepted.
  await pass(honest, 2);
  assert.deepEqual((await client.search(transportOf(honest), alice)).value, labelOf('her key'));
});

test('a swapped key is an alarm for its owner, and cannot pass for her own', async () => {
  const { honest, liar } = await twoFaces(6);
  const { client } = device(honest);
  await client.owner.start(transportOf(honest), alice);
  await client.owner.update(transportOf(honest), alice, [labelOf('her key')]);
  // The same log goes on with a version that she did not make.
  await put(honest, 'alice@red.example', 'planted', 0);
  await pass(honest, 6);
  const [news] = await client.owner.monitor(transportOf(honest), alice);
  assert.deepEqual([news?.version, news?.isAnnounced], [1, false]);
  // Another face, in which hers was never made, is no continuation of what she saw.
  await put(liar, 'alice@red.example', 'the key of somebody else');
  await pass(liar, 12);
  const { clock } = honest;
  clock.advance(Math.max(0, liar.clock.now() - clock.now()));
  await refusal(client.owner.monitor(transportOf(liar), alice), 'BAD_SIGNATURE');
});

test('a version that is hidden behind a log that stands still', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await put(face, 'alice@red.example', 'one');
  await client.search(transport, alice);
  face.clock.advance(face.config.maxBehindMs + 1);
  await refusal(client.search(transport, alice), 'TOO_OLD');
});

test('a version that is shown to exist and then withheld from its owner', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await pass(face, 3);
  await client.owner.start(transport, alice);
  await put(face, 'alice@red.example', 'planted');
  const deaf = lying(transport, 'update', () =>
    Promise.reject(new InvalidArgumentError('BAD_FIELD', 'nothing newer')),
  );
  await refusal(client.owner.monitor(deaf, alice), 'NOT_FOUND');
  // Every distinguished entry says so too, when a stale search result keeps quiet.
  await client.owner.monitor(transport, alice);
  const denied = lying(transport, 'search', (request) =>
    transport.search(
      encode(operations.searchRequest, {
        ...decode(operations.searchRequest, request),
        label: bob,
      }),
      {},
    ),
  );
  await refusal(client.owner.monitor(denied, alice), 'NOT_FOUND');
});

test('a rollback: an older tree, and an older version in a newer one', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await put(face, 'alice@red.example', 'one');
  const asked = client.searchRequest(alice);
  const old = await transport.search(asked, {});
  await put(face, 'alice@red.example', 'two', 0);
  await client.search(transport, alice);
  await refusal(
    client.carrySearch(alice, () => Promise.resolve(old)),
    'ROLLBACK',
  );
  await pass(face, 1);
  // The greatest version is said to be the one before, with the proof of the fixed version.
  const back = lying(transport, 'search', async (request) => {
    const { last, label } = decode(operations.searchRequest, request);
    const fixed = encode(operations.searchRequest, { last, label, version: 0 });
    const { response, checkpoint } = await transport.search(fixed, {});
    const shown = decode(operations.searchResponse(1, true), response);
    const claimed = { ...shown, version: 0 };
    return { response: encode(operations.searchResponse(1, false), claimed), checkpoint };
  });
  await refusal(client.search(back, alice), 'LADDER', 'COUNT');
});

test('two forks: contacts who exchange their heads hold the evidence', async () => {
  const { honest, liar } = await swapped(6);
  const one = device(honest).client;
  const two = device(liar).client;
  await pass(honest, 7);
  await pass(liar, 7);
  for (const [client, face] of [
    [one, honest],
    [two, liar],
  ] as const) {
    await client.search(transportOf(face), alice);
    await client.distinguished(transportOf(face));
    assert.ok(client.distinguishedHeads().length > 1);
  }
  assert.notDeepEqual(one.known(alice)?.value, two.known(alice)?.value);
  const message = two.headsMessage() ?? assert.fail();
  assert.throws(() => one.compareHeads(message), { reason: 'FORK' });
  const [evidence, ...more] = one.evidence();
  assert.equal(more.length, 0);
  const verdict = checkEvidence(nativeSuite, evidence ?? assert.fail());
  assert.deepEqual([verdict.kind, verdict.origin], ['same-size', 'red.example']);
  // Told again it is kept once.
  assert.throws(() => one.compareHeads(message), { reason: 'FORK' });
  assert.equal(one.evidence().length, 1);
});

test('a checkpoint that names another root than the answer convicts the log', async () => {
  const { honest, liar } = await swapped(3);
  const { client, store } = device(honest);
  const transport = transportOf(honest);
  const mixed = lying(transport, 'search', async (request) => ({
    ...(await transport.search(request, {})),
    checkpoint: new TextEncoder().encode(await liar.log.checkpoint()),
  }));
  await refusal(client.search(mixed, alice), 'FORK');
  const [evidence] = client.evidence();
  const verdict = checkEvidence(nativeSuite, evidence ?? assert.fail());
  assert.equal(verdict.kind, 'note-vs-head');
  assert.deepEqual([...store.blobs.keys()], ['evidence'], 'nothing else was kept');
});

test('two checkpoints for one size convict the log too', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await put(face, 'alice@red.example', 'one');
  await client.search(transport, alice);
  const other = lying(transport, 'search', async (request) => {
    const answer = await transport.search(request, {});
    const lines = parseNote(answer.checkpoint).text.split('\n');
    // Same KEYTRANS root, another root for the witnesses.
    const text = lines.with(2, Buffer.alloc(32, 7).toString('base64')).join('\n');
    const signature = signNote(text, face.identity.key, face.keys.note);
    return {
      ...answer,
      checkpoint: new TextEncoder().encode(formatNote({ text, signatures: [signature] })),
    };
  });
  await refusal(client.search(other, alice), 'FORK');
  const verdict = checkEvidence(nativeSuite, client.evidence()[0] ?? assert.fail());
  assert.equal(verdict.kind, 'same-size');
});

test('a skipped distinguished head leaves wrong counts', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  await pass(face, 12);
  const structure = operations.distinguishedResponse(1);
  const asked = encode(operations.distinguishedRequest, {});
  const whole = decode(structure, (await transport.distinguished(asked, {})).response);
  const { timestamps } = whole.proof;
  assert.ok(timestamps.length > 3);
  for (let drop = 0; drop < timestamps.length; drop++) {
    const { client, store } = device(face);
    const skipping = lying(transport, 'distinguished', async (request) => {
      const answer = await transport.distinguished(request, {});
      const proof = { ...whole.proof, timestamps: timestamps.toSpliced(drop, 1) };
      return { ...answer, response: encode(structure, { ...whole, proof }) };
    });
    const reasons = ['COUNT', 'BAD_ROOT', 'NOT_MONOTONIC', 'BAD_SIGNATURE'] as const;
    await refusal(client.distinguished(skipping), ...reasons);
    assert.equal(store.saves, 0);
  }
});

test('wrong times: a head of the future, and entries that go back', async () => {
  const face = await testLog();
  const transport = transportOf(face);
  const { client } = device(face);
  await put(face, 'alice@red.example', 'one');
  await client.search(transport, alice);
  face.clock.advance(1000);
  await put(face, 'more', 'key');
  const back = lying(transport, 'search', async (request): Promise<LogAnswer> => {
    const answer = await transport.search(request, {});
    const structure = operations.searchResponse(1, false);
    const shown = decode(structure, answer.response);
    const timestamps = shown.search.timestamps.map((ms, i, all) =>
      i === all.length - 1 ? ms - 2000 : ms,
    );
    const lie = { ...shown, search: { ...shown.search, timestamps } };
    return { ...answer, response: encode(structure, lie) };
  });
  await refusal(client.search(back, alice), 'NOT_MONOTONIC', 'BAD_SIGNATURE');
  const early = device(face, { clock: { now: () => face.clock.now() - 400_000 } }).client;
  await refusal(early.search(transport, alice), 'TOO_NEW');
});

test('an entry that was seen and then dropped is missed by monitoring', async () => {
  const { honest, liar } = await swapped(8);
  const { client } = device(honest);
  await client.search(transportOf(honest), alice);
  assert.equal(client.watched().length, 1);
  await pass(liar, 8);
  honest.clock.advance(8 * 20_000);
  await refusal(client.monitor(transportOf(liar), { label: alice }), 'BAD_SIGNATURE');
  // It is still to be monitored.
  assert.equal(client.watched().length, 1);
});

/** Two of alice's versions were seen; then the log's prefix tree is the one from before them. */
async function rewritten() {
  const { face, lie, claim } = await rewritingLog(8, alice);
  const transport = transportOf(face);
  await pass(face, 8);
  const owner = device(face).client;
  const contact = device(face).client;
  const witness = device(face).client;
  await owner.owner.start(transport, alice);
  await owner.owner.update(transport, alice, [labelOf('her key')]);
  await witness.search(transport, alice);
  await owner.owner.update(transport, alice, [labelOf('her second key')]);
  await contact.search(transport, alice);
  const liar = await lie(async (forger) => {
    await pass(forger, 1);
    await put(forger, 'alice@red.example', 'the key of somebody else');
    // Until no distinguished entry shows her versions to a search.
    await pass(forger, 12);
  });
  return { liar, claim, owner, contact, witness };
}

test('a log tree that only grows over a prefix tree that was rewritten', async () => {
  const { liar, claim, owner, contact, witness } = await rewritten();
  const transport = transportOf(liar);
  // Who comes new cannot tell: that is what the others' monitoring is for.
  const fresh = await device(liar).client.search(transport, alice);
  assert.deepEqual(fresh.value, labelOf('the key of somebody else'));
  assert.equal(fresh.version, 0);
  const back = await refusal(contact.search(transport, alice), 'ROLLBACK');
  assert.equal(back.checked, 'greatest version');
  const swap = await refusal(witness.search(transport, alice), 'CHAIN');
  assert.equal(swap.checked, 'value of version 0');
  await refusal(owner.owner.monitor(transport, alice), 'ROLLBACK');
  // Contacts who looked before a distinguished entry had her versions follow them.
  for (const client of [contact, witness]) {
    const call = client.monitor(transport, { label: alice });
    await assert.rejects(call, { name: 'InvalidArgumentError' }, 'the log cannot answer');
  }
  claim();
  for (const client of [contact, witness]) {
    await refusal(client.monitor(transport, { label: alice }), 'LADDER', 'BAD_SIGNATURE');
    assert.equal(client.watched().length, 1);
    // Only the application can know that a label is gone because its owner closed it.
    client.unwatch(alice);
    assert.equal(client.watched().length, 0);
  }
});
