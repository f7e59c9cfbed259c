/** The adapter's own small codecs and choices: identities, vectors, suite, padding. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemRandom } from '@quicprochat/proto';
import {
  chooseSuite,
  credentialIdentity,
  mandatorySuite,
  parseCredentialIdentity,
  xwingSuite,
} from './index.ts';
import { Reader, vector } from './presentation.ts';
import { paddedLength } from './suite.ts';
import { encodesBack, refused } from './test-members.ts';

const identity = { userId: 'alice@red.example', deviceId: 'abcdefghij234567' };

test('identities: arbitrary bytes give a value that encodes back, or MALFORMED', () => {
  const valid = credentialIdentity(identity.userId, identity.deviceId);
  const near = fc
    .tuple(fc.nat({ max: valid.length - 1 }), fc.nat({ max: 255 }))
    .map(([at, byte]) => valid.with(at, byte));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), near), (input) => {
      const bytes = Uint8Array.from(input);
      encodesBack(bytes, () => {
        const { userId, deviceId } = parseCredentialIdentity(bytes);
        return credentialIdentity(userId, deviceId);
      });
    }),
    { numRuns: 2000 },
  );
});

test('vectors: round trip around the length steps, non-minimal lengths refused', () => {
  for (const length of [0, 1, 63, 64, 65, 255, 256, 16_383]) {
    const value = systemRandom.bytes(length);
    const reader = new Reader(vector(value));
    assert.deepEqual(reader.vector(16_383), value);
    reader.end();
    if (length > 0) {
      assert.throws(() => new Reader(vector(value)).vector(length - 1), refused('MALFORMED'));
    }
  }
  assert.throws(() => vector(new Uint8Array(16_384)), refused('MALFORMED'));
  assert.throws(() => new Reader(Uint8Array.of(0x40, 3, 1, 2, 3)).vector(9), refused('MALFORMED'));
  assert.throws(() => new Reader(Uint8Array.of(0x80, 0, 0, 0)).vector(9), refused('MALFORMED'));
});

test('the suite is X-Wing only when all of at most 256 devices have it', () => {
  const both = [xwingSuite, mandatorySuite];
  const devices = (count: number): (typeof both)[] => Array.from({ length: count }, () => both);
  assert.equal(chooseSuite(devices(1)), xwingSuite);
  assert.equal(chooseSuite(devices(256)), xwingSuite);
  assert.equal(chooseSuite(devices(257)), mandatorySuite);
  assert.equal(chooseSuite([both, [mandatorySuite]]), mandatorySuite);
  assert.throws(() => chooseSuite([[xwingSuite], [mandatorySuite]]), refused('NO_COMMON_SUITE'));
  assert.throws(() => chooseSuite([both, []]), refused('NO_COMMON_SUITE'));
});

test('padded lengths: never shorter, monotone, at most 12 % over beyond 4 KiB', () => {
  for (const [length, padded] of [
    [0, 256],
    [1, 256],
    [256, 256],
    [257, 512],
    [4096, 4096],
    [4097, 4352],
    [9, 256],
  ] as const) {
    assert.equal(paddedLength(length), padded, `${length}`);
  }
  let previous = 0;
  for (let length = 0; length < 300_000; length += 37) {
    const padded = paddedLength(length);
    assert.ok(padded >= length && padded >= previous);
    if (length > 4096) assert.ok(padded <= length * 1.12, `${length} -> ${padded}`);
    assert.equal(paddedLength(padded), padded);
    previous = padded;
  }
});
