/** KeyPackages, prekeys and ResolveUser of a node through its wire: granted, refused, bounded. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { createMls, mandatorySuite, xwingSuite, type MlsSuite } from '@quicprochat/client-lib/mls';
import {
  call,
  checkManifest,
  deviceIdOf,
  methods,
  QpcError,
  signPrekey,
  systemRandom,
  xwingPublicKeyBytes,
} from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

suite('keys at a node', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let alice: TestDevice;
  let carol: TestDevice;

  before(async () => {
    const rates = '[rates.auth]\nper_second = 1000\nburst = 1000\n';
    red = await LocalNode.create(network, 'red.example', rates);
    await red.start();
    alice = await TestDevice.register(red, 'alice@red.example');
    carol = await TestDevice.register(red, 'carol@red.example');
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    await carol[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
  });

  const mls = createMls({ ...testRuntime, manifests: () => undefined });
  const identityOf = (device: TestDevice) => ({
    userId: device.userId,
    deviceId: deviceIdOf(device.rid),
  });
  const make = async (device: TestDevice, suiteId: MlsSuite, lastResort = false) =>
    (
      await mls.makeKeyPackage({
        suite: suiteId,
        identity: identityOf(device),
        signatureKey: { publicKey: device.rid, seed: device.seed },
        lastResort,
      })
    ).publicBytes;
  const upload = (device: TestDevice, keyPackages: Uint8Array[]) =>
    call(device.connection, methods.uploadKeyPackage, { keyPackages });
  const claim = (
    device: TestDevice,
    userId: string,
    claimId = bytes(16),
    suites: MlsSuite[] = [xwingSuite, mandatorySuite],
  ) => call(device.connection, methods.fetchKeyPackage, { userId, claimId, suites });

  test('a single-use package is handed out once, a claim id repeats it, the last resort stays', async () => {
    const single = await make(carol, mandatorySuite);
    const last = await make(carol, mandatorySuite, true);
    const uploaded = await upload(carol, [single, last]);
    assert.equal(uploaded.stored, 2);
    assert.equal((await upload(carol, [single])).stored, 0);
    const claimId = bytes(16);
    const first = await claim(alice, carol.userId, claimId);
    assert.deepEqual(first.packages[0]?.keyPackage, single);
    assert.equal(first.packages[0]?.lastResort, false);
    assert.ok(first.manifest);
    assert.equal(checkManifest(first.manifest, carol.userId).devices.length, 1);
    assert.deepEqual((await claim(alice, carol.userId, claimId)).packages[0]?.keyPackage, single);
    for (let repeat = 0; repeat < 2; repeat += 1) {
      const next = await claim(alice, carol.userId);
      assert.deepEqual(next.packages[0]?.keyPackage, last);
      assert.equal(next.packages[0]?.lastResort, true);
    }
    // Consumed packages are known for ever: uploading one again does not bring it back.
    assert.equal((await upload(carol, [single])).stored, 0);
  });

  test('100 claims at once never hand out one package twice', async () => {
    await using frank = await TestDevice.register(red, 'frank@red.example');
    const packages = await Promise.all(
      Array.from({ length: 60 }, () => make(frank, mandatorySuite)),
    );
    await upload(frank, packages);
    await upload(frank, [await make(frank, mandatorySuite, true)]);
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        claim(index % 2 === 0 ? alice : carol, frank.userId),
      ),
    );
    const single = answers.flatMap((answer) =>
      answer.packages
        .filter(({ lastResort }) => !lastResort)
        .map(({ keyPackage }) => Buffer.from(keyPackage).toString('hex')),
    );
    assert.equal(single.length, 60);
    assert.equal(new Set(single).size, 60);
  });

  test('a device keeps so many packages, and not one more', async () => {
    await using ida = await TestDevice.register(red, 'ida@red.example');
    const packages = await Promise.all(
      Array.from({ length: 513 }, () => make(ida, mandatorySuite)),
    );
    for (let at = 0; at < 512; at += 128) await upload(ida, packages.slice(at, at + 128));
    await refused(upload(ida, packages.slice(512)), 'QUOTA');
    // Nor does a known one find room: what is too much is not looked at.
    const { counts } = await call(ida.connection, methods.keyPackageCount, {});
    assert.equal(counts[0]?.singleUse, 512);
  });

  test('packages of another device, suite, or with a flipped byte are refused whole', async () => {
    await using gina = await TestDevice.register(red, 'gina@red.example');
    const good = await make(gina, xwingSuite);
    await refused(upload(gina, [good, await make(carol, xwingSuite)]), 'BAD_FIELD');
    for (let at = 0; at < good.length; at += 97) {
      const flipped = Uint8Array.from(good);
      flipped[at] = (flipped[at] ?? 0) ^ 1;
      const error = await upload(gina, [flipped]).catch((thrown: unknown) => thrown);
      assert.ok(error instanceof QpcError && error.status === 1, `byte ${at}`);
    }
    await refused(upload(gina, [good.subarray(0, good.length - 1)]), 'BAD_FIELD');
    await refused(upload(gina, [Buffer.concat([good, Buffer.of(0)])]), 'BAD_FIELD');
    const { counts } = await call(gina.connection, methods.keyPackageCount, {});
    assert.equal(
      counts.reduce((sum, { singleUse }) => sum + singleUse, 0),
      0,
    );
    assert.equal((await upload(gina, [good])).stored, 1);
  });

  test('prekeys are stored only when the device signed them and they are fresh', async () => {
    const put = (prekey: ReturnType<typeof signPrekey>) =>
      call(alice.connection, methods.uploadHybridKey, { prekey });
    const day = 24 * 3600 * 1000;
    const now = testRuntime.clock.now();
    const key = new Uint8Array(xwingPublicKeyBytes).fill(9);
    await refused(put(signPrekey(carol.identityKey, key, now + day)), 'BAD_SIGNATURE');
    await refused(put(signPrekey(alice.identityKey, key, now - 1)), 'BAD_FIELD');
    await refused(put(signPrekey(alice.identityKey, key, now + 20 * day)), 'BAD_FIELD');
    await refused(put(signPrekey(alice.identityKey, bytes(1215), now + day)), 'BAD_FIELD');
    const unreduced = key.slice().fill(0xff, 0, 3);
    await refused(put(signPrekey(alice.identityKey, unreduced, now + day)), 'BAD_FIELD');
    const smallOrder = key.slice().fill(0, 1184);
    await refused(put(signPrekey(alice.identityKey, smallOrder, now + day)), 'BAD_FIELD');
    const good = signPrekey(alice.identityKey, key, now + day);
    await put(good);
    const found = await call(carol.connection, methods.fetchHybridKey, { userId: alice.userId });
    assert.deepEqual(found.prekeys[0]?.prekey?.prekey, good.prekey);
    const many = await call(carol.connection, methods.fetchHybridKeys, {
      userIds: [alice.userId, 'nobody@red.example'],
    });
    assert.equal(many.users[0]?.keys?.prekeys.length, 1);
    assert.equal(many.users[1]?.keys, undefined);
    const far = { userIds: ['bob@blue.example', alice.userId] };
    const { users } = await call(carol.connection, methods.fetchHybridKeys, far);
    assert.deepEqual(
      users.map(({ userId, keys }) => [userId, keys?.prekeys.length]),
      [
        ['bob@blue.example', undefined],
        [alice.userId, 1],
      ],
    );
  });

  test('unknown users and users without packages are told apart by reason', async () => {
    await using henry = await TestDevice.register(red, 'henry@red.example');
    await refused(claim(alice, 'nobody@red.example'), 'UNKNOWN_USER');
    await refused(claim(alice, henry.userId), 'NO_KEY_PACKAGE');
    await refused(
      call(alice.connection, methods.resolveUser, { userId: 'nobody@red.example' }),
      'UNKNOWN_USER',
    );
    const revoked = { userId: 'nobody@red.example', identityPub: henry.rid };
    await refused(call(alice.connection, methods.checkRevocation, revoked), 'UNKNOWN_USER');
    await refused(
      call(alice.connection, methods.resolveUser, { userId: 'bob@blue.example' }),
      'PEER_DENIED',
    );
    const { manifest } = await call(alice.connection, methods.resolveUser, {
      userId: henry.userId,
    });
    assert.ok(manifest);
    assert.deepEqual(checkManifest(manifest, henry.userId).devices[0]?.identityPub, henry.rid);
  });
});
