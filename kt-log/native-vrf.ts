/**
 * The VRF engine of a process on Node: libsodium's where its addon loads, else the portable one, with
 * the same proofs and verdicts. Not reachable from the `./verify` door.
 */
import type { Sodium } from './sodium-addon.ts';
import { loadSodium } from './sodium-addon.ts';
import { sodiumVrf } from './sodium-vrf.ts';
import type { ImmediateVrfProver, VrfEngine, VrfVerifier } from './vrf.ts';
import { portableVrf } from './vrf.ts';

/** libsodium's engine if `load` gives the addon. */
export function chooseVrf(load: () => Sodium): VrfEngine {
  let sodium: Sodium;
  try {
    sodium = load();
  } catch {
    // No binary for this platform (musl), or the permission model forbids addons.
    return portableVrf;
  }
  return sodiumVrf(sodium);
}

/** `name` says which engine it is: a log that proves with noble's is slow and not constant time. */
export const nativeVrf: VrfEngine = chooseVrf(loadSodium);

/**
 * The prover for a log on Node. `seed` is an Ed25519 seed (32 bytes) used for nothing else; the caller
 * wipes it. Throws InvalidArgumentError for another length.
 */
export function nativeVrfProver(seed: Uint8Array): ImmediateVrfProver {
  return nativeVrf.prover(seed);
}

/** The verifier of one log's VRF key on Node. Throws VerificationError BAD_VRF for a bad key. */
export function nativeVrfVerifier(publicKey: Uint8Array): VrfVerifier {
  return nativeVrf.verifier(publicKey);
}
