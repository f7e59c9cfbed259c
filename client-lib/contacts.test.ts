/**
 * Manifests that a node or its user invents (docs/protocol/cryptography.md): rolled back, forked,
 * out of bounds, without a device. What is pinned stays pinned.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import {
  deviceIdOf,
  hasReason,
  methods,
  signingKeyFromSeed,
  signStatement,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  ManifestSchema,
  SignedManifestSchema,
  toBinary,
  type MessageInitShape,
  type SignedManifest,
} from '@quicprochat/proto/messages';
import { Contacts } from './contacts.ts';
import { EventBus } from './events.ts';
import { fetchInvitees } from './invitation.ts';
import { mandatorySuite } from './mls/index.ts';
import { openMemoryStore } from './store/sqlite-store.ts';
import { TestDevice, TestDirectory, testRuntime } from './test-devices.ts';

const userId = 'bob@blue.example';
const accountKey = signingKeyFromSeed(testRuntime.random.bytes(32));
const [first, second] = [newDevice(), newDevice()];

function newDevice(): { readonly deviceId: string; readonly identityPub: Uint8Array } {
  const { publicKey } = signingKeyFromSeed(testRuntime.random.bytes(32));
  return { deviceId: deviceIdOf(publicKey), identityPub: publicKey };
}

interface Fields {
  readonly seq: bigint;
  readonly prev?: Uint8Array;
  readonly devices?: ReturnType<typeof newDevice>[];
  readonly revoked?: { identityPub: Uint8Array; atMs: bigint; reason: string }[];
}

function signed(fields: Fields, key: SigningKey = accountKey): SignedManifest {
  const akPub = key.publicKey;
  const manifest = toBinary(
    ManifestSchema,
    create(ManifestSchema, { userId, akPub, devices: [first], policy: {}, ...fields }),
  );
  const signature = signStatement('qpc/manifest/1', manifest, key);
  return create(SignedManifestSchema, { manifest, signature });
}

function after(previous: SignedManifest): Uint8Array {
  return createHash('sha256').update(previous.manifest).digest();
}

function contacts(): Contacts {
  const store = openMemoryStore();
  return new Contacts({ store, runtime: testRuntime, events: new EventBus(), own: undefined });
}

const refused = (reason: string) => (error: unknown) => hasReason(error, reason);

describe('a manifest of a known person', () => {
  const zero = signed({ seq: 0n });
  const one = signed({ seq: 1n, prev: after(zero), devices: [first, second] });

  test('may follow the known one, and then only that one may come again', () => {
    const mine = contacts();
    mine.accept(userId, zero);
    assert.equal(mine.accept(userId, one).devices.length, 2);
    assert.equal(mine.accept(userId, one).devices.length, 2);
    assert.throws(() => mine.accept(userId, zero), refused('MANIFEST_ROLLBACK'));
    assert.equal(mine.get(userId)?.devices.length, 2);
  });

  test('may not stand beside the known one, nor follow another', () => {
    const mine = contacts();
    mine.accept(userId, zero);
    for (const fork of [
      signed({ seq: 0n, devices: [second] }),
      signed({ seq: 1n, devices: [second] }),
      signed({ seq: 1n, prev: after(one), devices: [second] }),
    ]) {
      assert.throws(() => mine.accept(userId, fork), refused('MANIFEST_FORK'));
    }
    assert.deepEqual(mine.get(userId)?.devices, [first]);
  });

  test('may not be signed by another key, whatever its number', () => {
    const mine = contacts();
    mine.accept(userId, zero);
    const other = signingKeyFromSeed(testRuntime.random.bytes(32));
    for (const seq of [0n, 1n, 7n]) {
      const swapped = signed({ seq, prev: after(zero), devices: [second] }, other);
      assert.throws(() => mine.accept(userId, swapped), refused('ACCOUNT_KEY_CHANGED'));
    }
    assert.deepEqual(mine.get(userId)?.accountKey, new Uint8Array(accountKey.publicKey));
  });

  test('takes a revoked device out, though it still stands in it', () => {
    const mine = contacts();
    const revoked = [{ identityPub: second.identityPub, atMs: 1n, reason: 'lost' }];
    mine.accept(userId, signed({ seq: 3n, devices: [first, second], revoked }));
    assert.deepEqual(mine.get(userId)?.devices, [first]);
  });
});

describe('a manifest of anybody', () => {
  test('is refused when its version is no exact number, and leaves nothing behind', () => {
    const mine = contacts();
    for (const seq of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
      assert.throws(() => mine.accept(userId, signed({ seq })), refused('BAD_FIELD'));
    }
    assert.equal(mine.get(userId), undefined);
  });

  test('is refused above 8 KiB: a node takes no larger one either', () => {
    const revoked = Array.from({ length: 200 }, () => ({
      identityPub: testRuntime.random.bytes(32),
      atMs: 1n,
      reason: 'many',
    }));
    assert.throws(
      () => contacts().accept(userId, signed({ seq: 0n, revoked })),
      refused('BAD_FIELD'),
    );
  });

  test('without a device invites nobody, and says so', async () => {
    const alice = new TestDevice('alice@red.example', new TestDirectory());
    const { store, contacts: mine, mls } = alice;
    const parts = { store, runtime: testRuntime, contacts: mine, mls };
    const caller: Parameters<typeof fetchInvitees>[1] = {
      call: async (method) => {
        assert.equal(method.id, methods.fetchKeyPackage.id);
        const manifest = signed({ seq: 0n, devices: [] });
        const answer: unknown = { manifest };
        return create(method.response, answer as MessageInitShape<typeof method.response>);
      },
    };
    await assert.rejects(
      fetchInvitees(parts, caller, userId, [mandatorySuite], {}),
      refused('NO_KEY_PACKAGE'),
    );
  });
});
