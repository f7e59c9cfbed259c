/**
 * The suite and provers of the harness: those of the log, but each VRF evaluation is computed once.
 * Thousands of histories share a few keys and labels, so that the time goes into proofs of trees.
 */
import {
  nativeSuite,
  nativeVrfProver,
  type ImmediateVrfProver,
  type VerifierSuite,
} from '@quicprochat/kt-log';
import type { Dice } from '../../cluster/dice.ts';

const nameOf = (...parts: readonly Uint8Array[]): string =>
  parts.map((part) => Buffer.from(part).toString('base64')).join(' ');

/** The value that `make` gave for the name first. */
function memo<T>(known: Map<string, T>, name: string, make: () => T): T {
  const before = known.get(name);
  if (before !== undefined) return before;
  const made = make();
  known.set(name, made);
  return made;
}

const verifiers = new Map<string, ReturnType<VerifierSuite['vrfVerifier']>>();
const outputs = new Map<string, Uint8Array>();

/** A proof that fails is verified, and fails, each time. */
export const suite: VerifierSuite = {
  ...nativeSuite,
  vrfVerifier(publicKey) {
    return memo(verifiers, nameOf(publicKey), () => {
      const verifier = nativeSuite.vrfVerifier(publicKey);
      return {
        verify: (label, version, proof) =>
          memo(outputs, `${version} ${nameOf(publicKey, label, proof)}`, () =>
            verifier.verify(label, version, proof),
          ),
      };
    });
  },
};

const provers = new Map<string, ImmediateVrfProver>();
const evaluations = new Map<string, ReturnType<ImmediateVrfProver['prove']>[number]>();

export function vrfProver(seed: Uint8Array): ImmediateVrfProver {
  return memo(provers, nameOf(seed), () => {
    const { publicKey, prove, places } = bound(nativeVrfProver(seed));
    return {
      publicKey,
      places,
      prove: (label, versions) =>
        versions.map((version) =>
          memo(evaluations, `${version} ${nameOf(publicKey, label)}`, () => {
            const [evaluation] = prove(label, [version]);
            if (evaluation === undefined) throw new TypeError('no evaluation');
            return evaluation;
          }),
        ),
    };
  });
}

function bound(prover: ImmediateVrfProver) {
  const prove: ImmediateVrfProver['prove'] = (label, versions) => prover.prove(label, versions);
  const places: ImmediateVrfProver['places'] = (label, versions) => prover.places(label, versions);
  return { publicKey: prover.publicKey, prove, places };
}

/** VRF keys and labels of all histories of a run. */
export interface Pool {
  readonly vrfSeeds: readonly Uint8Array[];
  readonly labels: readonly Uint8Array[];
}

export function poolOf(dice: Dice): Pool {
  return {
    vrfSeeds: Array.from({ length: 4 }, () => dice.bytes(32)),
    // One is empty, some are as long as a label may be.
    labels: Array.from({ length: 100 }, (_, i) =>
      i === 0
        ? new Uint8Array()
        : Uint8Array.of(i, ...dice.bytes(i % 9 === 0 ? 254 : dice.int(12))),
    ),
  };
}
