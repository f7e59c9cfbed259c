/**
 * Reads an MLS KeyPackage (RFC 9420 section 10) as far as the Authentication Service must judge
 * it: suite, keys, credential, lifetime, both signatures, KeyPackageRef. It takes part in no group.
 */
import { createHash, verify } from 'node:crypto';
import { InvalidArgumentError, publicKeyObject } from '@quicprochat/proto';

/** Suites that this system uses: X-Wing (private-use number) and the mandatory one. */
export const suiteXWing = 0xf00d;
export const suiteMandatory = 0x0001;
const suiteHash: ReadonlyMap<number, string> = new Map([
  [suiteMandatory, 'sha256'],
  [suiteXWing, 'sha512'],
]);

/** KeyPackage extension `last_resort` of draft-ietf-mls-extensions. */
const lastResortExtension = 0x000a;
const mls10 = 1;
const basicCredential = 1;
const leafSourceKeyPackage = 1;

export interface ParsedKeyPackage {
  readonly suite: number;
  /** Ed25519 signature key of the leaf (32 bytes). */
  readonly signatureKey: Uint8Array;
  /** Identity of the basic credential, as text. */
  readonly identity: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly isLastResort: boolean;
  /** RFC 9420 section 5.2. */
  readonly ref: Uint8Array;
}

/** Reader of the TLS presentation language with MLS's variable-size vectors (section 2.1.2). */
class Reader {
  readonly #bytes: Uint8Array;
  #offset = 0;
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }
  get offset(): number {
    return this.#offset;
  }
  get isAtEnd(): boolean {
    return this.#offset === this.#bytes.length;
  }
  take(length: number): Uint8Array {
    if (length > this.#bytes.length - this.#offset) throw malformed('cut short');
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }
  uint(length: number): number {
    let value = 0;
    for (const byte of this.take(length)) value = value * 256 + byte;
    return value;
  }
  vector(): Uint8Array {
    const first = this.uint(1);
    const prefix = first >> 6;
    if (prefix === 3) throw malformed('reserved vector length');
    const rest = (1 << prefix) - 1;
    const length = (first & 0x3f) * 256 ** rest + (rest === 0 ? 0 : this.uint(rest));
    // The shortest form is the only valid one.
    if ((prefix === 1 && length < 64) || (prefix === 2 && length < 16_384)) {
      throw malformed('vector length not in its shortest form');
    }
    return this.take(length);
  }
}

function malformed(what: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', `key package: ${what}`);
}

function extensionTypes(bytes: Uint8Array): number[] {
  const reader = new Reader(bytes);
  const types: number[] = [];
  while (!reader.isAtEnd) {
    types.push(reader.uint(2));
    reader.vector();
  }
  return types;
}

/**
 * Parses and verifies a KeyPackage struct. Throws InvalidArgumentError BAD_FIELD (malformed,
 * foreign suite or credential, trailing bytes) or BAD_SIGNATURE.
 */
export function parseKeyPackage(bytes: Uint8Array): ParsedKeyPackage {
  const reader = new Reader(bytes);
  if (reader.uint(2) !== mls10) throw malformed('not of MLS 1.0');
  const suite = reader.uint(2);
  const hash = suiteHash.get(suite);
  if (hash === undefined) throw malformed(`suite 0x${suite.toString(16)} is not in use here`);
  reader.vector(); // init_key

  const leafStart = reader.offset;
  reader.vector(); // encryption_key
  const signatureKey = reader.vector();
  if (reader.uint(2) !== basicCredential) throw malformed('need a basic credential');
  const identity = Buffer.from(reader.vector()).toString('utf8');
  for (let list = 0; list < 5; list += 1) reader.vector(); // capabilities
  if (reader.uint(1) !== leafSourceKeyPackage)
    throw malformed('leaf is not made for a key package');
  const notBeforeMs = reader.uint(8) * 1000;
  const notAfterMs = reader.uint(8) * 1000;
  reader.vector(); // leaf extensions
  const leafEnd = reader.offset;
  const leafSignature = reader.vector();

  const extensions = extensionTypes(reader.vector());
  const packageEnd = reader.offset;
  const packageSignature = reader.vector();
  if (!reader.isAtEnd) throw malformed('bytes after its end');

  verifyWithLabel('LeafNodeTBS', bytes.subarray(leafStart, leafEnd), leafSignature, signatureKey);
  verifyWithLabel('KeyPackageTBS', bytes.subarray(0, packageEnd), packageSignature, signatureKey);
  return {
    suite,
    signatureKey: new Uint8Array(signatureKey),
    identity,
    notBeforeMs,
    notAfterMs,
    isLastResort: extensions.includes(lastResortExtension),
    ref: refHash(hash, 'MLS 1.0 KeyPackage Reference', bytes),
  };
}

function vectorBytes(bytes: Uint8Array): Uint8Array {
  const { length } = bytes;
  if (length < 64) return Buffer.concat([Buffer.of(length), bytes]);
  if (length < 16_384)
    return Buffer.concat([Buffer.of(0x40 | (length >> 8), length & 0xff), bytes]);
  const header = Buffer.alloc(4);
  header.writeUInt32BE((0x80000000 | length) >>> 0);
  return Buffer.concat([header, bytes]);
}

/** VerifyWithLabel (RFC 9420 section 5.1.2). */
function verifyWithLabel(
  label: string,
  content: Uint8Array,
  signature: Uint8Array,
  key: Uint8Array,
): void {
  const signed = Buffer.concat([
    vectorBytes(Buffer.from(`MLS 1.0 ${label}`, 'latin1')),
    vectorBytes(content),
  ]);
  let isValid = false;
  try {
    isValid = verify(null, signed, publicKeyObject(key), signature);
  } catch {
    // A key that is no curve point or of another length: the signature is not valid.
  }
  if (!isValid)
    throw new InvalidArgumentError('BAD_SIGNATURE', `key package: bad ${label} signature`);
}

/** RefHash (RFC 9420 section 5.2). */
function refHash(hash: string, label: string, value: Uint8Array): Uint8Array {
  return new Uint8Array(
    createHash(hash)
      .update(vectorBytes(Buffer.from(label, 'latin1')))
      .update(vectorBytes(value))
      .digest(),
  );
}
