/**
 * Test support: the native suite, made affordable for a million mutants without another verdict. What
 * it verified once it does not verify again, and of messages that no key of the test ever signed it
 * only samples that Ed25519 refuses them.
 */
import assert from 'node:assert/strict';
import type { Hash } from './hash.ts';
import { nativeSuite } from './native-suite.ts';
import type { Signer, VerifierSuite } from './suite.ts';
import type { VrfVerifier } from './vrf.ts';

/** One of so many signatures over messages that were never signed is verified all the same. */
const sampledSignatures = 512;

/** A VRF proof that is not known yet costs milliseconds: this mutant is not worth following. */
export class TooDear extends Error {
  override name = 'TooDear';
}

const keyOf = (...parts: readonly Uint8Array[]): string =>
  parts
    .map((part) => Buffer.from(part.buffer, part.byteOffset, part.length).toString('latin1'))
    .join('|');

export class MutationSuite implements VerifierSuite {
  readonly sha256 = nativeSuite.sha256;
  /** Unknown VRF proofs that may still be verified; beyond them `TooDear`. */
  vrfBudget = Number.POSITIVE_INFINITY;
  /** VRF proofs that were verified, and signatures. */
  readonly verified = { vrfProofs: 0, signatures: 0 };
  /** Messages that were signed, with the signatures that hold. */
  readonly #signed = new Map<string, Set<string>>();
  readonly #vrfVerifiers = new Map<string, VrfVerifier>();
  #strangers = 0;

  /** A signer whose messages this suite knows. */
  recorded(signer: Signer): Signer {
    const { publicKey } = signer;
    return {
      publicKey,
      sign: (message) => {
        const signature = signer.sign(message);
        this.#signed.set(keyOf(publicKey, message), new Set([keyOf(signature)]));
        return signature;
      },
    };
  }

  verifySignature(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
    const known = this.#signed.get(keyOf(publicKey, message));
    if (known?.has(keyOf(signature)) === true) return true;
    const isSigned = known !== undefined;
    if (!isSigned && this.#strangers++ % sampledSignatures !== 0) return false;
    this.verified.signatures++;
    const holds = nativeSuite.verifySignature(publicKey, message, signature);
    assert.ok(isSigned || !holds, 'a signature over what nobody signed');
    // A second signature that holds over the same message has to be judged as what it is.
    if (holds) known?.add(keyOf(signature));
    return holds;
  }

  vrfVerifier(publicKey: Uint8Array): VrfVerifier {
    const key = keyOf(publicKey);
    const made = this.#vrfVerifiers.get(key);
    if (made !== undefined) return made;
    if (this.vrfBudget-- <= 0) throw new TooDear();
    const real = nativeSuite.vrfVerifier(publicKey);
    const outputs = new Map<string, Hash>();
    const verifier: VrfVerifier = {
      verify: (label, version, proof) => {
        const asked = `${version}|${keyOf(proof, label)}`;
        const known = outputs.get(asked);
        if (known !== undefined) return known;
        if (this.vrfBudget-- <= 0) throw new TooDear();
        this.verified.vrfProofs++;
        const output = real.verify(label, version, proof);
        outputs.set(asked, output);
        return output;
      },
    };
    this.#vrfVerifiers.set(key, verifier);
    return verifier;
  }
}
