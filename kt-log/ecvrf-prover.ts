/**
 * Proving with the curve in WebAssembly: byte for byte what vrf.ts proves.
 *
 * Secrets are the scalar x, the nonce k and the prefix that k is derived from. They are bytes in arrays of ours and
 * numbers in the module's memory, never JavaScript numbers but for the five bits of x that RFC 8032 sets; instructions and
 * addresses there do not depend on them, and what is computed of them is wiped after each call.
 */
import { vrfInput } from './codec.ts';
import type { Curve } from './wasm/curve.ts';
import { digits, nonce, slot, table } from './wasm/curve.ts';
import { at, baseTables, batchMax, splitWindows } from './wasm/module.ts';
import { digitCount } from './wasm/scalar.ts';
import {
  bytes32,
  challengeBytes,
  challengeOf,
  encodeToCurve,
  outputOf,
  slotsOf,
} from './ecvrf-steps.ts';
import { vrfProofBytes } from './hash.ts';
import type { ImmediateVrfProver, VrfEvaluation, VrfPlace } from './vrf.ts';
import { checkSeed } from './vrf.ts';

/** Bases that two products of one point share: 192 doublings for both, and 60 for each. */
const sharedBases = 4;

/** A secret key that proves; `seed` as in `VrfEngine`. */
export class WasmProver implements ImmediateVrfProver {
  readonly publicKey: Uint8Array;
  readonly #curve: Curve;
  /**
   * x of RFC 8032 section 5.1.5, modulo the order: whatever it is multiplied with is of that order. Behind it the
   * prefix, which nonces are hashes of. In a buffer of its own, since V8 moves small arrays and leaves copies.
   */
  readonly #secret = new Uint8Array(new ArrayBuffer(2 * bytes32));
  readonly #scalar = this.#secret.subarray(0, bytes32);
  readonly #prefix = this.#secret.subarray(bytes32);

  constructor(curve: Curve, seed: Uint8Array) {
    checkSeed(seed);
    const { memory, run } = curve;
    this.#curve = curve;
    try {
      curve.hash(at.wide, [seed]);
      this.#prefix.set(memory.subarray(at.wide + bytes32, at.wide + 2 * bytes32));
      memory.fill(0, at.wide + bytes32, at.wide + 2 * bytes32);
      memory[at.wide] = (memory[at.wide] ?? 0) & 0xf8;
      memory[at.wide + 31] = ((memory[at.wide + 31] ?? 0) & 0x7f) | 0x40;
      memory.fill(0, at.challenge, at.challenge + challengeBytes);
      run.multiplyAdd(at.scalar, at.wide, at.challenge, at.scalar);
      this.#scalar.set(memory.subarray(at.scalar, at.scalar + bytes32));
      run.digits(digits(0), at.scalar);
      this.#timesBase(0, 0);
      curve.encode([0]);
      this.publicKey = curve.encoding(0).slice();
    } finally {
      curve.wipe();
    }
  }

  prove(
    label: Uint8Array,
    versions: readonly number[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): VrfEvaluation[] {
    const inputs = versions.map((version) => vrfInput(label, version));
    return inBatches(inputs, (batch, from) =>
      this.evaluate(batch, places.slice(from, from + batchMax)),
    );
  }

  places(label: Uint8Array, versions: readonly number[]): VrfPlace[] {
    const inputs = versions.map((version) => vrfInput(label, version));
    return inBatches(inputs, (batch) => this.#placesOf(batch));
  }

  /** One product each, and nothing of the proofs. */
  #placesOf(inputs: readonly Uint8Array[]): VrfPlace[] {
    const curve = this.#curve;
    try {
      this.#loadScalar();
      for (const [i, alpha] of inputs.entries()) {
        const { h, gamma } = slotsOf(i);
        encodeToCurve(curve, h, this.publicKey, alpha);
        this.#multiply(h, [[gamma, 0]]);
        this.#clearCofactor(i);
      }
      curve.encode(inputs.flatMap((_, i) => [slotsOf(i).h, slotsOf(i).gamma, slotsOf(i).gamma8]));
      return inputs.map((_, i) => {
        const { h, gamma, gamma8 } = slotsOf(i);
        const points = new Uint8Array(2 * bytes32);
        points.set(curve.encoding(h));
        points.set(curve.encoding(gamma), bytes32);
        return { output: outputOf(curve, curve.encoding(gamma8)), points };
      });
    } finally {
      curve.wipe();
    }
  }

  /**
   * RFC 9381 section 5.1 with the nonce of section 5.4.2.2, of up to `batchMax` inputs, and from their places where
   * there are any.
   */
  evaluate(
    inputs: readonly Uint8Array[],
    places: readonly (VrfPlace | undefined)[] = [],
  ): VrfEvaluation[] {
    const curve = this.#curve;
    try {
      this.#loadScalar();
      for (const [i, alpha] of inputs.entries()) {
        const { h } = slotsOf(i);
        const place = places[i];
        if (place === undefined) encodeToCurve(curve, h, this.publicKey, alpha);
        else takePoint(curve, h, place);
      }
      // A nonce is a hash of H.
      const fresh = [...inputs.keys()].filter((i) => places[i] === undefined);
      if (fresh.length > 0) curve.encode(fresh.map((i) => slotsOf(i).h));
      for (const i of inputs.keys()) {
        const { h, gamma, u, v } = slotsOf(i);
        this.#loadNonce(i, places[i]?.points.subarray(0, bytes32) ?? curve.encoding(h));
        if (places[i] === undefined) {
          this.#multiply(h, [
            [gamma, 0],
            [v, 1],
          ]);
          this.#clearCofactor(i);
        } else this.#multiply(h, [[v, 1]]);
        this.#timesBase(u, 1);
      }
      const made = inputs.flatMap((_, i) => {
        const { gamma, gamma8, u, v } = slotsOf(i);
        return places[i] === undefined ? [gamma, gamma8, u, v] : [u, v];
      });
      curve.encode(made);
      return inputs.map((_, i) => this.#evaluationOf(i, places[i]));
    } finally {
      curve.wipe();
    }
  }

  /** x and its digits, number 0. */
  #loadScalar(): void {
    this.#curve.memory.set(this.#scalar, at.scalar);
    this.#curve.run.digits(digits(0), at.scalar);
  }
  /** k of input `i` and its digits, number 1. */
  #loadNonce(i: number, h: Uint8Array): void {
    const { memory, run } = this.#curve;
    this.#curve.hash(at.wide, [this.#prefix, h]);
    memory.fill(0, at.challenge, at.challenge + challengeBytes);
    run.multiplyAdd(nonce(i), at.wide, at.challenge, at.scalar);
    run.digits(digits(1), nonce(i));
  }
  /** Products of a point, which is spoiled but for its encoding: to each slot with the scalar of that number. */
  #multiply(point: number, products: readonly (readonly [slot: number, scalar: number])[]): void {
    const { run } = this.#curve;
    const bases = products.length > 1 ? sharedBases : 1;
    const windows = digitCount / bases;
    run.build(table(0), bases, windows, slot(point));
    for (const [to, scalar] of products) {
      run.walk(slot(to), table(0), bases, windows, digits(scalar));
    }
  }
  #timesBase(to: number, scalar: number): void {
    this.#curve.run.walk(slot(to), at.base, baseTables, splitWindows, digits(scalar));
  }
  #clearCofactor(i: number): void {
    const { gamma, gamma8 } = slotsOf(i);
    this.#curve.copy(gamma8, gamma);
    this.#curve.run.double(slot(gamma8), 3);
  }

  /** Gamma, c, and s = k + c x of encoded points, and the output. */
  #evaluationOf(i: number, place: VrfPlace | undefined): VrfEvaluation {
    const curve = this.#curve;
    const { memory, run } = curve;
    const slots = slotsOf(i);
    const h = place?.points.subarray(0, bytes32) ?? curve.encoding(slots.h);
    const gamma = place?.points.subarray(bytes32) ?? curve.encoding(slots.gamma);
    const [u, v] = [curve.encoding(slots.u), curve.encoding(slots.v)];
    const challenge = challengeOf(curve, [this.publicKey, h, gamma, u, v]);
    memory.set(challenge, at.challenge);
    memory.copyWithin(at.wide, nonce(i), nonce(i) + bytes32);
    memory.fill(0, at.wide + bytes32, at.wide + 2 * bytes32);
    run.multiplyAdd(nonce(i), at.wide, at.challenge, at.scalar);
    const proof = new Uint8Array(vrfProofBytes);
    proof.set(gamma);
    proof.set(challenge, bytes32);
    proof.set(memory.subarray(nonce(i), nonce(i) + bytes32), bytes32 + challengeBytes);
    return { output: place?.output ?? outputOf(curve, curve.encoding(slots.gamma8)), proof };
  }
}

/** The H of a place into a slot. */
function takePoint(curve: Curve, to: number, { points }: VrfPlace): void {
  const h = points.subarray(0, bytes32);
  if ((curve.decode(h, h) & 1) === 0) throw new TypeError('vrf: a place without a point');
  curve.copy(to, 0);
}
function inBatches<T>(
  inputs: readonly Uint8Array[],
  make: (batch: readonly Uint8Array[], from: number) => readonly T[],
): T[] {
  const made: T[] = [];
  for (let from = 0; from < inputs.length; from += batchMax) {
    made.push(...make(inputs.slice(from, from + batchMax), from));
  }
  return made;
}
