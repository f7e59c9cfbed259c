/**
 * Evidence of every kind against logs that were built to lie, none from what an honest log signed,
 * and no byte of it that can be changed to convict anybody else.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AuditBundle } from './auditor.ts';
import { applyAuditBundle, auditBundle, signAuditBundle } from './auditor.ts';
import { emptyAudit } from './auditor-update.ts';
import type { EvidenceKeys, ValueRule } from './evidence-check.ts';
import { checkEvidence, isAgainst } from './evidence-check.ts';
import type { ForkItem, MadeEvidence } from './evidence-proofs.ts';
import {
  proveBadUpdate,
  proveBadValue,
  proveFork,
  proveInconsistent,
  proveSameSize,
  proveTime,
} from './evidence-proofs.ts';
import type { SignedHead, Statement } from './evidence.ts';
import { encodeEvidence, evidenceLimits, isEvidence } from './evidence.ts';
import { keytransHasher, logEntry, rfc6962Hasher } from './hash.ts';
import { Frontier } from './log-tree.ts';
import { nativeSigner } from './native-signer.ts';
import { nativeSuite } from './native-suite.ts';
import { GrownTree } from './node-path.ts';
import {
  cosign,
  formatCheckpoint,
  formatNote,
  keytransExtension,
  noteKey,
  parseNote,
  SignatureType,
  signNote,
} from './note.ts';
import * as operations from './operations.ts';
import { encode } from './presentation.ts';
import { auditedOf, replayedStateOf } from './replayed-state.ts';
import { portableSuite } from './suite.ts';
import { labelOf, testKeys, testLog } from './test-log.ts';
import { signTreeHead } from './tree-head.ts';

const { sha256 } = nativeSuite;
const utf8 = new TextEncoder();
type Face = Awaited<ReturnType<typeof testLog>>;
const keysOf = ({ config, identity }: Face): EvidenceKeys => ({
  origin: identity.origin,
  config,
  key: identity.key,
});
const nothing = { name: 'VerificationError', reason: 'NOT_FOUND' };

/** A log of `size` entries, of which those from `fork` on are `face`'s own, openings included. */
async function faceOf(face: string, fork: number, size: number): Promise<Face> {
  let drawn = 0;
  const random = { bytes: (length: number) => new Uint8Array(length).fill(drawn++) };
  const made = await testLog({ random });
  for (let i = 0; i < size; i++) {
    const label = labelOf(i < fork ? `user-${i}` : `${face}-${i}`);
    await made.log.update({ label, values: [labelOf('value')] });
    made.clock.advance(1000);
  }
  return made;
}

async function noteOf(face: Face, size?: number): Promise<Statement> {
  return { type: 'note', note: utf8.encode(await face.log.checkpoint(size)) };
}
async function headOf(face: Face, size: number): Promise<Statement & { type: 'head' }> {
  const head = await face.store.head(size);
  assert.ok(head);
  const { root, signature } = head;
  return { type: 'head', head: { size, root, signature } };
}
async function bundleOf(face: Face, from: number, to: number): Promise<AuditBundle> {
  return face.log.auditBundle(from, to);
}
const bytesOf = (bundle: AuditBundle): Uint8Array => encode(auditBundle, bundle);
async function entriesOf(face: Face, to: number): Promise<readonly Uint8Array[]> {
  return (await bundleOf(face, 0, to)).entries;
}

/** A checkpoint and a TreeHead over any entries, by the log's own keys. */
function signedOver(entries: readonly Uint8Array[]): { note: Statement; head: Statement } {
  const { config, keys, identity } = testKeys(40);
  const [rfc6962, keytrans] = [rfc6962Hasher(sha256), keytransHasher(sha256)].map((hasher) => {
    const tree = new Frontier(hasher);
    for (const entry of entries) tree.append(hasher.leaf(entry));
    return tree.root();
  });
  assert.ok(rfc6962 && keytrans);
  const size = entries.length;
  const extensions = [keytransExtension(keytrans)];
  const text = formatCheckpoint({ origin: identity.origin, size, root: rfc6962, extensions });
  const note = formatNote({ text, signatures: [signNote(text, identity.key, keys.note)] });
  const { signature } = signTreeHead(config, size, keytrans, keys.treeHead);
  const head: SignedHead = { size, root: keytrans, signature };
  return { note: { type: 'note', note: utf8.encode(note) }, head: { type: 'head', head } };
}

/** The rule that no value may be "evil", and that none may come twice in a row. */
const rule: ValueRule = (_label, _version, value, previous) => {
  if (new TextDecoder().decode(value) === 'evil') return 'it is evil';
  return previous?.toString() === value.toString() ? 'it says what the one before said' : undefined;
};

async function searchBytes(face: Face, version?: number): Promise<Uint8Array> {
  const label = labelOf('alice@red.example');
  const response = await face.log.search(version === undefined ? { label } : { label, version });
  return encode(operations.searchResponse(1, version !== undefined), response);
}

/** Evidence of every kind and shape, made against liars. */
async function allEvidence(): Promise<Map<string, MadeEvidence>> {
  const honest = await faceOf('honest', 4, 12);
  const liar = await faceOf('liar', 4, 12);
  const log = keysOf(honest);
  const made = new Map<string, MadeEvidence>();
  made.set(
    'same-size notes',
    proveSameSize(nativeSuite, log, await noteOf(honest, 9), await noteOf(liar, 9)),
  );
  made.set(
    'same-size heads',
    proveSameSize(nativeSuite, log, await headOf(honest, 9), await headOf(liar, 9)),
  );
  made.set(
    'note-vs-head',
    proveSameSize(nativeSuite, log, await headOf(liar, 7), await noteOf(honest, 7)),
  );
  for (const type of ['note', 'head'] as const) {
    const hasher = type === 'note' ? rfc6962Hasher(sha256) : keytransHasher(sha256);
    const statementOf = type === 'note' ? noteOf : headOf;
    const older = new Frontier(hasher);
    for (const entry of await entriesOf(honest, 7)) older.append(hasher.leaf(entry));
    const tree = new GrownTree(hasher, { size: 0, heads: [] }, await entriesOf(liar, 12));
    const shown = proveInconsistent(
      nativeSuite,
      log,
      { statement: await statementOf(honest, 7), tree: older.retained() },
      { statement: await statementOf(liar, 12), tree },
    );
    made.set(`inconsistent ${type}s`, shown);
  }
  const forked = bytesOf(await bundleOf(liar, 0, 12));
  made.set(
    'inconsistent entries',
    proveFork(nativeSuite, log, await noteOf(honest, 7), { type: 'bundle', bundle: forked }),
  );
  const tail = { type: 'bundle', bundle: bytesOf(await bundleOf(honest, 2, 11)) } as const;
  made.set(
    'inconsistent bundles',
    proveFork(nativeSuite, log, { type: 'bundle', bundle: forked }, tail),
  );

  const honestEntries = await entriesOf(honest, 12);
  const backwards = honestEntries.with(6, logEntry(1, new Uint8Array(32)));
  const back = signedOver(backwards);
  for (const statement of [back.note, back.head]) {
    const shown = proveTime(nativeSuite, log, statement, backwards, [2, 6]);
    made.set(`time ${statement.type}`, shown);
  }

  const good = await bundleOf(honest, 5, 12);
  const wrong = { ...good, entries: good.entries.with(3, logEntry(1, new Uint8Array(32))) };
  const alone = bytesOf(signAuditBundle(sha256, wrong, honest.keys.note));
  made.set('bad-update alone', proveBadUpdate(nativeSuite, log, undefined, alone));
  // The first entry of a bundle is wrong only together with the state before it.
  const before = replayedStateOf(
    sha256,
    emptyAudit,
    await entriesOf(honest, 5),
    utf8.encode(await honest.log.checkpoint(5)),
  );
  const branch = bytesOf(await bundleOf(liar, 5, 12));
  made.set('bad-update', proveBadUpdate(nativeSuite, log, before, branch));
  // A bundle that starts before the state and contradicts it.
  const overlap = bytesOf(await bundleOf(liar, 4, 12));
  made.set('bad-update overlap', proveBadUpdate(nativeSuite, log, before, overlap));

  const alice = labelOf('alice@red.example');
  const bad = await testLog();
  await bad.log.update({ label: alice, values: [labelOf('one')] });
  await bad.log.update({ label: alice, greatestVersion: 0, values: [labelOf('evil')] });
  const seenMs = bad.clock.now();
  const one = [{ version: undefined, response: await searchBytes(bad) }];
  made.set('bad-value', proveBadValue(nativeSuite, log, alice, seenMs, one, rule));
  await bad.log.update({ label: alice, greatestVersion: 1, values: [labelOf('evil')] });
  const two = [
    { version: 0, response: await searchBytes(bad, 0) },
    { version: 1, response: await searchBytes(bad, 1) },
  ];
  made.set('bad-value pair', proveBadValue(nativeSuite, log, alice, seenMs, two, rule));
  return made;
}
const everything = allEvidence();

test('every kind is proved against a log built to lie, by both suites', async () => {
  const honest = await testLog();
  const kinds = new Set<string>();
  for (const [name, { bytes, checked }] of await everything) {
    assert.ok(name.startsWith(checked.kind), name);
    assert.ok(isEvidence(bytes) && bytes.length <= evidenceLimits.bytesMax, name);
    for (const suite of [nativeSuite, portableSuite]) {
      assert.deepEqual(checkEvidence(suite, bytes, rule), checked, name);
    }
    assert.equal(checked.origin, 'red.example');
    assert.ok(isAgainst(checked, keysOf(honest)), name);
    assert.ok(checked.explain.length > 20 && !checked.explain.includes('\n'), checked.explain);
    kinds.add(checked.kind);
  }
  assert.equal(kinds.size, 6);
});

test('evidence is about the keys in it: another log with the name is not convicted', async () => {
  const other = testKeys(90);
  const known = { origin: 'red.example', config: other.config, key: other.identity.key };
  for (const { checked } of (await everything).values()) {
    assert.equal(isAgainst(checked, known), false);
    assert.equal(isAgainst(checked, { origin: 'red.example' }), false);
    const ours = testKeys(40);
    const right = { config: ours.config, key: ours.identity.key };
    assert.equal(isAgainst(checked, { origin: 'blue.example', ...right }), false);
  }
});

test('what an honest log signed proves nothing, in any pair', async () => {
  const honest = await faceOf('honest', 9, 9);
  const again = await faceOf('honest', 9, 9);
  const log = keysOf(honest);
  const items: ForkItem[] = [];
  for (const face of [honest, again]) {
    for (const size of [1, 4, 7, 9]) {
      items.push(await noteOf(face, size), await headOf(face, size));
    }
    for (const [from, to] of [
      [0, 9],
      [0, 4],
      [4, 9],
      [3, 7],
    ] as const) {
      items.push({ type: 'bundle', bundle: bytesOf(await bundleOf(face, from, to)) });
    }
  }
  let pairs = 0;
  for (const a of items) {
    for (const b of items) {
      assert.throws(() => proveFork(nativeSuite, log, a, b), nothing);
      pairs++;
    }
  }
  assert.ok(pairs > 500);
  const entries = await entriesOf(honest, 9);
  const hasher = rfc6962Hasher(sha256);
  const tree = new GrownTree(hasher, { size: 0, heads: [] }, entries);
  for (const size of [1, 4, 7, 8]) {
    const statement = await noteOf(honest, size);
    const older = new Frontier(hasher);
    for (const entry of entries.slice(0, size)) older.append(hasher.leaf(entry));
    const newer = { statement: await noteOf(honest, 9), tree };
    const run = () =>
      proveInconsistent(nativeSuite, log, { statement, tree: older.retained() }, newer);
    assert.throws(run, nothing);
    const state = replayedStateOf(
      sha256,
      emptyAudit,
      entries.slice(0, size),
      utf8.encode(await honest.log.checkpoint(size)),
    );
    const bundle = bytesOf(await bundleOf(honest, size, 9));
    assert.throws(() => proveBadUpdate(nativeSuite, log, state, bundle), nothing);
    assert.throws(() => proveBadUpdate(nativeSuite, log, undefined, bundle), nothing);
  }
  for (const at of [
    [0, 5],
    [5, 0],
    [3, 3],
  ] as const) {
    const run = async () => proveTime(nativeSuite, log, await noteOf(honest), entries, at);
    await assert.rejects(run, nothing);
  }
  // A bundle that does not continue the state is a mistake of the asker.
  const state = replayedStateOf(
    sha256,
    emptyAudit,
    entries.slice(0, 4),
    utf8.encode(await honest.log.checkpoint(4)),
  );
  const gap = bytesOf(await bundleOf(honest, 6, 9));
  assert.throws(() => proveBadUpdate(nativeSuite, log, state, gap), nothing);
});

test('a state that the checkpoint does not have convicts no honest bundle', async () => {
  const honest = await faceOf('honest', 9, 9);
  const log = keysOf(honest);
  const entries = await entriesOf(honest, 5);
  const note = utf8.encode(await honest.log.checkpoint(5));
  const state = replayedStateOf(sha256, emptyAudit, entries, note);
  const bundle = bytesOf(await bundleOf(honest, 5, 9));
  const zero = new Uint8Array(32);
  for (const forged of [
    { entry: logEntry(1, zero) },
    { keytransHeads: state.keytransHeads.with(0, zero) },
    { rfc6962Heads: state.rfc6962Heads.with(0, zero) },
    { note: utf8.encode(await honest.log.checkpoint(4)) },
    { keytransHeads: [] },
  ]) {
    const run = () => proveBadUpdate(nativeSuite, log, { ...state, ...forged }, bundle);
    assert.throws(run, (error: Error & { reason?: string }) => {
      assert.ok(error.reason === 'FORK' || error.reason === 'COUNT', error.message);
      assert.ok(!error.message.includes('replay of a bundle'));
      return true;
    });
  }
});

test('honest values, wrong order and a missing rule prove nothing', async () => {
  const alice = labelOf('alice@red.example');
  const made = await testLog();
  const log = keysOf(made);
  for (const [i, value] of ['one', 'two'].entries()) {
    const greatestVersion = i === 0 ? undefined : i - 1;
    await made.log.update({ label: alice, greatestVersion, values: [labelOf(value)] });
  }
  const seenMs = made.clock.now();
  const at = async (version: number) => ({ version, response: await searchBytes(made, version) });
  const run = (versions: Parameters<typeof proveBadValue>[4], by = rule) =>
    proveBadValue(nativeSuite, log, alice, seenMs, versions, by);
  const [zero, one] = [await at(0), await at(1)];
  assert.throws(() => run([zero]), nothing);
  assert.throws(() => run([zero, one]), nothing);
  const always: ValueRule = () => 'whatever';
  assert.throws(() => run([one, zero], always), { reason: 'COUNT' });
  assert.throws(() => run([], always), { reason: 'COUNT' });
  const { bytes } = run([zero, one], always);
  assert.throws(() => checkEvidence(nativeSuite, bytes), nothing);
  // Answers that were never fresh together are none.
  assert.throws(() => proveBadValue(nativeSuite, log, alice, 5, [one], always), {
    reason: 'TOO_NEW',
  });
});

test('what the log did not sign, or another log signed, proves nothing', async () => {
  const honest = await faceOf('honest', 0, 5);
  const stranger = testKeys(90);
  const log = keysOf(honest);
  const mine = await noteOf(honest, 5);
  const { signature } = signTreeHead(
    stranger.config,
    5,
    new Uint8Array(32),
    stranger.keys.treeHead,
  );
  const head = { size: 5, root: new Uint8Array(32), signature };
  const run = (item: ForkItem) => () => proveFork(nativeSuite, log, mine, item);
  assert.throws(run({ type: 'head', head }), { reason: 'BAD_SIGNATURE' });
  const text = formatCheckpoint({
    origin: 'red.example',
    size: 5,
    root: new Uint8Array(32),
    extensions: [],
  });
  const signatures = [signNote(text, stranger.identity.key, stranger.keys.note)];
  const note = utf8.encode(formatNote({ text, signatures }));
  assert.throws(run({ type: 'note', note }), { reason: 'BAD_SIGNATURE' });
  const good = await bundleOf(honest, 0, 5);
  const lie = { ...good, entries: good.entries.with(0, logEntry(1, new Uint8Array(32))) };
  const bundle = bytesOf(signAuditBundle(sha256, lie, stranger.keys.note));
  assert.throws(run({ type: 'bundle', bundle }), { reason: 'BAD_SIGNATURE' });
  // A head whose keys are not at hand cannot be judged.
  const { origin, key } = log;
  assert.throws(
    () => proveFork(nativeSuite, { origin, key }, mine, { type: 'head', head }),
    nothing,
  );
});

test('cosignatures do not become part of evidence', async () => {
  const [honest, liar] = [await faceOf('honest', 2, 5), await faceOf('liar', 2, 5)];
  const log = keysOf(honest);
  const plain = proveSameSize(nativeSuite, log, await noteOf(honest), await noteOf(liar));
  const signer = nativeSigner(new Uint8Array(32).fill(3));
  const key = noteKey(sha256, 'blue/witness', SignatureType.cosignatureV1, signer.publicKey);
  const note = parseNote(utf8.encode(await honest.log.checkpoint()));
  const signatures = [cosign(note.text, key, signer, 1000), ...note.signatures];
  const cosigned = utf8.encode(formatNote({ text: note.text, signatures }));
  const other = await noteOf(liar);
  const made = proveSameSize(nativeSuite, log, other, { type: 'note', note: cosigned });
  assert.deepEqual(made.bytes, plain.bytes);
  const { origin } = log;
  const body = {
    kind: 'same-size',
    statements: [{ type: 'note', note: cosigned }, other],
  } as const;
  const raw = encodeEvidence({ origin, config: undefined, key: log.key, body });
  assert.throws(() => checkEvidence(nativeSuite, raw), { reason: 'MALFORMED' });
});

test('a bundle that replays is needed for nothing: the state of an auditor is that of evidence', async () => {
  const made = await faceOf('honest', 0, 9);
  const note = utf8.encode(await made.log.checkpoint(9));
  const bundle = await bundleOf(made, 0, 9);
  const { log: audited } = applyAuditBundle(
    nativeSuite,
    made,
    emptyAudit,
    bytesOf(bundle),
    made.clock.now(),
  );
  const state = replayedStateOf(sha256, emptyAudit, bundle.entries, note);
  assert.deepEqual(auditedOf(sha256, state, 9), audited);
});

const isLongRun = process.env['QPC_MUTANTS'] !== undefined;
test('no byte can be changed so that evidence convicts of anything else', async () => {
  let accepted = 0;
  let tried = 0;
  for (const [name, { bytes, checked }] of await everything) {
    for (let at = 0; at < bytes.length; at++) {
      // In a long run one bit of every byte; else of some, fewer where VRF proofs are checked.
      const most = checked.kind === 'bad-value' ? 25 : 200;
      const step = isLongRun ? 1 : Math.ceil(bytes.length / most);
      if (at % step !== 0) continue;
      const mutant = bytes.with(at, (bytes[at] ?? 0) ^ (1 << (at % 8)));
      tried++;
      try {
        const verdict = checkEvidence(nativeSuite, mutant, rule);
        // The name of a log that signed TreeHeads only, and the time at which an answer was seen.
        assert.deepEqual({ ...verdict, origin: checked.origin }, checked, `${name} byte ${at}`);
        assert.ok(verdict.key === undefined || verdict.origin === checked.origin, name);
        accepted++;
      } catch (error) {
        assert.equal(
          (error as Error).name,
          'VerificationError',
          `${name} byte ${at}: ${String(error)}`,
        );
      }
    }
    for (let length = 0; length < bytes.length; length += 1 + Math.floor(bytes.length / 50)) {
      const run = () => checkEvidence(nativeSuite, bytes.subarray(0, length), rule);
      assert.throws(run, { name: 'VerificationError' }, `${name} cut to ${length}`);
    }
    const longer = new Uint8Array([...bytes, 0]);
    assert.throws(() => checkEvidence(nativeSuite, longer, rule), { name: 'VerificationError' });
  }
  assert.ok(tried > 1500 && accepted < tried / 20, `${accepted} of ${tried}`);
});

test('absurd counts and sizes are refused before anything is allocated', async () => {
  const { bytes } = [...(await everything).values()][0] ?? { bytes: new Uint8Array() };
  const endless = new Uint8Array(evidenceLimits.bytesMax + 1);
  endless.set(bytes);
  assert.throws(() => checkEvidence(nativeSuite, endless), { name: 'VerificationError' });
  const huge = { length: evidenceLimits.bundleEvidenceBytesMax + 1 } as Uint8Array;
  assert.throws(() => checkEvidence(nativeSuite, huge), { reason: 'MALFORMED' });
  assert.throws(() => checkEvidence(nativeSuite, new Uint8Array()), { reason: 'MALFORMED' });
});
