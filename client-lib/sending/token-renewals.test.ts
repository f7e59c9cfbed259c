/** A token in force, sealed for the devices that may have it: who finds it, and what others see. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deliveryTokenHash,
  maxRenewalsBytes,
  renewalBytes,
  sameBytes,
  signingKeyFromSeed,
  systemRandom,
} from '@quicprochat/proto';
import { hex } from '../crypto/octets.ts';
import { renewalLimits, TokenRenewals } from './token-renewals.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

interface Party {
  readonly rid: Uint8Array;
  readonly renewals: TokenRenewals;
}

function party(seed = bytes(32)): Party {
  const key = signingKeyFromSeed(seed);
  return { rid: key.publicKey, renewals: new TokenRenewals(key, key.publicKey) };
}

const entriesOf = (renewals: Uint8Array): Uint8Array[] =>
  Array.from({ length: renewals.length / renewalBytes }, (_, index) =>
    renewals.subarray(index * renewalBytes, (index + 1) * renewalBytes),
  );

test('each device that it is for finds the token, and nobody else', () => {
  const [alice, bob, carol, mallory] = [party(), party(), party(), party()];
  const token = bytes(16);
  const hash = deliveryTokenHash(token);
  const sealed = alice.renewals.seal(token, [bob.rid, carol.rid]);
  for (const { renewals } of [bob, carol])
    assert.deepEqual(renewals.open(alice.rid, hash, sealed), token);
  assert.equal(mallory.renewals.open(alice.rid, hash, sealed), undefined);
  // Not that of another device, not under another hash, and not what bob himself left for her.
  assert.equal(bob.renewals.open(carol.rid, hash, sealed), undefined);
  assert.equal(bob.renewals.open(alice.rid, deliveryTokenHash(bytes(16)), sealed), undefined);
  assert.equal(alice.renewals.open(bob.rid, hash, sealed), undefined);
  // A node that changes a byte of an entry, or has only a part of it, shows nothing.
  for (const at of entriesOf(sealed).keys()) {
    const changed = Uint8Array.from(sealed);
    changed[at * renewalBytes + 20] = (changed[at * renewalBytes + 20] ?? 0) ^ 1;
    const found = bob.renewals.open(alice.rid, hash, changed);
    assert.ok(found === undefined || sameBytes(found, token));
  }
  const cut = entriesOf(sealed).flatMap((entry) => [...entry.subarray(0, 40)]);
  assert.equal(bob.renewals.open(alice.rid, hash, Uint8Array.from(cut)), undefined);
});

test('what lies at the node says neither who may have it nor how many, and is the same for the same', () => {
  const alice = party();
  const readers = Array.from({ length: 65 }, () => party().rid);
  const token = bytes(16);
  const few = alice.renewals.seal(token, readers.slice(0, 2));
  assert.deepEqual(alice.renewals.seal(token, readers.slice(0, 2).toReversed()), few);
  assert.equal(few.length, alice.renewals.seal(token, []).length);
  assert.equal(few.length, renewalLimits.devicesShown * renewalBytes);
  assert.equal(alice.renewals.seal(token, readers).length, 2 * few.length);
  // No entry of one token has to do with one of the next.
  const next = entriesOf(alice.renewals.seal(bytes(16), readers.slice(0, 2)));
  const names = new Set(
    entriesOf(few).map((one) => Buffer.from(one.subarray(0, 16)).toString('hex')),
  );
  assert.equal(names.size, renewalLimits.devicesShown);
  assert.ok(next.every((one) => !names.has(Buffer.from(one.subarray(0, 16)).toString('hex'))));
  assert.equal(renewalLimits.devices * renewalBytes, maxRenewalsBytes);
});

test('what is no key of a device gets none, and costs the others nothing', () => {
  const [alice, bob] = [party(), party()];
  const token = bytes(16);
  const one = new Uint8Array(32);
  one[0] = 1;
  // y = 1, y = 0 and y = -1: of small order.
  const minusOne = hex('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f');
  const sealed = alice.renewals.seal(token, [one, new Uint8Array(32), minusOne, bob.rid]);
  const hash = deliveryTokenHash(token);
  assert.deepEqual(bob.renewals.open(alice.rid, hash, sealed), token);
  assert.equal(bob.renewals.open(one, hash, sealed), undefined);
});

test('the keys of RFC 8032 are those of RFC 7748 on the other curve', () => {
  // RFC 8032, section 7.1, tests 1 and 2: what both come to is the same from either side.
  const first = party(hex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'));
  const second = party(hex('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb'));
  const token = bytes(16);
  const sealed = first.renewals.seal(token, [second.rid]);
  assert.deepEqual(second.renewals.open(first.rid, deliveryTokenHash(token), sealed), token);
});
