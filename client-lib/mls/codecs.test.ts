/** The adapter's own small codecs and choices: qpc_group, identities, vectors, suite, padding. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemRandom } from '@quicprochat/proto';
import { decodeQpcGroup, encodeQpcGroup } from './group-extension.ts';
import {
  MlsError,
  chooseSuite,
  credentialIdentity,
  mandatorySuite,
  parseCredentialIdentity,
  xwingSuite,
} from './index.ts';
import { Reader, vector } from './presentation.ts';
import { paddedLength } from './suite.ts';
import { refused } from './test-members.ts';

const info = {
  conversationId: systemRandom.bytes(32),
  creator: { userId: 'alice@red.example', deviceId: 'abcdefghij234567' },
  name: 'Grüße 🌊',
  policyVersion: 1,
};

test('qpc_group: round trip, and every cut, over-length and foreign version is refused', () => {
  const encoded = encodeQpcGroup(info);
  assert.deepEqual(decodeQpcGroup(encoded), info);
  assert.deepEqual(decodeQpcGroup(encodeQpcGroup({ ...info, name: '' })), { ...info, name: '' });
  for (let cut = 0; cut < encoded.length; cut++) {
    assert.throws(() => decodeQpcGroup(encoded.subarray(0, cut)), refused('MALFORMED'));
  }
  const longer = new Uint8Array(encoded.length + 1);
  longer.set(encoded);
  assert.throws(() => decodeQpcGroup(longer), refused('MALFORMED'));
  assert.throws(() => decodeQpcGroup(encoded.with(0, 2)), refused('MALFORMED'));
  const nameAt = encoded.length - 2 - new TextEncoder().encode(info.name).length;
  assert.throws(() => decodeQpcGroup(encoded.with(nameAt, 0xff)), refused('MALFORMED'));
  assert.throws(() => encodeQpcGroup({ ...info, name: 'x'.repeat(257) }), refused('MALFORMED'));
  assert.throws(
    () => encodeQpcGroup({ ...info, conversationId: new Uint8Array(31) }),
    refused('MALFORMED'),
  );
});

test('qpc_group and identities: arbitrary bytes give a value that encodes back, or MALFORMED', () => {
  const check = (decode: () => Uint8Array, bytes: Uint8Array): void => {
    let again: Uint8Array;
    try {
      again = decode();
    } catch (error) {
      assert.ok(error instanceof MlsError && error.reason === 'MALFORMED', String(error));
      return;
    }
    assert.deepEqual(again, bytes);
  };
  const valid = encodeQpcGroup(info);
  const near = fc
    .tuple(fc.nat({ max: valid.length - 1 }), fc.nat({ max: 255 }))
    .map(([at, byte]) => valid.with(at, byte));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), near), (input) => {
      const bytes = Uint8Array.from(input);
      check(() => encodeQpcGroup(decodeQpcGroup(bytes)), bytes);
    }),
    { numRuns: 2000 },
  );
  const identity = credentialIdentity(info.creator.userId, info.creator.deviceId);
  const nearIdentity = fc
    .tuple(fc.nat({ max: identity.length - 1 }), fc.nat({ max: 255 }))
    .map(([at, byte]) => identity.with(at, byte));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), nearIdentity), (input) => {
      const bytes = Uint8Array.from(input);
      check(() => {
        const { userId, deviceId } = parseCredentialIdentity(bytes);
        return credentialIdentity(userId, deviceId);
      }, bytes);
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
