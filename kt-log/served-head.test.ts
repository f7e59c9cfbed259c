/** Cosignatures of our checkpoints, and which head an answer is built at because of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KtLog } from './log.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import {
  cosign,
  formatNote,
  formatVkey,
  noteKey,
  parseNote,
  SignatureType,
  verifyNote,
} from './note.ts';
import { searchRequest } from './operations.ts';
import { meetsQuorum, parsePolicy } from './policy.ts';
import { encode } from './presentation.ts';
import { KtService } from './serve.ts';
import type { Cosigners } from './served-head.ts';
import { labelOf, testLog } from './test-log.ts';
import { verifySearch } from './verify-search.ts';

const utf8 = new TextEncoder();
const { sha256 } = nativeSuite;

function cosigner(name: string, seed: number) {
  const signer = nativeSigner(new Uint8Array(32).fill(seed));
  const key = noteKey(sha256, name, SignatureType.cosignatureV1, signer.publicKey);
  return { key, sign: (text: string) => cosign(text, key, signer, 1_700_000_000) };
}
const blue = cosigner('blue.example/auditor', 1);
const green = cosigner('green.example/auditor', 2);
const grey = cosigner('grey.example/auditor', 3);

const witness = (name: string, one: typeof blue): string =>
  `witness ${name} ${formatVkey(one.key)}`;
const policy = parsePolicy(
  sha256,
  [
    witness('blue', blue),
    witness('green', green),
    'group auditors all blue green',
    'quorum auditors',
  ].join('\n'),
);
const known: Cosigners = { keys: [blue.key, green.key], policy };

const create = (log: KtLog, name: string) =>
  log.update({ label: labelOf(name), values: [labelOf(name)] });
/** The checkpoint of a size with cosignatures, as a peer sends it back. */
async function cosigned(log: KtLog, size: number, ...by: readonly (typeof blue)[]) {
  const { text, signatures } = parseNote(utf8.encode(await log.checkpoint(size)));
  const more = by.map((one) => one.sign(text));
  return utf8.encode(formatNote({ text, signatures: [...signatures, ...more] }));
}

test('cosignatures of known cosigners are kept once and served with the checkpoint', async () => {
  const { log, store, identity } = await testLog({ cosigners: () => ({ keys: known.keys }) });
  await create(log, 'alice');
  await create(log, 'bob');
  assert.equal(await log.addCosignatures(await cosigned(log, 1, grey)), 0);
  assert.equal(await log.addCosignatures(await cosigned(log, 1, blue, grey, blue)), 1);
  assert.equal(await log.addCosignatures(await cosigned(log, 1, blue, green)), 1);
  assert.equal(await log.addCosignatures(await cosigned(log, 1, green)), 0);
  assert.equal((await store.cosignatures(1)).length, 2);
  const note = parseNote(utf8.encode(await log.checkpoint(1)));
  const by = verifyNote(nativeSuite, note, [identity.key, ...known.keys]);
  assert.deepEqual(
    by.map((one) => one.key),
    [identity.key, blue.key, green.key],
  );
  assert.equal(meetsQuorum(policy, by).ok, true);
  assert.equal(parseNote(utf8.encode(await log.checkpoint(2))).signatures.length, 1);
});

test('a note that is not ours or not signed as it says is refused, and nothing of it kept', async () => {
  const { log, store } = await testLog({ cosigners: () => ({ keys: known.keys }) });
  await create(log, 'alice');
  const note = new TextDecoder().decode(await cosigned(log, 1, blue));
  const refused = (text: string, reason: string) =>
    assert.rejects(log.addCosignatures(utf8.encode(text)), { name: 'VerificationError', reason });
  await refused(note.replace('red.example\n1\n', 'red.example\n2\n'), 'CHAIN');
  await refused(note.replace('red.example\n1\n', 'green.example\n1\n'), 'CHAIN');
  await refused(note.replace('\nkeytrans ', '\nkeytrans A'), 'CHAIN');
  await refused(note.slice(0, -20), 'MALFORMED');
  await refused('', 'MALFORMED');
  const { text } = parseNote(utf8.encode(note));
  const forged = { ...green.sign(text), name: blue.key.name, keyId: blue.key.keyId };
  const both = formatNote({ text, signatures: [green.sign(text), forged] });
  await refused(both, 'BAD_SIGNATURE');
  assert.deepEqual(await store.cosignatures(1), []);
});

test('answers prefer the head with quorum until it is outdated, never below what the user saw', async () => {
  const { log, clock } = await testLog({
    cosigners: () => known,
    servedHeadLimits: { quorumMs: 0 },
  });
  const servedAt = (last?: number): number => log.answers(last).size;
  await create(log, 'alice');
  assert.equal(servedAt(), 1);
  await log.addCosignatures(await cosigned(log, 1, blue));
  await create(log, 'bob');
  assert.equal(servedAt(), 2, 'one of two is no quorum');
  await log.addCosignatures(await cosigned(log, 1, green));
  assert.equal(servedAt(), 1);
  await assert.rejects(log.search({ label: labelOf('bob') }), { reason: 'UNKNOWN_USER' });
  assert.equal((await log.search({ label: labelOf('bob'), last: 2 })).version, 0);
  clock.advance(4999);
  assert.deepEqual([servedAt(1), servedAt(2)], [1, 2]);
  clock.advance(1);
  assert.equal(servedAt(), 2, 'the head with quorum has had a successor for five seconds');
  await create(log, 'carol');
  await log.addCosignatures(await cosigned(log, 2, blue, green));
  assert.equal(servedAt(), 2);
  await log.addCosignatures(await cosigned(log, 3, blue, green));
  assert.equal(servedAt(), 3);
  clock.advance(3_600_000);
  assert.equal(servedAt(), 3);
});

test('an update waits for its quorum, and not for long', async () => {
  const { log, clock } = await testLog({ cosigners: () => known });
  const isDone = async (update: Promise<unknown>): Promise<boolean> => {
    let done = false;
    void update.then(() => (done = true));
    // Over memory, what waits for no timer is over after some hundred microtasks.
    for (let turn = 0; turn < 500; turn++) await Promise.resolve();
    return done;
  };
  const next = (): Promise<unknown> => new Promise((resolve) => log.onHead(resolve));
  let head = next();
  const first = create(log, 'alice');
  await head;
  assert.equal(await isDone(first), false);
  await log.addCosignatures(await cosigned(log, 1, blue));
  assert.equal(await isDone(first), false);
  await log.addCosignatures(await cosigned(log, 1, green));
  assert.equal((await first).position, 0);
  head = next();
  const second = create(log, 'bob');
  await head;
  assert.equal(await isDone(second), false);
  clock.advance(1999);
  assert.equal(await isDone(second), false);
  clock.advance(1);
  const { position, fullTreeHead } = await second;
  assert.deepEqual([position, fullTreeHead.type], [1, 'updated']);
  head = next();
  const third = create(log, 'carol');
  await head;
  await log[Symbol.asyncDispose]();
  assert.equal((await third).position, 2);
});

test('a label that the head with quorum lacks is answered at the newest head', async () => {
  const { log, verifier, clock } = await testLog({ cosigners: () => known });
  const service = new KtService(log);
  // No quorum will come for an update: it does not wait for one either.
  await log.append({ label: labelOf('alice'), greatest: -1, values: [labelOf('value')] });
  await log.addCosignatures(await cosigned(log, 1, blue, green));
  await log.append({ label: labelOf('bob'), greatest: -1, values: [labelOf('value')] });
  const ask = (name: string) => {
    const request = { last: undefined, label: labelOf(name), version: undefined };
    return encode(searchRequest, request);
  };
  assert.equal((await service.search(ask('alice'))).size, 1);
  const bob = await service.search(ask('bob'));
  assert.equal(bob.size, 2);
  verifySearch(verifier, undefined, { label: labelOf('bob') }, bob.response, clock.now());
  await assert.rejects(service.search(ask('carol')), { reason: 'UNKNOWN_USER' });
  assert.equal((await service.absence(ask('carol'))).size, 2);
  await assert.rejects(service.absence(ask('bob')), { reason: 'BAD_FIELD' });
});
