/** Retry tokens: only ours, only for their address, only for seconds, across one key rotation. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { silentLog, systemClock, systemRandom } from '../runtime.ts';
import { RetryTokens } from './retry-token.ts';

function tokensAt(startMs: number) {
  let nowMs = startMs;
  const clock = { ...systemClock, monotonic: () => nowMs };
  const tokens = new RetryTokens({ clock, random: systemRandom, log: silentLog });
  return { tokens, advance: (ms: number) => (nowMs += ms) };
}

const id = Uint8Array.from({ length: 20 }, (_, index) => index);

test('a token gives its connection id back to its address only', () => {
  const { tokens } = tokensAt(5);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), fc.string(), fc.string(), (original, a, b) => {
      const token = tokens.mint(original, a);
      assert.deepEqual(tokens.open(token, a), original);
      if (a !== b) assert.equal(tokens.open(token, b), undefined);
    }),
  );
});

test('no altered, shortened, lengthened or foreign token opens', () => {
  const { tokens } = tokensAt(5);
  const token = tokens.mint(id, '192.0.2.1');
  for (let bit = 0; bit < token.length * 8; bit += 1) {
    const altered = token.slice();
    altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.equal(tokens.open(altered, '192.0.2.1'), undefined, `bit ${bit}`);
  }
  for (let length = 0; length < token.length; length += 1) {
    assert.equal(tokens.open(token.subarray(0, length), '192.0.2.1'), undefined);
  }
  assert.equal(tokens.open(Buffer.concat([token, Buffer.of(0)]), '192.0.2.1'), undefined);
  assert.equal(tokens.open(new Uint8Array(4096), '192.0.2.1'), undefined);
  assert.equal(tokensAt(5).tokens.open(token, '192.0.2.1'), undefined);
});

test('a token lives ten seconds', () => {
  const { tokens, advance } = tokensAt(1e9);
  const token = tokens.mint(id, '192.0.2.1');
  advance(10_000);
  assert.deepEqual(tokens.open(token, '192.0.2.1'), id);
  advance(1);
  assert.equal(tokens.open(token, '192.0.2.1'), undefined);
});

test('a token outlives the rotation of the key that follows it', () => {
  const { tokens, advance } = tokensAt(0);
  advance(3_600_000 - 5_000);
  const before = tokens.mint(id, '192.0.2.1');
  advance(5_000);
  const after = tokens.mint(id, '192.0.2.1');
  assert.deepEqual(tokens.open(before, '192.0.2.1'), id);
  assert.deepEqual(tokens.open(after, '192.0.2.1'), id);
});
