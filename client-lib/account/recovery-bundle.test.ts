/** The recovery bundle: opened by its password's key alone, whole, of its user, and never an old one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason } from '@quicprochat/proto';
import { openBundle, sealBundle } from './recovery-bundle.ts';
import { testRuntime } from '../test-runtime.ts';

const { random } = testRuntime;
const userId = 'alice@red.example';
const exportKey = random.bytes(64);
const refused = (reason: string) => (error: unknown) => hasReason(error, reason);

test('a bundle gives back what was sealed, and has one size', () => {
  const seeds = [random.bytes(32), random.bytes(32)];
  const sizes = [seeds.slice(0, 1), seeds].map((accountSeeds, index) => {
    const sealed = sealBundle(userId, { seq: index + 1, accountSeeds }, exportKey, random);
    assert.deepEqual(openBundle(userId, sealed, exportKey, index + 1), {
      seq: index + 1,
      accountSeeds,
    });
    assert(seeds.every((seed) => !Buffer.from(sealed).includes(Buffer.from(seed))));
    return sealed.length;
  });
  assert.equal(sizes[0], sizes[1]);
});

test('a bundle that is changed, cut, of another user or under another password is refused', () => {
  const bundle = sealBundle(
    userId,
    { seq: 5, accountSeeds: [random.bytes(32)] },
    exportKey,
    random,
  );
  for (const [at] of bundle.entries()) {
    const changed = Uint8Array.from(bundle);
    changed[at] = (changed[at] ?? 0) ^ 1;
    assert.throws(() => openBundle(userId, changed, exportKey, 0), refused('NO_BUNDLE'), `${at}`);
    assert.throws(
      () => openBundle(userId, bundle.subarray(0, at), exportKey, 0),
      refused('NO_BUNDLE'),
    );
  }
  assert.throws(() => openBundle('eve@red.example', bundle, exportKey, 0), refused('NO_BUNDLE'));
  assert.throws(() => openBundle(userId, bundle, random.bytes(64), 0), refused('NO_BUNDLE'));
});

test('a bundle that is older than one that was seen is refused as such', () => {
  const bundle = sealBundle(
    userId,
    { seq: 4, accountSeeds: [random.bytes(32)] },
    exportKey,
    random,
  );
  assert.equal(openBundle(userId, bundle, exportKey, 4).seq, 4);
  assert.throws(() => openBundle(userId, bundle, exportKey, 5), refused('OLD_BUNDLE'));
});
