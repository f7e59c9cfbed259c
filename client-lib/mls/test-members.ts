/**
 * Test support: devices with real keys, a manifest cache that vouches for them, and an `Mls`
 * for each. Nothing in it stands in for a part of the adapter.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { deviceIdOf, systemClock, systemRandom } from '@quicprochat/proto';
import type { Clock, Random } from '@quicprochat/proto';
import type { CryptoProvider } from 'ts-mls';
import { createEd25519 } from '../crypto/ed25519.ts';
import { MlsError, acceptCommit, createMls, credentialIdentity } from './index.ts';
import type {
  CommitPolicy,
  Identity,
  KeyPackageRow,
  ManifestInfo,
  Mls,
  MlsGroup,
  MlsReason,
  MlsSuite,
  SignatureKey,
} from './index.ts';

const ed25519 = createEd25519();

/** Random bytes that a seed decides: SHA-256(seed || counter). Keys made of it are no secret. */
export class SeededRandom implements Random {
  readonly #seed: string;
  #counter = 0;
  #left = new Uint8Array(0);

  constructor(seed: string) {
    this.#seed = seed;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(length);
    for (let offset = 0; offset < length;) {
      if (this.#left.length === 0) {
        const block = createHash('sha256')
          .update(`${this.#seed}/${this.#counter++}`)
          .digest();
        this.#left = new Uint8Array(block);
      }
      const part = this.#left.subarray(0, length - offset);
      out.set(part, offset);
      offset += part.length;
      this.#left = this.#left.slice(part.length);
    }
    return out;
  }

  /** An integer in [0, bound). */
  below(bound: number): number {
    return new DataView(this.bytes(4).buffer).getUint32(0) % bound;
  }

  /** `count` of the items, in a random order. */
  pick<T>(items: readonly T[], count: number): T[] {
    const left = [...items];
    const picked: T[] = [];
    while (picked.length < count && left.length > 0) {
      picked.push(...left.splice(this.below(left.length), 1));
    }
    return picked;
  }
}

/** A device of a user with its signature key. */
export interface TestDevice {
  readonly identity: Identity;
  readonly signatureKey: SignatureKey;
  readonly mls: Mls;
}

/** A small world of users: one manifest cache, shared by all unless a test wants its own. */
export class TestWorld {
  readonly manifests = new Map<
    string,
    { devices: ManifestInfo['devices']; revoked: Uint8Array[] }
  >();
  readonly random: Random;
  readonly clock: Clock;
  readonly mayCommit: CommitPolicy | undefined;
  readonly provider: CryptoProvider | undefined;

  constructor(
    options: {
      readonly random?: Random;
      readonly clock?: Clock;
      readonly mayCommit?: CommitPolicy;
      readonly provider?: CryptoProvider;
    } = {},
  ) {
    this.random = options.random ?? systemRandom;
    this.clock = options.clock ?? systemClock;
    this.mayCommit = options.mayCommit;
    this.provider = options.provider;
  }

  /** A new device of `name@red.example`, in the manifest. */
  device(name: string, provider: CryptoProvider | undefined = this.provider): TestDevice {
    const seed = this.random.bytes(32);
    const publicKey = ed25519.publicKey(seed);
    const identity = { userId: `${name}@red.example`, deviceId: deviceIdOf(publicKey) };
    const known = this.manifests.get(identity.userId) ?? { devices: [], revoked: [] };
    this.manifests.set(identity.userId, {
      ...known,
      devices: [...known.devices, { deviceId: identity.deviceId, identityPub: publicKey }],
    });
    return { identity, signatureKey: { publicKey, seed }, mls: this.mls(provider) };
  }

  /** An adapter over this world's manifests. */
  mls(provider: CryptoProvider | undefined = this.provider): Mls {
    return createMls({
      clock: this.clock,
      random: this.random,
      manifests: (userId) => this.manifests.get(userId),
      ...(provider === undefined ? {} : { provider }),
      ...(this.mayCommit === undefined ? {} : { mayCommit: this.mayCommit }),
    });
  }
}

/** A fresh KeyPackage of the device: published bytes and the row to keep. */
export async function keyPackageOf(
  device: TestDevice,
  suite: MlsSuite,
  lastResort = false,
): Promise<KeyPackageRow & { readonly publicBytes: Uint8Array }> {
  const { identity, signatureKey } = device;
  return device.mls.makeKeyPackage({ suite, identity, signatureKey, lastResort });
}

/** A group of these devices, the first one its creator; entry i is device i's group. */
export async function groupOf(
  suite: MlsSuite,
  devices: readonly [TestDevice, ...TestDevice[]],
): Promise<[MlsGroup, ...MlsGroup[]]> {
  const [creator, ...others] = devices;
  const group = await creator.mls.createGroup({ suite, ...creator, name: 'group' });
  const rows = await Promise.all(others.map((device) => keyPackageOf(device, suite)));
  const made = await creator.mls.addMembers(
    group,
    rows.map(({ publicBytes }) => publicBytes),
  );
  const { welcome, pending } = made;
  if (welcome === undefined) return [acceptCommit(group, pending).next];
  const joined = await Promise.all(
    others.map(async ({ mls, signatureKey }, i) =>
      mls.joinFromWelcome(welcome, rows.slice(i, i + 1), signatureKey),
    ),
  );
  return [acceptCommit(group, pending).next, ...joined.map((one) => one.group)];
}

/** Checks for `assert.rejects`: an MlsError of this reason. */
export function refused(reason: MlsReason): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof MlsError, `wanted MlsError ${reason}, got ${String(error)}`);
    assert.equal(error.reason, reason);
    return true;
  };
}

/** The decoder's value has `bytes` as its one encoding, or they are refused as MALFORMED. */
export function encodesBack(bytes: Uint8Array, recode: () => Uint8Array): void {
  let again: Uint8Array;
  try {
    again = recode();
  } catch (error) {
    refused('MALFORMED')(error);
    return;
  }
  assert.deepEqual(again, bytes);
}

/** Identity bytes of a device. */
export function identityBytes({ identity }: TestDevice): Uint8Array {
  return credentialIdentity(identity.userId, identity.deviceId);
}
