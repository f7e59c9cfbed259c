/**
 * Whether bytes are a public key of X-Wing that something can be sealed to. Who takes a key in looks once: sealing comes
 * later, as a rule in the middle of something that is for others too.
 */
import { createPrivateKey, createPublicKey, diffieHellman } from 'node:crypto';

/** ML-KEM-768 (1184 bytes), then X25519 (32). */
export const xwingPublicKeyBytes = 1216;
const mlKemBytes = 1184;
/** Before the seed of the matrix: 768 coefficients of 12 bits, two in three bytes. */
const coefficientBytes = 1152;
const q = 3329;

// DER of the structures around a raw X25519 key: RFC 8410, sections 4 and 7.
const spkiPrefix = Buffer.from('302a300506032b656e032100', 'hex');
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** The modulus check of FIPS 203, section 7.2, on an ML-KEM-768 public key (1184 bytes): its coefficients are below q. */
export function isReduced(mlKemKey: Uint8Array): boolean {
  for (let i = 0; i < coefficientBytes; i += 3) {
    const [a = 0, b = 0, c = 0] = mlKemKey.subarray(i, i + 3);
    if ((a | ((b & 0x0f) << 8)) >= q || ((b >> 4) | (c << 4)) >= q) return false;
  }
  return true;
}

/** 1216 bytes, with a reduced ML-KEM key and an X25519 point that is not of small order (RFC 7748, section 6.1). */
export function isXwingPublicKey(key: Uint8Array): boolean {
  return (
    key.length === xwingPublicKeyBytes && isReduced(key) && !isSmallOrder(key.subarray(mlKemBytes))
  );
}

/** With whatever scalar, its product is zero, which OpenSSL refuses. */
function isSmallOrder(point: Uint8Array): boolean {
  const spki = Buffer.concat([spkiPrefix, point]);
  const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' });
  const pkcs8 = Buffer.concat([pkcs8Prefix, Buffer.alloc(32, 1)]);
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  try {
    return diffieHellman({ privateKey, publicKey }).every((byte) => byte === 0);
  } catch {
    return true;
  }
}
