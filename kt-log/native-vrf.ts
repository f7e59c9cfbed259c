/**
 * The VRF engine of a process on Node: ours in WebAssembly where the processor has vectors, else the
 * portable one, with the same proofs and verdicts. Not reachable from the `./verify` door.
 */
import type { Arithmetic } from './wasm/module.ts';
import { arithmeticHere } from './wasm/module.ts';
import type { ImmediateVrfProver, VrfEngine, VrfVerifier } from './vrf.ts';
import { portableVrf } from './vrf.ts';
import { wasmVrf } from './wasm-vrf.ts';

/** The engine for the arithmetic that there is. */
export function chooseVrf(arithmetic: Arithmetic | undefined): VrfEngine {
  return arithmetic === undefined ? portableVrf : wasmVrf(arithmetic);
}

/** `name` says which engine it is: a log that proves with noble's is slow and not constant time. */
export const nativeVrf: VrfEngine = chooseVrf(arithmeticHere());

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
