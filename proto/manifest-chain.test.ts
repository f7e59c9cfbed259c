/** Successions of manifests: what the next version may do, and every rule broken once. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  ManifestSchema,
  SignedManifestSchema,
  type SignedManifest,
} from './gen/qpc/v1/manifest_pb.ts';
import { deviceIdOf, firstManifest } from './manifest.ts';
import {
  checkNextManifest,
  manifestOfValue,
  manifestValue,
  nextManifest,
  type ManifestSigners,
} from './manifest-chain.ts';
import { signStatement, signingKeyFromSeed, type SigningKey } from './signature.ts';
import { hasReason } from './status.ts';

const userId = 'alice@red.example';
const key = (byte: number): SigningKey => signingKeyFromSeed(new Uint8Array(32).fill(byte));
const account = key(1);
const [phone, laptop, tablet] = [key(11), key(12), key(13)];
const deviceOf = (one: SigningKey, cosignedBy?: SigningKey) => ({
  deviceId: deviceIdOf(one.publicKey),
  identityPub: one.publicKey,
  ...(cosignedBy === undefined ? {} : { cosignedBy: cosignedBy.publicKey }),
});
const revokedOf = (one: SigningKey) => ({ identityPub: one.publicKey, reason: 'lost' });

const first = firstManifest(userId, account, phone.publicKey, 1);
const by = (accountKey: SigningKey, more: Partial<ManifestSigners> = {}): ManifestSigners => ({
  accountKey,
  ...more,
});
const both = nextManifest(first, { devices: [deviceOf(phone), deviceOf(laptop)] }, by(account));

function refuses(previous: SignedManifest | undefined, next: SignedManifest, reason: string): void {
  assert.throws(
    () => checkNextManifest(previous, next, userId),
    (error) => hasReason(error, reason),
    `should be refused with ${reason}`,
  );
}

test('a chain of honest versions: devices come, go and rotate their account key', () => {
  assert.equal(checkNextManifest(undefined, first, userId).change, 'first');
  assert.equal(checkNextManifest(first, both, userId).change, 'next');
  const one = nextManifest(
    both,
    { devices: [deviceOf(phone)], revoked: [revokedOf(laptop)] },
    by(account),
  );
  assert.equal(checkNextManifest(both, one, userId).manifest.seq, 2n);
  const rotated = nextManifest(one, {}, by(key(2), { previousAccountKey: account }));
  assert.equal(checkNextManifest(one, rotated, userId).change, 'accountKeyRotated');
  const reset = nextManifest(rotated, {}, by(key(3)));
  assert.equal(checkNextManifest(rotated, reset, userId).change, 'identityReset');
  const closing = nextManifest(
    reset,
    { devices: [], revoked: [revokedOf(laptop), revokedOf(phone)], closed: true },
    by(key(3)),
  );
  assert.equal(checkNextManifest(reset, closing, userId).manifest.closed, true);
  refuses(closing, nextManifest(closing, { closed: false }, by(key(3))), 'BAD_FIELD');
  refuses(closing, nextManifest(closing, { closed: true }, by(key(3))), 'SEQ_CONFLICT');
});

test('a version continues exactly the one before', () => {
  refuses(undefined, both, 'BAD_FIELD');
  refuses(both, both, 'SEQ_CONFLICT');
  const other = nextManifest(first, { devices: [deviceOf(phone), deviceOf(tablet)] }, by(account));
  refuses(other, nextManifest(both, {}, by(account)), 'SEQ_CONFLICT');
});

test('a device does not vanish, and a revoked one does not come back', () => {
  refuses(both, nextManifest(both, { devices: [deviceOf(phone)] }, by(account)), 'BAD_FIELD');
  const one = nextManifest(
    both,
    { devices: [deviceOf(phone)], revoked: [revokedOf(laptop)] },
    by(account),
  );
  refuses(one, nextManifest(one, { revoked: [] }, by(account)), 'BAD_FIELD');
  const back = { devices: [deviceOf(phone), deviceOf(laptop)] };
  refuses(one, nextManifest(one, back, by(account)), 'BAD_FIELD');
  refuses(one, nextManifest(one, { ...back, revoked: [] }, by(account)), 'BAD_FIELD');
  refuses(first, nextManifest(first, { devices: [] }, by(account)), 'BAD_FIELD');
});

test('the list of revoked keys keeps its newest 64', () => {
  const many = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => revokedOf(key(100 + from + i)));
  const full = nextManifest(first, { revoked: many(0, 64) }, by(account));
  assert.ok(checkNextManifest(first, full, userId));
  const moved = nextManifest(full, { revoked: many(1, 65) }, by(account));
  assert.ok(checkNextManifest(full, moved, userId));
  refuses(full, nextManifest(full, { revoked: many(2, 65) }, by(account)), 'BAD_FIELD');
  refuses(full, nextManifest(full, { revoked: many(0, 65) }, by(account)), 'BAD_FIELD');
});

test('another account key needs the old one, or is a reset', () => {
  const forged = nextManifest(first, {}, by(key(2), { previousAccountKey: account }));
  const unsigned = create(SignedManifestSchema, { ...forged, akPrevSignature: forged.signature });
  refuses(first, unsigned, 'BAD_SIGNATURE');
  const claimed = nextManifest(first, {}, by(key(2), { previousAccountKey: key(9) }));
  refuses(first, claimed, 'BAD_FIELD');
  const pointless = nextManifest(first, {}, by(account, { previousAccountKey: account }));
  refuses(first, pointless, 'BAD_FIELD');
});

test('with require_cosign a new device needs an old one', () => {
  const strict = nextManifest(first, { policy: { requireCosign: true } }, by(account));
  assert.ok(checkNextManifest(first, strict, userId));
  const added = { devices: [deviceOf(phone), deviceOf(laptop, phone)] };
  const approved = nextManifest(strict, added, by(account, { approver: phone }));
  assert.ok(checkNextManifest(strict, approved, userId));
  refuses(strict, nextManifest(strict, added, by(account)), 'BAD_SIGNATURE');
  refuses(strict, nextManifest(strict, added, by(account, { approver: laptop })), 'BAD_SIGNATURE');
  const self = { devices: [deviceOf(phone), deviceOf(laptop, laptop)] };
  refuses(strict, nextManifest(strict, self, by(account, { approver: laptop })), 'BAD_SIGNATURE');
  // The rule does not end without a device's word either.
  const loose = { policy: { requireCosign: false } };
  refuses(strict, nextManifest(strict, loose, by(account)), 'BAD_SIGNATURE');
  assert.ok(
    checkNextManifest(
      strict,
      nextManifest(strict, loose, by(account, { approver: phone })),
      userId,
    ),
  );
});

test('values of the log: encoded SignedManifests, and nothing else', () => {
  assert.deepEqual(manifestOfValue(manifestValue(both)), both);
  assert.throws(
    () => manifestOfValue(new Uint8Array([0xff, 0xff])),
    (error) => hasReason(error, 'BAD_FIELD'),
  );
});

test('keys, hashes and reasons of a wrong size are refused', () => {
  const crooked = [
    { revoked: [{ identityPub: new Uint8Array(31) }] },
    { revoked: [{ identityPub: phone.publicKey, reason: 'x'.repeat(65) }] },
    { akPrev: new Uint8Array(5) },
    { prev: new Uint8Array(33) },
    { devices: [{ ...deviceOf(phone), nameHash: new Uint8Array(3) }] },
    { devices: [{ ...deviceOf(phone), cosignedBy: new Uint8Array(64) }] },
  ];
  for (const changes of crooked) {
    const bytes = toBinary(
      ManifestSchema,
      create(ManifestSchema, {
        userId,
        akPub: account.publicKey,
        devices: [deviceOf(phone)],
        ...changes,
      }),
    );
    const signature = signStatement('qpc/manifest/1', bytes, account);
    refuses(undefined, create(SignedManifestSchema, { manifest: bytes, signature }), 'BAD_FIELD');
  }
});
