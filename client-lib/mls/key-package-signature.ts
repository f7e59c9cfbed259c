/**
 * The two signatures of a KeyPackage (RFC 9420 sections 7.2 and 10), checked without a group:
 * the library does so only inside an Add. Works on the canonical bytes, since what is signed is
 * a prefix of them.
 */
import type { CiphersuiteImpl, KeyPackage } from 'ts-mls';
import { concat } from '../crypto/octets.ts';
import { vector } from './presentation.ts';

const text = new TextEncoder();

/**
 * Whether both signatures hold. `bytes` is the canonical encoding of `keyPackage`:
 *   version u16 | suite u16 | init_key<V> | leaf | extensions<V> | signature<V>
 * and the leaf ends in its own signature<V>.
 */
export async function verifyKeyPackageSignatures(
  cs: CiphersuiteImpl,
  bytes: Uint8Array,
  keyPackage: KeyPackage,
): Promise<boolean> {
  const { leafNode, extensions, initKey, signature } = keyPackage;
  const tbs = bytes.subarray(0, bytes.length - vector(signature).length);
  const extensionsLength = vector(
    concat(
      ...extensions.map(({ extensionData }) => concat(new Uint8Array(2), vector(extensionData))),
    ),
  ).length;
  const leaf = tbs.subarray(4 + vector(initKey).length, tbs.length - extensionsLength);
  const leafTbs = leaf.subarray(0, leaf.length - vector(leafNode.signature).length);
  const key = leafNode.signaturePublicKey;
  return (
    (await cs.signature.verify(key, labeled('LeafNodeTBS', leafTbs), leafNode.signature)) &&
    cs.signature.verify(key, labeled('KeyPackageTBS', tbs), signature)
  );
}

// SignContent of RFC 9420 section 5.1.2.
function labeled(label: string, content: Uint8Array): Uint8Array {
  return concat(vector(text.encode(`MLS 1.0 ${label}`)), vector(content));
}
