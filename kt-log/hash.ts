/**
 * The hashes of cipher suite KT_128_SHA256_Ed25519 (protocol sections 11.1, 11.6, 11.8, 11.9,
 * 17.1) and of the RFC 6962 tree beside it (RFC 9162 section 2.1.1). One SHA-256 is passed in,
 * so that a server takes the native one and a browser noble's. No state, no trees.
 */
import { sha256 as nobleSha256 } from '@noble/hashes/sha2.js';

/** 32 bytes. Never changed after it was made: trees, caches and proofs share them. */
export type Hash = Uint8Array;

/** SHA-256 (FIPS 180-4) of all of `input`; the result is fresh memory of its own. */
export type Sha256 = (input: Uint8Array) => Hash;

/** SHA-256 in plain JavaScript: runs everywhere, about four times slower than the native one. */
export const portableSha256: Sha256 = nobleSha256;

/** Number of the cipher suite KT_128_SHA256_Ed25519 (section 17.1). */
export const cipherSuiteEd25519 = 0x0002;
/** `Hash.Nh` and `VRF.Nh`. */
export const hashBytes = 32;
/** `VRF.Np` of ECVRF-EDWARDS25519-SHA512-TAI. */
export const vrfProofBytes = 80;
/** `Nc`. */
export const openingBytes = 16;
/** A LogEntry as it is hashed: uint64 timestamp and prefix root. */
export const logEntryBytes = 40;

/** Stand-in of a missing child, and root of the empty prefix tree (section 11.9). */
export const zeroHash: Hash = new Uint8Array(hashBytes);

/** `Kc` (section 17.1). */
const commitmentKey = new Uint8Array([
  0xd8, 0x21, 0xf8, 0x79, 0x0d, 0x97, 0x70, 0x97, 0x96, 0xb4, 0xd7, 0x90, 0x33, 0x57, 0xc3, 0xf5,
]);

/** Whether two byte strings are equal. Not constant time: nothing compared here is secret. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Order of byte strings as big-endian numbers; shorter first when one is the other's prefix. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Bit `index` of a key, most significant first. */
export function bitAt(key: Uint8Array, index: number): 0 | 1 {
  return (((key[index >>> 3] ?? 0) >>> (7 - (index & 7))) & 1) === 1 ? 1 : 0;
}

/** How the two log trees hash: the KEYTRANS one for clients, RFC 6962's for witnesses. */
export interface TreeHasher {
  /** Value of the leaf of a 40-byte log entry. */
  leaf(entry: Uint8Array): Hash;
  /** Value of a parent; only the KEYTRANS tree tells leaves and parents apart here. */
  parent(left: Hash, leftIsLeaf: boolean, right: Hash, rightIsLeaf: boolean): Hash;
}

/**
 * Section 11.8: `leaf.value = Hash(LogEntry)`,
 * `parent.value = Hash(hashContent(left) || hashContent(right))` where hashContent puts 0x00
 * before a leaf's value and 0x01 before a parent's.
 */
export function keytransHasher(sha256: Sha256): TreeHasher {
  const input = new Uint8Array(2 * (1 + hashBytes));
  return {
    leaf: sha256,
    parent(left, leftIsLeaf, right, rightIsLeaf) {
      input[0] = leftIsLeaf ? 0 : 1;
      input.set(left, 1);
      input[1 + hashBytes] = rightIsLeaf ? 0 : 1;
      input.set(right, 2 + hashBytes);
      return sha256(input);
    },
  };
}

/** RFC 9162 section 2.1.1: `H(0x00 || entry)` and `H(0x01 || left || right)`. */
export function rfc6962Hasher(sha256: Sha256): TreeHasher {
  const parentInput = new Uint8Array(1 + 2 * hashBytes);
  parentInput[0] = 1;
  return {
    leaf(entry) {
      const input = new Uint8Array(1 + entry.length);
      input.set(entry, 1);
      return sha256(input);
    },
    parent(left, _leftIsLeaf, right) {
      parentInput.set(left, 1);
      parentInput.set(right, 1 + hashBytes);
      return sha256(parentInput);
    },
  };
}

export interface PrefixHasher {
  leaf(vrfOutput: Uint8Array, commitment: Hash): Hash;
  parent(left: Hash, right: Hash): Hash;
}

/** Section 11.9: `Hash(0x02 || vrf_output || commitment)` and `Hash(0x03 || left || right)`. */
export function prefixHasher(sha256: Sha256): PrefixHasher {
  const input = new Uint8Array(1 + 2 * hashBytes);
  const hashPair = (tag: number, first: Uint8Array, second: Uint8Array): Hash => {
    input[0] = tag;
    input.set(first, 1);
    input.set(second, 1 + hashBytes);
    return sha256(input);
  };
  return {
    leaf: (vrfOutput, commitment) => hashPair(2, vrfOutput, commitment),
    parent: (left, right) => hashPair(3, left, right),
  };
}

/** A LogEntry (section 11.8), 40 bytes: what both log trees hash. */
export function logEntry(timestampMs: number, prefixRoot: Hash): Uint8Array {
  const entry = new Uint8Array(logEntryBytes);
  const view = new DataView(entry.buffer);
  view.setUint32(0, Math.floor(timestampMs / 2 ** 32));
  view.setUint32(4, timestampMs % 2 ** 32);
  entry.set(prefixRoot, 8);
  return entry;
}

const blockBytes = 64;
function pad(value: number): Uint8Array {
  const block = new Uint8Array(blockBytes).fill(value);
  commitmentKey.forEach((byte, i) => {
    block[i] = byte ^ value;
  });
  return block;
}
const innerPad = pad(0x36);
const outerPad = pad(0x5c);

/**
 * Section 11.6: `HMAC-SHA256(Kc, CommitmentValue)` of an encoded CommitmentValue. Written as two
 * hashes over the pads of RFC 2104, because one call of the native SHA-256 is several times
 * cheaper than an HMAC object.
 */
export function commitmentOf(sha256: Sha256, commitmentValue: Uint8Array): Hash {
  const inner = new Uint8Array(blockBytes + commitmentValue.length);
  inner.set(innerPad);
  inner.set(commitmentValue, blockBytes);
  const outer = new Uint8Array(blockBytes + hashBytes);
  outer.set(outerPad);
  outer.set(sha256(inner), blockBytes);
  return sha256(outer);
}
