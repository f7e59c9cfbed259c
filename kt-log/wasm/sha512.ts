/**
 * SHA-512 (FIPS 180-4) as WebAssembly. A call of OpenSSL's costs five times what it computes for messages as short
 * as the VRF's, and would take the prefix of a key out of the memory that is wiped.
 */
import type { Body, Callable, I32, I64, Module } from './assembler.ts';
import { i32, i64, v128 } from './assembler.ts';

export const blockBytes = 128;
export const digestBytes = 64;
const rounds = 80;
/** Rounds that share their words: a block has sixteen. */
const step = 16;

/** Bits behind the point of the roots of the first primes. */
function rootBits(degree: 2n | 3n, count: number): bigint[] {
  const primes: bigint[] = [];
  for (let n = 2n; primes.length < count; n++) {
    if (primes.every((prime) => n % prime !== 0n)) primes.push(n);
  }
  return primes.map((prime) => {
    const scaled = prime << (64n * degree);
    let root = 0n;
    for (let bit = 1n << 68n; bit > 0n; bit >>= 1n) {
      if ((root + bit) ** degree <= scaled) root += bit;
    }
    return BigInt.asUintN(64, root);
  });
}

/** The constants of the rounds, 640 bytes. */
export function roundConstants(): Uint8Array {
  return bytesOf(rootBits(3n, rounds), true);
}
/** What a digest is before there is a message, 64 bytes. */
export function initialDigest(): Uint8Array {
  return bytesOf(rootBits(2n, 8), false);
}
function bytesOf(words: readonly bigint[], isLittleEndian: boolean): Uint8Array {
  const view = new DataView(new ArrayBuffer(8 * words.length));
  for (const [i, word] of words.entries()) view.setBigUint64(8 * i, word, isLittleEndian);
  return new Uint8Array(view.buffer);
}

/** Defines `(digest, message, blocks)`: takes blocks into a digest. `constants`: where those of the rounds are. */
export function defineSha512(module: Module, constants: number): Callable {
  return module.define('sha512', 3, (body, digest, message, blocks) => {
    const state = wordsAt(body, digest, 4);
    const last = body.let(i32.sub(blocks, i32.const(1)));
    body.countDown(last, (left) => {
      const index = i32.sub(last, left);
      const block = body.let(i32.add(message, i32.mul(index, i32.const(blockBytes))));
      const words = wordsAt(body, block, step / 2);
      const variables = state.map((word) => body.let(word));
      body.countDown(i32.const(rounds / step - 1), (later) => {
        const number = i32.sub(i32.const(rounds / step - 1), later);
        const from = body.let(i32.add(i32.const(constants), i32.mul(number, i32.const(8 * step))));
        // After sixteen rounds each variable is in the place where it began.
        const turn = variables.slice();
        for (const [i, word] of words.entries()) {
          const [a, b, c, d, e, f, g, h] = turn;
          if (!a || !b || !c || !d || !e || !f || !g || !h) {
            throw new TypeError('sha512: eight variables');
          }
          const choice = i64.xor(g, i64.and(e, i64.xor(f, g)));
          const known = i64.add(i64.add(h, word), body.load('i64', from, 8 * i));
          const first = body.let(i64.add(known, i64.add(choice, turned(e, 14, 18, 41))));
          const majority = i64.xor(b, i64.and(i64.xor(a, b), i64.xor(b, c)));
          body.set(d, i64.add(d, first));
          body.set(h, i64.add(first, i64.add(majority, turned(a, 28, 34, 39))));
          turn.unshift(h);
          turn.pop();
          // The word of the round sixteen later.
          const [w1, w9, w14] = [1, 9, 14].map((after) => words[(i + after) % step] ?? word);
          if (!w1 || !w9 || !w14) throw new TypeError('sha512: sixteen words');
          const small0 = i64.xor(i64.xor(i64.rotr(w1, 1), i64.rotr(w1, 8)), i64.ushr(w1, 7));
          const small1 = i64.xor(i64.xor(i64.rotr(w14, 19), i64.rotr(w14, 61)), i64.ushr(w14, 6));
          body.set(word, i64.add(i64.add(word, small0), i64.add(w9, small1)));
        }
      });
      for (const [i, word] of state.entries()) body.set(word, i64.add(word, variables[i] ?? word));
    });
    for (let i = 0; i < state.length; i += 2) {
      const [first, second] = [state[i], state[i + 1]];
      if (first && second) body.store(digest, 8 * i, v128.reversed(v128.pair(first, second)));
    }
  });
}

/** Pairs of words, whose bytes stand in memory with the highest first. */
function wordsAt(body: Body, address: I32, pairs: number): I64[] {
  return Array.from({ length: pairs }, (_, i) => {
    const pair = body.let(v128.reversed(body.load('v128', address, 16 * i)));
    return [body.let(i64.lane(pair, 0)), body.let(i64.lane(pair, 1))];
  }).flat();
}
function turned(word: I64, ...bits: readonly [number, number, number]): I64 {
  const [a, b, c] = bits.map((count) => i64.rotr(word, count)) as [I64, I64, I64];
  return i64.xor(i64.xor(a, b), c);
}
