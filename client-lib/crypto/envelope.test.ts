/**
 * Envelopes: round trips, refusal of every flipped and cut byte, what their sizes tell, and which
 * failures a caller may park.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { maxControlBytes, QpcError, systemRandom } from '@quicprochat/proto';
import { create, EnvelopeSchema, toBinary } from '@quicprochat/proto/messages';
import {
  channelKeyId,
  EnvelopeError,
  hybridKeyId,
  openChannel,
  openHybrid,
  parseEnvelope,
  sealChannel,
  sealHybrid,
} from './envelope.ts';
import type { SealedContent, SealedEnvelope } from './envelope.ts';
import { paddedLength } from './padding.ts';
import { xwingGenerateKeyPair } from './xwing.ts';

const random = systemRandom;
const rid = random.bytes(32);
const mid = random.bytes(16);
const recipient = xwingGenerateKeyPair(random);
const channelKey = random.bytes(32);
const mlsMessage = (length: number): SealedContent => ({
  kind: 'mlsMessage',
  bytes: random.bytes(length),
});

function hybrid(payload: Uint8Array): Extract<SealedEnvelope, { mode: 'hybrid' }> {
  const envelope = parseEnvelope(payload);
  assert(envelope.mode === 'hybrid');
  return envelope;
}
function channel(payload: Uint8Array): Extract<SealedEnvelope, { mode: 'channel' }> {
  const envelope = parseEnvelope(payload);
  assert(envelope.mode === 'channel');
  return envelope;
}
const sealTo = (content: SealedContent): Uint8Array =>
  sealHybrid({ content, recipientKey: recipient.publicKey, rid, mid, random });

// Finds keys as a device does: by id, so that a flipped id is a key that is not here.
const seedOf = (keyId: Uint8Array): Uint8Array | undefined =>
  Buffer.compare(keyId, hybridKeyId(recipient.publicKey)) === 0 ? recipient.secretSeed : undefined;
const keyOf = (keyId: Uint8Array): Uint8Array | undefined =>
  Buffer.compare(keyId, channelKeyId(channelKey)) === 0 ? channelKey : undefined;

function open(payload: Uint8Array): SealedContent {
  const envelope = parseEnvelope(payload);
  return envelope.mode === 'hybrid'
    ? openHybrid(envelope, seedOf, rid, mid)
    : openChannel(envelope, keyOf);
}

function refused(run: () => unknown, ...reasons: readonly string[]): void {
  assert.throws(
    run,
    (error) => error instanceof EnvelopeError && reasons.includes(error.reason),
    `expected ${reasons.join(' or ')}`,
  );
}

test('both modes give back what was sealed, of any size and kind', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 6000 }),
      fc.constantFrom('mlsMessage' as const, 'welcome' as const),
      (bytes, kind) => {
        const content = { kind, bytes: Uint8Array.from(bytes) };
        assert.deepEqual(open(sealTo(content)), content);
        assert.deepEqual(open(sealChannel({ content, key: channelKey, random })), content);
      },
    ),
    { numRuns: 60 },
  );
});

test('every flipped bit of a byte and every cut is a typed error', () => {
  const content = mlsMessage(334);
  for (const payload of [sealTo(content), sealChannel({ content, key: channelKey, random })]) {
    for (let at = 0; at < payload.length; at += 1) {
      for (const bit of [0x01, 0x80]) {
        const flipped = Uint8Array.from(payload);
        flipped[at] = (flipped[at] ?? 0) ^ bit;
        refused(() => open(flipped), 'BAD_ENVELOPE', 'UNKNOWN_KEY');
      }
      refused(() => open(payload.subarray(0, at)), 'BAD_ENVELOPE');
    }
    refused(() => open(Buffer.concat([payload, Buffer.of(0)])), 'BAD_ENVELOPE');
    refused(() => open(Buffer.concat([payload, Buffer.of(0x78, 0x01)])), 'BAD_ENVELOPE');
    refused(() => open(Buffer.concat([payload, payload])), 'BAD_ENVELOPE');
  }
});

test('random bytes never get past the typed errors', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      try {
        parseEnvelope(bytes);
      } catch (error) {
        assert(error instanceof EnvelopeError && error.reason === 'BAD_ENVELOPE');
      }
    }),
    { numRuns: 500 },
  );
});

test('a hybrid envelope opens only at its address and under its message id', () => {
  const envelope = hybrid(sealTo(mlsMessage(100)));
  refused(() => openHybrid(envelope, seedOf, random.bytes(32), mid), 'BAD_ENVELOPE');
  refused(() => openHybrid(envelope, seedOf, rid, random.bytes(16)), 'BAD_ENVELOPE');
  assert.equal(openHybrid(envelope, seedOf, rid, mid).bytes.length, 100);
});

test('a key that is not here is UNKNOWN_KEY, a wrong one is BAD_ENVELOPE', () => {
  const other = xwingGenerateKeyPair(random);
  const toDevice = hybrid(sealTo(mlsMessage(100)));
  refused(() => openHybrid(toDevice, () => undefined, rid, mid), 'UNKNOWN_KEY');
  refused(() => openHybrid(toDevice, () => other.secretSeed, rid, mid), 'BAD_ENVELOPE');
  const toGroup = channel(sealChannel({ content: mlsMessage(100), key: channelKey, random }));
  refused(() => openChannel(toGroup, () => undefined), 'UNKNOWN_KEY');
  refused(() => openChannel(toGroup, () => random.bytes(32)), 'BAD_ENVELOPE');
});

test('key ids are those of the design and are what the envelope names', () => {
  assert.deepEqual(hybrid(sealTo(mlsMessage(1))).keyId, hybridKeyId(recipient.publicKey));
  const sealed = sealChannel({ content: mlsMessage(1), key: channelKey, random });
  assert.deepEqual(channel(sealed).keyId, channelKeyId(channelKey));
  assert.equal(
    Buffer.from(channelKeyId(new Uint8Array(32))).toString('hex'),
    // printf id | openssl dgst -sha256 -mac HMAC -macopt hexkey:00..00, first 8 bytes
    '34ce0b031abf5f1f',
  );
});

test('sizes: a text message of 334 bytes of MLS costs 1179 (hybrid) and 66 (channel) more', () => {
  const content = mlsMessage(334);
  // 334 + 3 of protobuf + 1 of padding mark, rounded to 352. Seal: 1120 + 16 and 12 + 16; key id
  // 8; protobuf around it 17 and 12.
  assert.equal(sealTo(content).length, 352 + 1136 + 8 + 17);
  assert.equal(sealChannel({ content, key: channelKey, random }).length, 352 + 28 + 8 + 12);
});

test('a size tells no more than its step: same class, same length', () => {
  const sizeOf = (content: SealedContent): number =>
    sealChannel({ content, key: channelKey, random }).length;
  // Framing around MLS's own padding may differ by some bytes.
  assert.equal(sizeOf(mlsMessage(334)), sizeOf(mlsMessage(318)));
  const welcome = (length: number): number =>
    sizeOf({ kind: 'welcome', bytes: random.bytes(length) });
  const sizes = new Set<number>();
  for (let length = 1; length <= 40_000; length += 97) sizes.add(welcome(length));
  // 16 steps to 4 KiB, then at most 16 per doubling.
  assert(sizes.size <= 16 + 16 * 4, `${sizes.size} different sizes`);
  assert.equal(welcome(1000), welcome(900));
});

test('padding grows a length by at most 255 bytes or 12 percent', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1 << 24 }), (length) => {
      const padded = paddedLength(length);
      assert(padded >= length && padded - length < Math.max(257, length * 0.12));
      assert.equal(paddedLength(padded), padded);
      assert(padded <= paddedLength(length + 1));
    }),
  );
  assert.deepEqual(
    [0, 1, 256, 257, 4096, 4097, 9000].map(paddedLength),
    [256, 256, 256, 512, 4096, 4352, 9216],
  );
});

test('content that is empty, unpadded or of no known kind is refused', () => {
  const key = channelKey;
  refused(() => open(sealChannel({ content: mlsMessage(0), key, random })), 'BAD_ENVELOPE');
  const parse = (sealed: Parameters<typeof create<typeof EnvelopeSchema>>[1]): unknown =>
    parseEnvelope(toBinary(EnvelopeSchema, create(EnvelopeSchema, sealed)));
  const value = { keyId: new Uint8Array(8), nonce: new Uint8Array(12), ct: new Uint8Array(48) };
  parse({ v: 1, sealed: { case: 'channel', value } });
  refused(() => parse({ v: 1 }), 'BAD_ENVELOPE');
  refused(() => parse({ v: 2, sealed: { case: 'channel', value } }), 'BAD_ENVELOPE');
  refused(() => parse({ sealed: { case: 'channel', value } }), 'BAD_ENVELOPE');
  for (const wrong of [
    { ...value, keyId: new Uint8Array(7) },
    { ...value, nonce: new Uint8Array(13) },
    { ...value, ct: new Uint8Array(16) },
  ]) {
    refused(() => parse({ v: 1, sealed: { case: 'channel', value: wrong } }), 'BAD_ENVELOPE');
  }
});

test('what no node would store is refused on both sides', () => {
  assert.throws(() => sealTo(mlsMessage(maxControlBytes)), { reason: 'TOO_LARGE' });
  refused(() => parseEnvelope(new Uint8Array(maxControlBytes + 1)), 'BAD_ENVELOPE');
  assert.throws(
    () => sealHybrid({ content: mlsMessage(1), recipientKey: rid, rid, mid, random }),
    (error) => error instanceof QpcError && error.reason === 'BAD_FIELD',
  );
});
