/**
 * The VRF engine over our own curve arithmetic in WebAssembly (wasm/). Byte for byte the proofs of vrf.ts, and its
 * verdicts.
 */
import { WasmProver } from './ecvrf-prover.ts';
import { WasmPublicKey } from './ecvrf-verifier.ts';
import { Curve } from './wasm/curve.ts';
import type { Arithmetic } from './wasm/module.ts';
import type { VrfEngine } from './vrf.ts';

/** The engine with an arithmetic that the machine has. */
export function wasmVrf(arithmetic: Arithmetic): VrfEngine {
  let curve: Curve | undefined;
  // With the first key: it takes a twentieth of a second.
  const loaded = (): Curve => (curve ??= Curve.load(arithmetic));
  return {
    name: 'wasm',
    prover: (seed) => new WasmProver(loaded(), seed),
    verifier: (publicKey) => new WasmPublicKey(loaded(), publicKey),
  };
}
