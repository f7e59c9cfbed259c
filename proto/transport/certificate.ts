/**
 * The self-made Ed25519 X.509 certificate that every end of a connection presents (RFC 5280 syntax,
 * RFC 8410 keys). It carries a key and nothing else: identity is the SHA-256 of the
 * SubjectPublicKeyInfo, and the name and dates inside are the same in every certificate.
 */
import 'reflect-metadata';
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { inspect } from 'node:util';
import { X509CertificateGenerator } from '@peculiar/x509';
import type { Random } from '../runtime.ts';
import { InvalidArgumentError } from '../status.ts';

/** DER of a PKCS#8 Ed25519 private key up to its 32-byte seed (RFC 8410 section 7). */
const pkcs8Prefix = Uint8Array.of(48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32);

const algorithm = { name: 'Ed25519' };
/** Fixed, so that a certificate does not tell when its device was set up. */
const notBefore = new Date('2025-01-01T00:00:00Z');
/** "No well-defined expiration date" (RFC 5280 section 4.1.2.5). */
const notAfter = new Date('9999-12-31T23:59:59Z');

/** A transport key with its certificate. The private key never prints, serializes or copies. */
export class NodeIdentity {
  /** One certificate, PEM with a trailing newline. */
  readonly certificatePem: string;
  readonly certificateDer: Uint8Array<ArrayBuffer>;
  /** SHA-256 of the SubjectPublicKeyInfo (32 bytes): what the other side pins. */
  readonly spkiSha256: Uint8Array<ArrayBuffer>;
  readonly #privateKeyPem: string;

  /** `loadIdentity` and `makeIdentity` check that the two belong together; this does not. */
  constructor(certificatePem: string, privateKeyPem: string) {
    const { raw } = new X509Certificate(certificatePem);
    this.certificatePem = certificatePem;
    this.certificateDer = new Uint8Array(raw);
    this.spkiSha256 = spkiSha256OfCertificate(raw);
    this.#privateKeyPem = privateKeyPem;
  }

  /** PKCS#8 PEM with a trailing newline. Secret. */
  get privateKeyPem(): string {
    return this.#privateKeyPem;
  }

  toJSON(): Record<string, string> {
    return {
      spkiSha256: Buffer.from(this.spkiSha256).toString('base64url'),
      privateKey: '[secret]',
    };
  }

  [inspect.custom](): string {
    return `NodeIdentity ${JSON.stringify(this)}`;
  }
}

/**
 * Makes a fresh identity. The same random bytes give the same certificate: key and serial number
 * come from `random`, Ed25519 signs without randomness, and no date of today is in it.
 */
export async function makeIdentity(random: Random): Promise<NodeIdentity> {
  const pkcs8 = Buffer.concat([pkcs8Prefix, random.bytes(32)]);
  const key = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  const privateKeyPem = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  const { x = '' } = key.export({ format: 'jwk' });
  const publicKey = Buffer.from(x, 'base64url');
  const { subtle } = globalThis.crypto;
  const keys = {
    privateKey: await subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']),
    publicKey: await subtle.importKey('raw', publicKey, algorithm, true, ['verify']),
  };
  pkcs8.fill(0);
  // The top bit must be clear (a positive INTEGER) and the first byte set (minimal DER).
  const serial = random.bytes(16);
  serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: Buffer.from(serial).toString('hex'),
      name: 'CN=qpc',
      notBefore,
      notAfter,
      keys,
      signingAlgorithm: algorithm,
    },
    globalThis.crypto,
  );
  const der = Buffer.from(certificate.rawData);
  return new NodeIdentity(new X509Certificate(der).toString(), privateKeyPem);
}

/**
 * Reads an identity from its two PEM texts (as `makeIdentity` wrote them; dates and names are not
 * looked at). Throws InvalidArgumentError when one does not parse, is not Ed25519, or the key does
 * not belong to the certificate.
 */
export function loadIdentity(certificatePem: string, privateKeyPem: string): NodeIdentity {
  let belongs: boolean;
  try {
    const key = createPrivateKey(privateKeyPem);
    const certificate = new X509Certificate(certificatePem);
    belongs = key.asymmetricKeyType === 'ed25519' && certificate.checkPrivateKey(key);
  } catch {
    // The cause stays out on purpose: it may quote the text that did not parse.
    throw new InvalidArgumentError('BAD_FIELD', 'identity: certificate or key does not parse');
  }
  if (!belongs) {
    throw new InvalidArgumentError(
      'BAD_FIELD',
      'identity: need an Ed25519 key and its own certificate',
    );
  }
  return new NodeIdentity(certificatePem, privateKeyPem);
}

/**
 * SHA-256 of the SubjectPublicKeyInfo of a DER certificate (32 bytes). Throws InvalidArgumentError
 * when it does not parse or its key is not Ed25519.
 */
export function spkiSha256OfCertificate(der: Uint8Array): Uint8Array<ArrayBuffer> {
  let spki: Buffer | undefined;
  try {
    const { publicKey } = new X509Certificate(der);
    if (publicKey.asymmetricKeyType === 'ed25519') {
      spki = publicKey.export({ type: 'spki', format: 'der' });
    }
  } catch (cause) {
    throw new InvalidArgumentError('BAD_FIELD', 'certificate: does not parse', { cause });
  }
  if (spki === undefined) {
    throw new InvalidArgumentError('BAD_FIELD', 'certificate: its key is not Ed25519');
  }
  return new Uint8Array(createHash('sha256').update(spki).digest());
}
