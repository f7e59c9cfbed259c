/**
 * HPKE base mode (RFC 9180): key schedule, single-shot seal and open, secret export, over the
 * KEMs of kem.ts with HKDF-SHA256 or -SHA512 and AES-GCM. One message per context, so there
 * are no sequence numbers. Modes with a PSK or sender authentication are not here.
 */
import type { Random } from '@quicprochat/proto';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal } from './aes-gcm.ts';
import { hashLength } from './hkdf.ts';
import type { HashName } from './hkdf.ts';
import { labeledExpand, labeledExtract, xwingKem } from './kem.ts';
import type { Kem, KemPrivateKey } from './kem.ts';
import { concat, octets } from './octets.ts';

/** A complete HPKE suite: KEM, HKDF hash, AES-GCM key length in bytes. */
export interface HpkeSuite<K extends KemPrivateKey = KemPrivateKey> {
  readonly kem: Kem<K>;
  readonly hash: HashName;
  readonly keyLength: 16 | 32;
}

/** What the key schedule needs to know of a suite. */
interface SuiteParameters {
  readonly kem: { readonly id: number };
  readonly hash: HashName;
  readonly keyLength: 16 | 32;
}

const kdfId: Readonly<Record<HashName, number>> = { sha256: 0x0001, sha512: 0x0003 };
const empty = new Uint8Array(0);
const text = new TextEncoder();

interface Context {
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly exporterSecret: Uint8Array;
}

function suiteId(suite: SuiteParameters): Uint8Array {
  const aeadId = suite.keyLength === 16 ? 0x0001 : 0x0002;
  const out = new Uint8Array(10);
  out.set(text.encode('HPKE'));
  const view = new DataView(out.buffer);
  view.setUint16(4, suite.kem.id);
  view.setUint16(6, kdfId[suite.hash]);
  view.setUint16(8, aeadId);
  return out;
}

// KeySchedule of RFC 9180 section 5.1 with mode_base, no PSK. Wipes the shared secret.
function schedule(suite: SuiteParameters, sharedSecret: Uint8Array, info: Uint8Array): Context {
  const { hash, keyLength } = suite;
  const id = suiteId(suite);
  const context = concat(
    Uint8Array.of(0x00),
    labeledExtract(hash, id, empty, 'psk_id_hash', empty),
    labeledExtract(hash, id, empty, 'info_hash', info),
  );
  const secret = labeledExtract(hash, id, sharedSecret, 'secret', empty);
  sharedSecret.fill(0);
  const result = {
    key: labeledExpand(hash, id, secret, 'key', context, keyLength),
    nonce: labeledExpand(hash, id, secret, 'base_nonce', context, aesGcmNonceLength),
    exporterSecret: labeledExpand(hash, id, secret, 'exp', context, hashLength[hash]),
  };
  secret.fill(0);
  return result;
}

/** Encapsulates to `publicKey` and seals one plaintext. RFC 9180 section 6.1, SealBase. */
export function sealBase<K extends KemPrivateKey>(
  suite: HpkeSuite<K>,
  publicKey: Uint8Array,
  info: Uint8Array,
  aad: Uint8Array,
  plaintext: Uint8Array,
  random: Random,
): { enc: Uint8Array; ciphertext: Uint8Array } {
  octets(publicKey, suite.kem.publicKeyLength, 'recipient public key');
  const { sharedSecret, enc } = suite.kem.encap(publicKey, random);
  const { key, nonce } = schedule(suite, sharedSecret, info);
  const ciphertext = aesGcmSeal(key, nonce, aad, plaintext);
  key.fill(0);
  return { enc, ciphertext };
}

/**
 * The plaintext. RFC 9180 section 6.1, OpenBase. Throws DecryptionError when it is not
 * authentic for this key, info and aad; InvalidArgumentError when `enc` has a wrong length.
 */
export function openBase<K extends KemPrivateKey>(
  suite: HpkeSuite<K>,
  privateKey: K,
  enc: Uint8Array,
  info: Uint8Array,
  aad: Uint8Array,
  ciphertext: Uint8Array,
): Uint8Array {
  octets(enc, suite.kem.encLength, 'enc');
  const { key, nonce } = schedule(suite, suite.kem.decap(privateKey, enc), info);
  try {
    return aesGcmOpen(key, nonce, aad, ciphertext);
  } finally {
    key.fill(0);
  }
}

/** Encapsulates and exports a secret. RFC 9180 section 6.2, SendExportBase. */
export function sendExportBase<K extends KemPrivateKey>(
  suite: HpkeSuite<K>,
  publicKey: Uint8Array,
  info: Uint8Array,
  exporterContext: Uint8Array,
  length: number,
  random: Random,
): { enc: Uint8Array; secret: Uint8Array } {
  octets(publicKey, suite.kem.publicKeyLength, 'recipient public key');
  const { sharedSecret, enc } = suite.kem.encap(publicKey, random);
  return { enc, secret: exportSecret(suite, sharedSecret, info, exporterContext, length) };
}

/** The same secret on the receiving side. RFC 9180 section 6.2, ReceiveExportBase. */
export function receiveExportBase<K extends KemPrivateKey>(
  suite: HpkeSuite<K>,
  privateKey: K,
  enc: Uint8Array,
  info: Uint8Array,
  exporterContext: Uint8Array,
  length: number,
): Uint8Array {
  octets(enc, suite.kem.encLength, 'enc');
  const sharedSecret = suite.kem.decap(privateKey, enc);
  return exportSecret(suite, sharedSecret, info, exporterContext, length);
}

// Context.Export of RFC 9180 section 5.3.
function exportSecret(
  suite: SuiteParameters,
  sharedSecret: Uint8Array,
  info: Uint8Array,
  exporterContext: Uint8Array,
  length: number,
): Uint8Array {
  const { exporterSecret } = schedule(suite, sharedSecret, info);
  return labeledExpand(suite.hash, suiteId(suite), exporterSecret, 'sec', exporterContext, length);
}

/** The suite of envelopes: X-Wing 0x647A, HKDF-SHA256 0x0001, AES-256-GCM 0x0002. */
function envelopeSuite(): HpkeSuite {
  return { kem: xwingKem(), hash: 'sha256', keyLength: 32 };
}

/**
 * Seals to an X-Wing public key (1216 bytes) with HKDF-SHA256 and AES-256-GCM.
 * Returns `enc` (1120 bytes) and the ciphertext, 16 bytes longer than the plaintext.
 */
export function hpkeSealBase(input: {
  readonly kem: 'xwing';
  readonly publicKey: Uint8Array;
  readonly info: Uint8Array;
  readonly aad: Uint8Array;
  readonly plaintext: Uint8Array;
  readonly random: Random;
}): { enc: Uint8Array; ciphertext: Uint8Array } {
  const { publicKey, info, aad, plaintext, random } = input;
  return sealBase(envelopeSuite(), publicKey, info, aad, plaintext, random);
}

/**
 * Opens what {@link hpkeSealBase} made, with the 32-byte secret seed.
 * Throws DecryptionError (reason `DECRYPT_FAILED`) when it is not authentic,
 * InvalidArgumentError when `secretSeed` or `enc` has a wrong length.
 */
export function hpkeOpenBase(input: {
  readonly kem: 'xwing';
  readonly secretSeed: Uint8Array;
  readonly enc: Uint8Array;
  readonly info: Uint8Array;
  readonly aad: Uint8Array;
  readonly ciphertext: Uint8Array;
}): Uint8Array {
  const suite = envelopeSuite();
  const privateKey = suite.kem.importPrivateKey(input.secretSeed);
  return openBase(suite, privateKey, input.enc, input.info, input.aad, input.ciphertext);
}
