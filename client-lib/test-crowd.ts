/** Test support: people of whom a directory serves real keys, and who are never there. */
import {
  deviceIdOf,
  firstManifest,
  signingKeyFromSeed,
  signPrekey,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { xwingGenerateKeyPair } from './crypto/xwing.ts';
import { createMls, type MlsSuite } from './mls/index.ts';
import type { TestDirectory } from './test-directory.ts';

const weekMs = 7 * 24 * 3600 * 1000;

/** `count` users of one device each, with a manifest in the log, a prekey and a KeyPackage; their user ids. */
export async function publishCrowd(
  directory: TestDirectory,
  count: number,
  suite: MlsSuite,
): Promise<readonly string[]> {
  const userIds: string[] = [];
  while (userIds.length < count) {
    const userId = `crowd${userIds.length}@red.example`;
    await publishOne(directory, userId, suite);
    userIds.push(userId);
  }
  return userIds;
}

async function publishOne(
  directory: TestDirectory,
  userId: string,
  suite: MlsSuite,
): Promise<void> {
  const random = systemRandom;
  const seed = random.bytes(32);
  const identityKey = signingKeyFromSeed(seed);
  const { publicKey: identityPub } = identityKey;
  const device = { deviceId: deviceIdOf(identityPub), identityPub };
  const manifest = firstManifest(userId, signingKeyFromSeed(random.bytes(32)), identityPub, 0);
  const { publicKey } = xwingGenerateKeyPair(random);
  const prekey = signPrekey(identityKey, publicKey, systemClock.now() + weekMs);
  const manifests = () => ({ devices: [device], revoked: [] });
  const { publicBytes } = await createMls({ clock: systemClock, random, manifests }).makeKeyPackage(
    {
      suite,
      identity: { userId, deviceId: device.deviceId },
      signatureKey: { publicKey: identityPub, seed },
    },
  );
  directory.publish({
    ...{ userId, identityPub, manifest, prekey },
    takeKeyPackage: async () => ({
      $typeName: 'qpc.v1.DeviceKeyPackage',
      ...{ identityPub, suite, prekey },
      keyPackage: publicBytes,
      lastResort: false,
    }),
  });
}
