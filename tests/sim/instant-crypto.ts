/**
 * Ed25519 of WebCrypto, answered at once: what is made for one connection (proto/transport/certificate.ts)
 * is made within a run, and a thread would take real time. The answers are the same.
 */
import { createPublicKey, createPrivateKey, KeyObject, sign, type webcrypto } from 'node:crypto';

type CryptoKey = webcrypto.CryptoKey;
type Answer = CryptoKey | ArrayBuffer;

/** DER of an Ed25519 SubjectPublicKeyInfo up to its 32 bytes (RFC 8410 section 4). */
const spkiPrefix = Uint8Array.of(48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0);

/** What a method of SubtleCrypto answers; undefined: not of Ed25519, or not known here. */
export function answerAtOnce(method: string, args: readonly unknown[]): Answer | undefined {
  switch (method) {
    case 'importKey':
      return importKey(args as Parameters<webcrypto.SubtleCrypto['importKey']>);
    case 'exportKey': {
      const [format, key] = args as [string, CryptoKey];
      if (format !== 'spki' || key.algorithm.name !== 'Ed25519') return undefined;
      return copied(keyOf(key).export({ format: 'der', type: 'spki' }));
    }
    case 'sign': {
      const [, key, data] = args as [unknown, CryptoKey, ArrayBuffer | Uint8Array];
      if (key.algorithm.name !== 'Ed25519') return undefined;
      return copied(sign(null, bytesOf(data), keyOf(key)));
    }
    default:
      return undefined;
  }
}

function importKey([format, data, algorithm, , usages]: Parameters<
  webcrypto.SubtleCrypto['importKey']
>): CryptoKey | undefined {
  const isOurs = typeof algorithm === 'object' && algorithm.name === 'Ed25519';
  if (!isOurs || !(data instanceof Uint8Array || data instanceof ArrayBuffer)) return undefined;
  const der = Buffer.from(bytesOf(data));
  const key =
    format === 'pkcs8'
      ? createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
      : format === 'raw'
        ? createPublicKey({ key: Buffer.concat([spkiPrefix, der]), format: 'der', type: 'spki' })
        : undefined;
  // Extractable, whatever was asked: Node is going to take no others for signing at once.
  return key?.toCryptoKey('Ed25519', true, [...usages]);
}

const keyOf = (key: CryptoKey): KeyObject => KeyObject.from(key);
const bytesOf = (data: ArrayBuffer | Uint8Array): Uint8Array =>
  data instanceof Uint8Array ? data : new Uint8Array(data);
const copied = (bytes: Uint8Array): ArrayBuffer => Uint8Array.from(bytes).buffer;
