/**
 * C2SP signed notes, tlog checkpoints and cosignatures (../spec/signed-note.md, tlog-checkpoint.md,
 * tlog-cosignature.md): parse, sign, verify. ML-DSA-44 cosigners bring their own verifier; the
 * message that they sign is built here. Browser-safe.
 */
import { InvalidArgumentError } from '@quicprochat/proto/status';
import { fromBase64, toBase64 } from './base64.ts';
import { maxTreeSize } from './codec.ts';
import type { Hash, Sha256 } from './hash.ts';
import { hashBytes } from './hash.ts';
import { Writer } from './presentation.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import { verify, VerificationError } from './verification-error.ts';

/** Signature type identifier bytes that this project uses. */
export const SignatureType = { ed25519: 0x01, cosignatureV1: 0x04, mlDsa44: 0x06 } as const;
export type SignatureType = (typeof SignatureType)[keyof typeof SignatureType];

/** Bounds of a note: a checkpoint with dozens of post-quantum cosignatures fits. */
export const noteLimits = { bytesMax: 262_144, signaturesMax: 64 } as const;

const utf8 = new TextEncoder();
const fatalUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** One line of a note's signature block. `keyId` is the uint32 before the signature. */
export interface NoteSignature {
  readonly name: string;
  readonly keyId: number;
  readonly signature: Uint8Array;
}
/** A note as it was parsed; nothing in it is verified yet. `text` ends in a newline. */
export interface Note {
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
}

/** A key that signatures are checked with, known by its name and id. */
export interface NoteKey {
  readonly name: string;
  readonly keyId: number;
  readonly type: number;
  readonly publicKey: Uint8Array;
}

const isKeyName = (name: string): boolean => name.length > 0 && !/[\s+]/u.test(name);

/** `SHA-256(name || 0x0A || type || key)[:4]`, the recommended and for our types required id. */
export function keyIdOf(sha256: Sha256, name: string, type: number, publicKey: Uint8Array): number {
  const writer = new Writer();
  writer
    .raw(utf8.encode(`${name}\n`))
    .u8(type, 'type')
    .raw(publicKey);
  const digest = sha256(writer.finish());
  return new DataView(digest.buffer, digest.byteOffset).getUint32(0);
}

/** Throws InvalidArgumentError for a name with spaces or plus, or an empty one. */
export function noteKey(
  sha256: Sha256,
  name: string,
  type: SignatureType,
  publicKey: Uint8Array,
): NoteKey {
  if (!isKeyName(name)) throw new InvalidArgumentError('BAD_FIELD', 'note key name: malformed');
  return { name, type, publicKey, keyId: keyIdOf(sha256, name, type, publicKey) };
}

const hexId = (keyId: number): string => keyId.toString(16).padStart(8, '0');

/** `<name>+<hex id>+<base64(type || key)>`. */
export function formatVkey(key: NoteKey): string {
  const material = new Uint8Array(1 + key.publicKey.length);
  material[0] = key.type;
  material.set(key.publicKey, 1);
  return `${key.name}+${hexId(key.keyId)}+${toBase64(material)}`;
}

/** Throws VerificationError MALFORMED, also for an id that is not the one of name and key. */
export function parseVkey(sha256: Sha256, vkey: string): NoteKey {
  // The base64 of the key may hold a plus itself, so only the first two separate.
  const [name = '', id = ''] = vkey.split('+', 2);
  const material = fromBase64(vkey.slice(name.length + id.length + 2));
  const [type] = material ?? [];
  const isWhole = isKeyName(name) && /^[0-9a-f]{8}$/.test(id);
  verify(isWhole && type !== undefined, 'MALFORMED', 'vkey', '<name>+<8 hex digits>+<base64>');
  const publicKey = material?.subarray(1) ?? new Uint8Array();
  const keyId = keyIdOf(sha256, name, type, publicKey);
  verify(hexId(keyId) === id, 'MALFORMED', 'vkey id', 'the hash of name and key');
  return { name, type, publicKey, keyId };
}

/** Splits a note into text and signatures. Throws VerificationError MALFORMED. */
export function parseNote(bytes: Uint8Array): Note {
  const malformed = (expected: string): VerificationError =>
    new VerificationError('MALFORMED', 'signed note', expected);
  if (bytes.length > noteLimits.bytesMax) throw malformed(`at most ${noteLimits.bytesMax} bytes`);
  let whole: string;
  try {
    whole = fatalUtf8.decode(bytes);
  } catch {
    throw malformed('valid UTF-8');
  }
  // oxlint-disable-next-line no-control-regex -- the format forbids exactly these
  if (/[\u0000-\u0009\u000b-\u001f]/.test(whole)) throw malformed('no control characters');
  const split = whole.lastIndexOf('\n\n');
  if (split < 0 || !whole.endsWith('\n')) throw malformed('text, a blank line, signatures');
  const lines = whole.slice(split + 2, -1).split('\n');
  if (lines.length > noteLimits.signaturesMax) {
    throw malformed(`at most ${noteLimits.signaturesMax} signatures`);
  }
  const signatures = lines.map((line): NoteSignature => {
    const [dash, name = '', encoded = '', ...more] = line.split(' ');
    const content = fromBase64(encoded);
    const isLine = dash === '\u2014' && isKeyName(name) && more.length === 0;
    if (!isLine || content === undefined || content.length <= 4) {
      throw malformed('signature lines: em dash, key name, base64');
    }
    const keyId = new DataView(content.buffer).getUint32(0);
    return { name, keyId, signature: content.subarray(4) };
  });
  return { text: whole.slice(0, split + 1), signatures };
}

export function formatNote(note: Note): string {
  const lines = note.signatures.map(({ name, keyId, signature }) => {
    const content = new Uint8Array(4 + signature.length);
    new DataView(content.buffer).setUint32(0, keyId);
    content.set(signature, 4);
    return `\u2014 ${name} ${toBase64(content)}\n`;
  });
  return `${note.text}\n${lines.join('')}`;
}

/** Signs a note's text as the log (type 0x01). The text ends in a newline. */
export function signNote(text: string, key: NoteKey, signer: Signer): NoteSignature {
  if (!text.endsWith('\n') || key.type !== SignatureType.ed25519) {
    throw new InvalidArgumentError('BAD_FIELD', 'note: text without final newline, or wrong key');
  }
  return { name: key.name, keyId: key.keyId, signature: signer.sign(utf8.encode(text)) };
}

/** What a checkpoint says (tlog-checkpoint). */
export interface Checkpoint {
  readonly origin: string;
  readonly size: number;
  /** RFC 6962 root at that size. */
  readonly root: Hash;
  readonly extensions: readonly string[];
}

export function formatCheckpoint(checkpoint: Checkpoint): string {
  const { origin, size, root, extensions } = checkpoint;
  return `${[origin, String(size), toBase64(root), ...extensions].join('\n')}\n`;
}

/** Reads a note's text as a checkpoint. Throws VerificationError MALFORMED. */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin = '', size = '', encoded = '', ...rest] = text.split('\n');
  const root = fromBase64(encoded);
  const extensions = rest.slice(0, -1);
  const isWhole =
    origin.length > 0 &&
    /^(?:0|[1-9][0-9]{0,15})$/.test(size) &&
    Number(size) <= maxTreeSize &&
    rest.at(-1) === '' &&
    extensions.every((line) => line.length > 0);
  verify(isWhole, 'MALFORMED', 'checkpoint', 'origin, size, root and non-empty extension lines');
  verify(root?.length === hashBytes, 'MALFORMED', 'checkpoint root', '32 bytes in base64');
  return { origin, size: Number(size), root, extensions };
}

/** Largest POSIX time of a cosignature that stays an exact number: far beyond any clock. */
const maxTimeSeconds = Number.MAX_SAFE_INTEGER;

/** The message of an Ed25519 cosignature: header and time lines, then the whole note text. */
function cosignedText(text: string, timeSeconds: number): Uint8Array {
  return utf8.encode(`cosignature/v1\ntime ${timeSeconds}\n${text}`);
}

/** Cosigns a checkpoint (type 0x04) at a POSIX time in seconds. */
export function cosign(
  text: string,
  key: NoteKey,
  signer: Signer,
  timeSeconds: number,
): NoteSignature {
  parseCheckpoint(text);
  if (key.type !== SignatureType.cosignatureV1) {
    throw new InvalidArgumentError('BAD_FIELD', 'cosigner: not an Ed25519 cosigner key');
  }
  const signature = new Writer()
    .u64(timeSeconds, 'timestamp')
    .raw(signer.sign(cosignedText(text, timeSeconds)))
    .finish();
  return { name: key.name, keyId: key.keyId, signature };
}

/**
 * What an ML-DSA-44 cosigner signs for a checkpoint (type 0x06): its own name, the time, the log's
 * origin, size and root, but no extension lines.
 */
export function subtreeMessage(
  cosigner: string,
  timeSeconds: number,
  checkpoint: Checkpoint,
): Uint8Array {
  return new Writer()
    .raw(utf8.encode('subtree/v1\n\0'))
    .opaque(utf8.encode(cosigner), 255, 'cosigner_name')
    .u64(timeSeconds, 'timestamp')
    .opaque(utf8.encode(checkpoint.origin), 255, 'log_origin')
    .u64(0, 'start')
    .u64(checkpoint.size, 'end')
    .fixed(checkpoint.root, hashBytes, 'hash')
    .finish();
}

/** Verifies an ML-DSA-44 signature (FIPS 204); the package that has it is handed in. */
export type MlDsa44Verify = (
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
) => boolean;

/** A signature that was verified. */
export interface VerifiedSignature {
  readonly key: NoteKey;
  /** POSIX time of a cosignature; undefined for the log's own signature. */
  readonly timeSeconds: number | undefined;
}

/**
 * Verifies every signature of a known key over the note. Unknown keys are ignored; a bad signature
 * of a known one refuses the whole note, as does a note that no known key signed. ML-DSA-44 keys
 * count as unknown without `mlDsa44`. Throws VerificationError BAD_SIGNATURE.
 */
export function verifyNote(
  suite: VerifierSuite,
  note: Note,
  keys: readonly NoteKey[],
  mlDsa44?: MlDsa44Verify,
): VerifiedSignature[] {
  const verified: VerifiedSignature[] = [];
  for (const { name, keyId, signature } of note.signatures) {
    const key = keys.find((known) => known.name === name && known.keyId === keyId);
    if (key === undefined) continue;
    if (verified.some((one) => one.key === key)) continue;
    const isMlDsa = key.type === SignatureType.mlDsa44;
    if (isMlDsa && mlDsa44 === undefined) continue;
    // The log's own signature has no time; every cosignature has one.
    const time = key.type === SignatureType.ed25519 ? undefined : timeOf(signature);
    const isValid = isMlDsa
      ? mlDsa44 !== undefined &&
        verifyMlDsa44(key, note.text, signature, time ?? Number.NaN, mlDsa44)
      : suite.verifySignature(
          key.publicKey,
          time === undefined ? utf8.encode(note.text) : cosignedText(note.text, time),
          time === undefined ? signature : signature.subarray(8),
        );
    verify(isValid, 'BAD_SIGNATURE', `signature of ${name}`, 'a valid one, as its key is known');
    verified.push({ key, timeSeconds: time });
  }
  verify(verified.length > 0, 'BAD_SIGNATURE', 'signed note', 'a signature of a known key');
  return verified;
}

function verifyMlDsa44(
  key: NoteKey,
  text: string,
  signature: Uint8Array,
  timeSeconds: number,
  mlDsa44: MlDsa44Verify,
): boolean {
  if (Number.isNaN(timeSeconds)) return false;
  const message = subtreeMessage(key.name, timeSeconds, parseCheckpoint(text));
  return mlDsa44(key.publicKey, message, signature.subarray(8));
}

/** The uint64 before a cosignature's signature; NaN, which no text of a message holds, if absurd. */
function timeOf(signature: Uint8Array): number {
  if (signature.length < 8) return Number.NaN;
  const view = new DataView(signature.buffer, signature.byteOffset);
  const time = view.getUint32(0) * 2 ** 32 + view.getUint32(4);
  return time <= maxTimeSeconds ? time : Number.NaN;
}

/** A log's name in notes: its keys and what it calls itself. */
export interface LogIdentity {
  readonly origin: string;
  readonly key: NoteKey;
}

/** Parses a checkpoint note and verifies the log's own signature on it. */
export function openCheckpoint(
  suite: VerifierSuite,
  bytes: Uint8Array,
  log: LogIdentity,
): { readonly note: Note; readonly checkpoint: Checkpoint } {
  const note = parseNote(bytes);
  verifyNote(suite, note, [log.key]);
  const checkpoint = parseCheckpoint(note.text);
  verify(checkpoint.origin === log.origin, 'CHAIN', 'checkpoint origin', log.origin);
  return { note, checkpoint };
}

/** The one extension line of our checkpoints (kt-log/README.md): the KEYTRANS root at that size. */
export function keytransExtension(root: Hash): string {
  return `keytrans ${toBase64(root)}`;
}
/** The KEYTRANS root that a checkpoint names; undefined if it has no such line. */
export function keytransRoot(checkpoint: Checkpoint): Hash | undefined {
  const line = checkpoint.extensions.find((one) => one.startsWith('keytrans '));
  const root = line === undefined ? undefined : fromBase64(line.slice('keytrans '.length));
  return root?.length === hashBytes ? root : undefined;
}
