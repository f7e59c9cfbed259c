/** An auditor follows a real log in bundles, resumes, cosigns; a log that lies is convicted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditBundle } from './auditor.ts';
import {
  applyAuditBundle,
  auditBundle,
  auditState,
  cosignAudited,
  signAuditBundle,
} from './auditor.ts';
import type { AuditedLog } from './auditor-update.ts';
import { emptyAudit } from './auditor-update.ts';
import { logEntry } from './hash.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { noteKey, parseNote, SignatureType, verifyNote } from './note.ts';
import { decode, encode } from './presentation.ts';
import type { testKeys } from './test-log.ts';
import { labelOf, testLog } from './test-log.ts';

/** A log of 20 entries, some with several leaves. */
async function scene() {
  const made = await testLog();
  const { log, clock } = made;
  for (let i = 0; i < 20; i++) {
    const names = [`a${i}`, ...(i % 3 === 0 ? [`b${i}`, `c${i}`] : [])];
    const values = [labelOf('value')];
    await Promise.all(names.map((name) => log.update({ label: labelOf(name), values })));
    clock.advance(1000);
  }
  return made;
}
const step = (
  made: { config: ReturnType<typeof testKeys>['config']; clock: { now(): number } } & Pick<
    ReturnType<typeof testKeys>,
    'identity'
  >,
  before: AuditedLog,
  bundle: AuditBundle,
) => applyAuditBundle(nativeSuite, made, before, encode(auditBundle, bundle), made.clock.now());

test('bundles of any length lead to the same state, and it survives being stored', async () => {
  const made = await scene();
  const { log } = made;
  const whole = step(made, emptyAudit, await log.auditBundle(0, 20));
  let state = emptyAudit;
  for (const [from, to] of [
    [0, 1],
    [1, 8],
    [8, 20],
  ] as const) {
    const after = step(made, state, await log.auditBundle(from, to));
    assert.equal(after.checkpoint.size, to);
    state = decode(auditState, encode(auditState, after.log));
  }
  assert.deepEqual(state, whole.log);
  const again = await log.auditBundle(8, 20);
  assert.throws(() => step(made, state, again), { reason: 'COUNT', checked: 'audit bundle range' });
});

test('a bundle that starts before the state has to list the same entries again', async () => {
  const made = await scene();
  const { log: state } = step(made, emptyAudit, await made.log.auditBundle(0, 13));
  const whole = step(made, emptyAudit, await made.log.auditBundle(0, 20));
  for (const from of [0, 8, 12, 13]) {
    assert.deepEqual(step(made, state, await made.log.auditBundle(from, 20)), whole, `${from}`);
  }
  // Subtrees of the state are compared as wholes; nothing new is no continuation.
  const range = { reason: 'COUNT', checked: 'audit bundle range' };
  for (const [from, to] of [
    [9, 20],
    [14, 20],
    [8, 13],
    [0, 4],
  ] as const) {
    const bundle = await made.log.auditBundle(from, to);
    assert.throws(() => step(made, state, bundle), range, `${from} to ${to}`);
  }
  const other = await testLog();
  await other.log.update({ label: labelOf('evil'), values: [labelOf('value')] });
  const [evil] = (await other.log.auditBundle(0, 1)).entries;
  const good = await made.log.auditBundle(8, 20);
  assert.ok(evil);
  for (const at of [0, 3, 4]) {
    const lie = { ...good, entries: good.entries.with(at, evil) };
    const signed = signAuditBundle(nativeSuite.sha256, lie, made.keys.note);
    assert.throws(() => step(made, state, signed), { reason: 'FORK', checked: 'entries 8 to 13' });
  }
});

test('what was audited is cosigned, and never a smaller size', async () => {
  const made = await scene();
  const audited = step(made, emptyAudit, await made.log.auditBundle(0, 20));
  const signer = nativeSigner(new Uint8Array(32).fill(77));
  const { sha256 } = nativeSuite;
  const key = noteKey(sha256, 'blue/auditor', SignatureType.cosignatureV1, signer.publicKey);
  const cosigned = cosignAudited(audited, 20, key, signer, 1_700_000_000);
  const note = parseNote(new TextEncoder().encode(await made.log.checkpoint()));
  const signatures = [...note.signatures, cosigned];
  const verified = verifyNote(nativeSuite, { ...note, signatures }, [made.identity.key, key]);
  assert.equal(verified.length, 2);
  assert.throws(() => cosignAudited(audited, 21, key, signer, 1), { name: 'InvalidArgumentError' });
});

test('a bundle that was changed is not the log’s; a signed one that lies convicts it', async () => {
  const made = await scene();
  const good = await made.log.auditBundle(0, 20);
  const bytes = encode(auditBundle, good);
  for (let at = 0; at < bytes.length; at += 97) {
    const mutant = bytes.with(at, (bytes[at] ?? 0) ^ 1);
    const run = (): unknown =>
      applyAuditBundle(nativeSuite, made, emptyAudit, mutant, made.clock.now());
    assert.throws(run, { name: 'VerificationError' }, `byte ${at}`);
  }
  const lies: [Partial<AuditBundle>, string][] = [
    // An entry left out, one that is another, times that go back, an older checkpoint.
    [{ entries: good.entries.toSpliced(3, 1), updates: good.updates.toSpliced(3, 1) }, 'BAD_ROOT'],
    [{ entries: good.entries.with(2, logEntry(1, new Uint8Array(32))) }, 'BAD_ROOT'],
    [
      {
        updates: good.updates.map((update, i) =>
          i === 5 ? { ...update, timestampMs: 1 } : update,
        ),
      },
      'NOT_MONOTONIC',
    ],
    [{ checkpoint: new TextEncoder().encode(await made.log.checkpoint(19)) }, 'COUNT'],
    [{ updates: good.updates.slice(1) }, 'COUNT'],
  ];
  for (const [lie, reason] of lies) {
    const signed = signAuditBundle(nativeSuite.sha256, { ...good, ...lie }, made.keys.note);
    assert.throws(() => step(made, emptyAudit, signed), { name: 'VerificationError', reason });
  }
  // The same entries under another state of the prefix tree.
  const forged = { ...emptyAudit, prefixRoot: new Uint8Array(32).fill(1) };
  assert.throws(() => step(made, forged, good), { reason: 'BAD_ROOT' });
});

test('two logs with the same keys and other entries are a fork at the first checkpoint', async () => {
  const one = await scene();
  const other = await testLog();
  await other.log.update({ label: labelOf('evil'), values: [labelOf('value')] });
  const ours = await one.log.auditBundle(0, 1);
  assert.equal(step(one, emptyAudit, ours).checkpoint.size, 1);
  // The other branch's checkpoint has the log's own signature and size, and another root.
  const { checkpoint } = await other.log.auditBundle(0, 1);
  const mixed = signAuditBundle(nativeSuite.sha256, { ...ours, checkpoint }, one.keys.note);
  assert.throws(() => step(one, emptyAudit, mixed), { reason: 'FORK', checked: 'checkpoint root' });
});

test('entries ahead of the auditor’s clock are refused', async () => {
  const made = await scene();
  const bundle = encode(auditBundle, await made.log.auditBundle(0, 20));
  const early = made.clock.now() - 1000 - made.config.maxAheadMs - 1;
  const run = (nowMs: number): unknown =>
    applyAuditBundle(nativeSuite, made, emptyAudit, bundle, nowMs);
  run(early + 1);
  assert.throws(() => run(early), { reason: 'TOO_NEW', checked: 'entry 19' });
});
