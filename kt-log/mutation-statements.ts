/**
 * Test support: what a log says to auditors and what is passed on about it, each message with the
 * check that its receiver makes: audit bundles, checkpoints, heads between contacts, wrapped
 * credentials. Evidence is in mutation-evidence.ts.
 */
import assert from 'node:assert/strict';
import { applyAuditBundle, auditBundle, replayAuditBundle } from './auditor.ts';
import { applyAuditorUpdate, auditorUpdate, emptyAudit } from './auditor-update.ts';
import { ForkError } from './client-checkpoint.ts';
import { credential } from './credential.ts';
import { logEntry } from './hash.ts';
import { compareHeads, encodeHeads } from './heads-exchange.ts';
import { defaultRecency } from './log.ts';
import type { Field } from './mutants.ts';
import { fieldsInside, fieldsOf, wordsOf } from './mutants.ts';
import type { Face, Scene } from './mutation-scenes.ts';
import { sceneOf, sceneWith } from './mutation-scenes.ts';
import type { NoteKey } from './note.ts';
import {
  cosign,
  formatNote,
  noteKey,
  openCheckpoint,
  parseNote,
  SignatureType,
  verifyNote,
} from './note.ts';
import { nativeSigner } from './native-signer.ts';
import { distinguishedResponse } from './operations.ts';
import { decode, encode } from './presentation.ts';
import { labelOf } from './test-log.ts';
import { VerificationError } from './verification-error.ts';
import { verifyDistinguished } from './verify-search.ts';
import { openWrapped, wrapCredential, wrappedCredential } from './wrapped-credential.ts';

const mode = 1;
const utf8 = new TextEncoder();

/** Every scene of a face whose history userScenes made. */
export async function statementScenes(face: Face): Promise<Scene[]> {
  return [
    ...(await auditScenes(face)),
    ...(await noteScenes(face)),
    ...(await wrappedScenes(face)),
    await headsScene(face),
  ];
}

/** The words of a text inside a message. */
function wordsInside(message: Uint8Array, text: Uint8Array): Field[] {
  const at = Buffer.from(message).indexOf(text);
  assert.ok(at >= 0, 'the message holds the text');
  return wordsOf(text).map((word) => ({ ...word, start: word.start + at }));
}

async function auditScenes(face: Face): Promise<Scene[]> {
  const { suite, config, identity, log, clock } = face;
  const nowMs = clock.now();
  const known = { config, identity };
  const bundle = async (from: number, to: number) =>
    encode(auditBundle, await log.auditBundle(from, to));
  const { log: before } = applyAuditBundle(suite, known, emptyAudit, await bundle(0, 4), nowMs);
  const signed = await bundle(4, 9);
  const latestMs = nowMs + config.maxAheadMs;
  const [audited] = await log.auditedEntries(4, 5);
  assert.ok(audited !== undefined);
  const entry = logEntry(audited.update.timestampMs, audited.prefixRoot);
  return [
    sceneOf('audit bundle', auditBundle, signed, (bytes) =>
      applyAuditBundle(suite, known, before, bytes, nowMs),
    ),
    // Behind the signature, as if the log had signed every mutant.
    sceneWith('audit bundle, signed anew', signed, fieldsOf(auditBundle, signed), (bytes) =>
      replayAuditBundle(suite, identity, before, decode(auditBundle, bytes), latestMs),
    ),
    sceneOf('auditor update', auditorUpdate, encode(auditorUpdate, audited.update), (bytes) =>
      applyAuditorUpdate(suite.sha256, before, decode(auditorUpdate, bytes), entry),
    ),
  ];
}

/** Cosigners of two other operators. */
function auditorsOf({ suite }: Face) {
  return ['blue.example', 'green.example'].map((name, i) => {
    const signer = suite.recorded(nativeSigner(new Uint8Array(32).fill(90 + i)));
    const { publicKey } = signer;
    const key = noteKey(suite.sha256, `${name}/auditor`, SignatureType.cosignatureV1, publicKey);
    return { key, cosign: (text: string) => cosign(text, key, signer, 1_700_000_000) };
  });
}
async function cosignedNote(face: Face, size = face.log.size): Promise<Uint8Array> {
  const { text, signatures } = parseNote(utf8.encode(await face.log.checkpoint(size)));
  const cosignatures = auditorsOf(face).map((auditor) => auditor.cosign(text));
  return utf8.encode(formatNote({ text, signatures: [...signatures, ...cosignatures] }));
}

interface OpenedNote {
  readonly said: unknown;
  readonly signers: readonly string[];
}
/** A note says its text; who loses a signature on the way, has one signature less. */
function compareNotes(said: unknown, honest: unknown): void {
  const [one, other] = [said as OpenedNote, honest as OpenedNote];
  assert.deepEqual(one.said, other.said);
  assert.ok(one.signers.every((name) => other.signers.includes(name)));
}

async function noteScenes(face: Face): Promise<Scene[]> {
  const { suite, identity, log } = face;
  const keys: NoteKey[] = [identity.key, ...auditorsOf(face).map(({ key }) => key)];
  const open = (bytes: Uint8Array): OpenedNote => {
    const { note, checkpoint } = openCheckpoint(suite, bytes, identity);
    const verified = verifyNote(suite, note, keys);
    const signers = verified.map(({ key, timeSeconds }) => `${key.name} at ${timeSeconds}`);
    return { said: { text: note.text, checkpoint }, signers };
  };
  const plain = utf8.encode(await log.checkpoint(log.size - 1));
  const cosigned = await cosignedNote(face);
  return [
    sceneWith('checkpoint', plain, wordsOf(plain), open, compareNotes),
    sceneWith('checkpoint, cosigned', cosigned, wordsOf(cosigned), open, compareNotes),
  ];
}

async function wrappedScenes(face: Face): Promise<Scene[]> {
  const { log, clock, verifier, identity } = face;
  const nowMs = clock.now();
  const given = await log.credential(labelOf('bob@red.example'));
  const response = encode(credential(mode), given);
  const checkpoint = await cosignedNote(face);
  const { entry, proof: inclusion } = await log.inclusion(given.position, log.size);
  const wrapped = wrapCredential({ response, checkpoint, entry, inclusion });
  const fields = [
    ...fieldsOf(wrappedCredential, wrapped),
    ...fieldsInside(wrapped, credential(mode), response),
    ...wordsInside(wrapped, checkpoint),
  ];
  const answer = encode(distinguishedResponse(mode), await log.distinguished({}));
  const { heads } = verifyDistinguished(verifier, undefined, defaultRecency, answer, nowMs);
  const witnesses = auditorsOf(face).map(({ key }) => key);
  const stranger = {
    policy: { logs: [], witnesses, quorum: { kind: 'none' } },
    auditorsMin: 2,
    recentMs: defaultRecency.recentMs,
  } as const;
  return [
    sceneWith('wrapped credential, known head', wrapped, fields, (bytes) =>
      openWrapped(verifier, identity, heads, undefined, bytes, nowMs),
    ),
    sceneWith('wrapped credential, auditors', wrapped, fields, (bytes) =>
      openWrapped(verifier, identity, [], stranger, bytes, nowMs),
    ),
  ];
}

async function headsScene(face: Face): Promise<Scene> {
  const { log, identity, suite, config } = face;
  const noteAt = async (size: number) => utf8.encode(await log.checkpoint(size));
  const distinguished = [await noteAt(4), await noteAt(8)];
  const newest = await noteAt(log.size);
  const theirs = encodeHeads({ identity }, distinguished, newest);
  const check = (bytes: Uint8Array): readonly number[] => {
    try {
      return compareHeads({ identity, suite, config }, theirs, bytes).agreed;
    } catch (error) {
      // A list with gaps is an alarm of its sender's making; what must not be is evidence.
      if (!(error instanceof ForkError)) throw error;
      assert.equal(error.evidence, undefined, 'evidence against an honest log');
      throw new VerificationError('FORK', error.checked, error.expected);
    }
  };
  const fields = [...distinguished, newest].flatMap((note) => wordsInside(theirs, note));
  return sceneWith('heads of a contact', theirs, fields, check, (said, honest) => {
    const agreed = honest as readonly number[];
    assert.ok((said as readonly number[]).every((size) => agreed.includes(size)));
  });
}
