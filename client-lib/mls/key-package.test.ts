/** KeyPackages: what is made, what is refused, and that a changed byte never passes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generateKeyPackageWithKey, keyPackageEncoder, encode } from 'ts-mls';
import type { Credential, GenerateKeyPackageWithKeyParams } from 'ts-mls';
import { systemClock, systemRandom } from '@quicprochat/proto';
import type { Clock } from '@quicprochat/proto';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { credentialIdentity, mandatorySuite, xwingSuite } from './index.ts';
import { makeCustomExtension } from './library.ts';
import { capabilities } from './suite.ts';
import { TestWorld, identityBytes, keyPackageOf, refused } from './test-members.ts';
import type { TestDevice } from './test-members.ts';

const day = 86_400_000;
const provider = createMlsCryptoProvider({ random: systemRandom });

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`suite ${suite}: a key package says what was asked for`, async () => {
    const world = new TestWorld();
    const bob = world.device('bob');
    for (const lastResort of [false, true]) {
      const before = systemClock.now();
      const made = await bob.mls.makeKeyPackage({ suite, ...bob, lastResort });
      const info = await bob.mls.inspectKeyPackage(made.publicBytes);
      assert.deepEqual(
        [info.userId, info.deviceId, info.suite, info.isLastResort],
        [bob.identity.userId, bob.identity.deviceId, suite, lastResort],
      );
      assert.deepEqual(info.ref, made.ref);
      assert.equal(info.ref.length, suite === xwingSuite ? 64 : 32);
      assert.deepEqual(info.signatureKey, bob.signatureKey.publicKey);
      const days = lastResort ? 90 : 28;
      assert.ok(Math.abs(info.notAfterMs - before - days * day) < 5000);
      assert.ok(Math.abs(info.notBeforeMs - before + day) < 5000);
      assert.ok(Math.abs(info.notAfterMs - made.notAfterMs) < 1000);
    }
  });

  test(`suite ${suite}: every changed, missing or added byte is refused`, async () => {
    const world = new TestWorld();
    const bob = world.device('bob');
    const { publicBytes } = await keyPackageOf(bob, suite, true);
    for (let at = 0; at < publicBytes.length; at++) {
      const forged = Uint8Array.from(publicBytes);
      forged[at] = (forged[at] ?? 0) ^ 0x04;
      await assert.rejects(bob.mls.inspectKeyPackage(forged), { name: 'MlsError' }, `byte ${at}`);
      const cut = publicBytes.subarray(0, at);
      await assert.rejects(bob.mls.inspectKeyPackage(cut), refused('MALFORMED'));
    }
    const longer = new Uint8Array(publicBytes.length + 1);
    longer.set(publicBytes);
    await assert.rejects(bob.mls.inspectKeyPackage(longer), refused('MALFORMED'));
  });
}

test('lifetimes: over, not begun, and longer than 93 days are refused', async () => {
  let nowMs = systemClock.now();
  const clock: Clock = { ...systemClock, now: () => nowMs };
  const world = new TestWorld({ clock });
  const bob = world.device('bob');
  const { publicBytes } = await keyPackageOf(bob, mandatorySuite);
  nowMs += 27 * day;
  await bob.mls.inspectKeyPackage(publicBytes);
  nowMs += 2 * day;
  await assert.rejects(bob.mls.inspectKeyPackage(publicBytes), refused('BAD_KEY_PACKAGE'));
  nowMs -= 31 * day;
  await assert.rejects(bob.mls.inspectKeyPackage(publicBytes), refused('BAD_KEY_PACKAGE'));
});

test('signed by its owner, and still refused: what our clients never make', async () => {
  const world = new TestWorld();
  const bob = world.device('bob');
  const nowS = BigInt(Math.floor(systemClock.now() / 1000));
  const dayS = 86_400n;
  const base: GenerateKeyPackageWithKeyParams = {
    cipherSuite: await provider.getCiphersuiteImpl(mandatorySuite),
    credential: { credentialType: 1, identity: identityBytes(bob) },
    capabilities: capabilities(),
    lifetime: { notBefore: nowS - dayS, notAfter: nowS + 28n * dayS },
    signatureKeyPair: { signKey: bob.signatureKey.seed, publicKey: bob.signatureKey.publicKey },
    leafNodeExtensions: [],
    extensions: [],
  };
  const inspect = async (change: Partial<typeof base>): Promise<unknown> => {
    const { publicPackage } = await generateKeyPackageWithKey({ ...base, ...change });
    return bob.mls.inspectKeyPackage(encode(keyPackageEncoder, publicPackage));
  };
  await inspect({});
  const foreign = makeCustomExtension({ extensionType: 0xf0aa, extensionData: new Uint8Array(1) });
  const credential = (identity: string): Credential => ({
    credentialType: 1,
    identity: new TextEncoder().encode(identity),
  });
  const refusals: Partial<typeof base>[] = [
    { lifetime: { notBefore: nowS - dayS, notAfter: nowS + 93n * dayS } },
    { lifetime: { notBefore: 0n, notAfter: 2n ** 64n - 1n } },
    { capabilities: { ...capabilities(), ciphersuites: [1] } },
    { capabilities: { ...capabilities(), extensions: [] } },
    { credential: credential('Bob@red.example/aaaaaaaaaaaaaaaa') },
    { credential: { credentialType: 0xf00, data: identityBytes(bob) } },
    { extensions: [foreign] },
    { leafNodeExtensions: [foreign] },
  ];
  for (const change of refusals) {
    await assert.rejects(inspect(change), refused('BAD_KEY_PACKAGE'), Object.keys(change).join());
  }
});

test('a leaf that its owner did not sign is refused inside a well-signed key package', async () => {
  const world = new TestWorld();
  const bob = world.device('bob');
  const cs = await provider.getCiphersuiteImpl(mandatorySuite);
  let signed = 0;
  const careless = createMlsCryptoProvider({ random: systemRandom });
  const mls = world.mls({
    getCiphersuiteImpl: async (id) => ({
      ...(await careless.getCiphersuiteImpl(id)),
      signature: {
        ...cs.signature,
        // The leaf is signed first, the key package around it second.
        sign: async (key, message) =>
          signed++ === 0 ? new Uint8Array(64) : cs.signature.sign(key, message),
      },
    }),
  });
  const { publicBytes } = await mls.makeKeyPackage({ suite: mandatorySuite, ...bob });
  await assert.rejects(bob.mls.inspectKeyPackage(publicBytes), refused('BAD_KEY_PACKAGE'));
});

test('every changed byte of a Welcome for one is refused, and the Welcome still works', async () => {
  for (const suite of [mandatorySuite, xwingSuite]) {
    const world = new TestWorld();
    const [alice, bob]: [TestDevice, TestDevice] = [world.device('alice'), world.device('bob')];
    const group = await alice.mls.createGroup({ suite, ...alice, name: 'two' });
    const row = await keyPackageOf(bob, suite);
    const { welcome } = await alice.mls.addMembers(group, [row.publicBytes]);
    assert.ok(welcome);
    const join = (bytes: Uint8Array): Promise<unknown> =>
      bob.mls.joinFromWelcome(bytes, [row], bob.signatureKey);
    const step = suite === xwingSuite ? 13 : 3;
    for (let at = 0; at < welcome.length; at += step) {
      const forged = Uint8Array.from(welcome);
      forged[at] = (forged[at] ?? 0) ^ 0x20;
      await assert.rejects(join(forged), { name: 'MlsError' }, `byte ${at}`);
      await assert.rejects(join(welcome.subarray(0, at)), refused('MALFORMED'));
    }
    await join(welcome);
  }
});

test('identities that are not exactly name@domain/device are refused', () => {
  const device = 'abcdefghij234567';
  assert.equal(
    new TextDecoder().decode(credentialIdentity('a@b.example', device)),
    `a@b.example/${device}`,
  );
  for (const [user, id] of [
    ['A@b.example', device],
    ['a', device],
    ['a@b.example/x', device],
    ['a@b.example', ''],
    ['a@b.example', device.toUpperCase()],
    ['a@b.example', `${device}a`],
    ['a@b.example', 'abcdefghij234561'],
  ] as const) {
    assert.throws(() => credentialIdentity(user, id), { name: /Error$/ }, `${user} ${id}`);
  }
});
