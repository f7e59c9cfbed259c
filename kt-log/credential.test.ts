/** Credentials (protocol section 14): standard, provisional, and what settles the latter. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Credential } from './credential.ts';
import {
  credential,
  credentialUpdate,
  settleByEntry,
  verifyCredential,
  verifyCredentialUpdate,
} from './credential.ts';
import type { KtLog } from './log.ts';
import { defaultRecency } from './log.ts';
import { distinguishedResponse } from './operations.ts';
import { decode, encode } from './presentation.ts';
import { labelOf, testLog } from './test-log.ts';
import type { LogVerifier, UserState } from './verify-response.ts';
import type { DistinguishedView } from './verify-search.ts';
import { verifyDistinguished } from './verify-search.ts';

const alice = labelOf('alice@red.example');
const mode = 1;

async function put(log: KtLog, name: string, greatestVersion?: number): Promise<void> {
  await log.update({ label: labelOf(name), greatestVersion, values: [labelOf(`${name}!`)] });
}
/** What a receiver learns from the log by itself. */
async function headsOf(
  log: KtLog,
  verifier: LogVerifier,
  nowMs: number,
  before?: UserState,
): Promise<{ state: UserState; heads: readonly DistinguishedView[] }> {
  const response = await log.distinguished({ last: before?.view.size });
  const bytes = encode(distinguishedResponse(mode), response);
  return verifyDistinguished(verifier, before, defaultRecency, bytes, nowMs);
}
const bytesOf = (given: Credential): Uint8Array => {
  const bytes = encode(credential(mode), given);
  assert.deepEqual(encode(credential(mode), decode(credential(mode), bytes)), bytes);
  return bytes;
};

/** A log whose entry 7 is distinguished and holds alice's version 0. */
async function scene() {
  const made = await testLog();
  const { log, clock } = made;
  await put(log, 'alice@red.example');
  for (let i = 1; i < 8; i++) {
    clock.advance(10_000);
    await put(log, `other-${i}`);
  }
  return made;
}

test('a standard credential needs nothing but a known distinguished entry', async () => {
  const { log, verifier, clock } = await scene();
  const { heads } = await headsOf(log, verifier, clock.now());
  const given = await log.credential(alice);
  assert.equal(given.proof.type, 'standard');
  const bytes = bytesOf(given);
  const verified = verifyCredential(verifier, heads, bytes);
  assert.equal(verified.version, 0);
  assert.deepEqual(verified.value, labelOf('alice@red.example!'));
  assert.equal(verified.pending, undefined);
  const unknown = heads.filter((head) => head.position !== given.position);
  assert.throws(() => verifyCredential(verifier, unknown, bytes), { reason: 'NOT_FOUND' });
  // Another tree at that position: a fork, or a credential of another log.
  const forked = heads.map((head) => ({
    ...head,
    view: {
      ...head.view,
      frontier: head.view.frontier.map((entry) => ({ ...entry, prefixRoot: new Uint8Array(32) })),
    },
  }));
  assert.throws(() => verifyCredential(verifier, forked, bytes), { reason: 'BAD_ROOT' });
  for (let at = 0; at < bytes.length; at += 29) {
    const mutant = bytes.with(at, (bytes[at] ?? 0) ^ 1);
    const run = (): unknown => verifyCredential(verifier, heads, mutant);
    assert.throws(run, { name: 'VerificationError' }, `byte ${at}`);
  }
});

test('a provisional credential is settled by an update once a later entry is distinguished', async () => {
  const { log, verifier, clock } = await scene();
  const known = await headsOf(log, verifier, clock.now());
  clock.advance(1000);
  await put(log, 'alice@red.example', 0);
  const given = await log.credential(alice);
  assert.equal(given.proof.type, 'provisional');
  const bytes = bytesOf(given);
  const { pending, version } = verifyCredential(verifier, known.heads, bytes);
  assert.equal(version, 1);
  assert.ok(pending);
  assert.equal(pending.terminal, 8);
  assert.equal(settleByEntry(pending, known.heads), false);
  const entry = { position: pending.terminal, version };
  const early = log.credentialUpdate(alice, pending.view.size, entry);
  await assert.rejects(early, { name: 'FailedPreconditionError' });
  // From 16 entries on the new root 15 stands above entry 8.
  for (let i = 0; i < 8; i++) {
    clock.advance(10_000);
    await put(log, `later-${i}`);
  }
  const update = encode(
    credentialUpdate,
    await log.credentialUpdate(alice, pending.view.size, entry),
  );
  const notYet = (): void => verifyCredentialUpdate(verifier, pending, known.heads, update);
  assert.throws(notYet, { reason: 'NOT_FOUND' });
  const later = await headsOf(log, verifier, clock.now(), known.state);
  const heads = [...later.heads, ...known.heads];
  verifyCredentialUpdate(verifier, pending, heads, update);
  const forked = heads.map((head) => ({ ...head, root: new Uint8Array(32) }));
  const onFork = (): void => verifyCredentialUpdate(verifier, pending, forked, update);
  assert.throws(onFork, { name: 'VerificationError' });
  for (let at = 0; at < update.length; at += 31) {
    const mutant = update.with(at, (update[at] ?? 0) ^ 1);
    const run = (): void => verifyCredentialUpdate(verifier, pending, heads, mutant);
    assert.throws(run, { name: 'VerificationError' }, `byte ${at}`);
  }
  // By now the label has a standard credential again.
  assert.equal((await log.credential(alice)).proof.type, 'standard');
});

test('a provisional credential is settled when its own entry becomes distinguished', async () => {
  const { log, verifier, clock } = await scene();
  const known = await headsOf(log, verifier, clock.now());
  clock.advance(1000);
  for (let i = 8; i < 11; i++) await put(log, `other-${i}`);
  // Entry 11 is the root's right child: distinguished as soon as a minute has passed after it.
  await put(log, 'alice@red.example', 0);
  const { pending } = verifyCredential(verifier, known.heads, bytesOf(await log.credential(alice)));
  assert.equal(pending?.terminal, 11);
  clock.advance(100_000);
  await put(log, 'late');
  const { heads } = await headsOf(log, verifier, clock.now(), known.state);
  assert.equal(settleByEntry(pending, heads), true);
  const other = { ...pending, terminalRoot: new Uint8Array(32) };
  assert.throws(() => settleByEntry(other, heads), { reason: 'FORK' });
});

test('a label without versions has no credential', async () => {
  const { log } = await scene();
  await assert.rejects(log.credential(labelOf('bob')), { name: 'NotFoundError' });
});
