/**
 * The suite of the side that runs on Node: hashing and Ed25519 by OpenSSL, VRFs by the engine that
 * native-vrf.ts chose. Not reachable from the `./verify` door.
 */
import { publicKeyObject } from '@quicprochat/proto';
import { verify } from 'node:crypto';
import { nativeSha256 } from './native-hash.ts';
import { nativeVrfVerifier } from './native-vrf.ts';
import type { VerifierSuite } from './suite.ts';

export const nativeSuite: VerifierSuite = {
  sha256: nativeSha256,
  verifySignature(publicKey, message, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      return verify(null, message, publicKeyObject(publicKey), signature);
    } catch {
      // OpenSSL throws for a key that is no point of the curve; to the caller a bad signature.
      return false;
    }
  },
  vrfVerifier: nativeVrfVerifier,
};
