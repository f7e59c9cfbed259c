/**
 * People's keys as a log shows them, as a node serves them, and as either lies about them
 * (docs/developer/verification.md). What is known stays known, whatever comes.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  deviceIdOf,
  firstManifest,
  hasReason,
  methods,
  nextManifest,
  signingKeyFromSeed,
  systemClock,
  TransportError,
  type Clock,
  type SigningKey,
} from '@quicprochat/proto';
import { create, type MessageInitShape, type SignedManifest } from '@quicprochat/proto/messages';
import { contactLimits, type Contact } from './contact.ts';
import { fetchInvitees } from './invitation.ts';
import type { Caller } from '../dial.ts';
import { mandatorySuite } from '../mls/index.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';

const userId = 'bob@blue.example';
const refused =
  (...reasons: string[]) =>
  (error: unknown) =>
    hasReason(error, ...reasons);
const newKey = (): SigningKey => signingKeyFromSeed(testRuntime.random.bytes(32));
const deviceOf = ({ publicKey }: SigningKey) => ({
  deviceId: deviceIdOf(publicKey),
  identityPub: publicKey,
});

const accountKey = newKey();
const nextKey = newKey();
const [first, second] = [newKey(), newKey()];
const both = { devices: [deviceOf(first), deviceOf(second)] };
const zero = firstManifest(userId, accountKey, first.publicKey, 0);
const one = nextManifest(zero, both, { accountKey });
const rotated = nextManifest(one, {}, { accountKey: nextKey, previousAccountKey: accountKey });
const reset = nextManifest(one, {}, { accountKey: nextKey });

interface Scene {
  readonly directory: TestDirectory;
  readonly alice: TestDevice;
  /** Makes these the next versions of bob's label. */
  readonly log: (...manifests: readonly SignedManifest[]) => void;
  /** What alice does when a node served this beside keys. */
  readonly verified: (served: SignedManifest) => Promise<Contact>;
  readonly resolve: () => Promise<Contact>;
  /** Types of alice's events about bob's keys. */
  readonly told: () => readonly string[];
}

function scene(clock: Clock = systemClock): Scene {
  const directory = new TestDirectory();
  const alice = new TestDevice('alice@red.example', directory, { clock });
  return {
    directory,
    alice,
    log: (...manifests) => manifests.forEach((one) => directory.logVersion(userId, one)),
    verified: (served) => alice.contacts.verified(userId, served, directory),
    resolve: () => alice.contacts.resolve(userId, directory),
    told: () => alice.events.map(({ type }) => type),
  };
}

describe('keys that a node serves', () => {
  test('are used when the log shows them, and asked for again only when they are others', async () => {
    const { verified, log, directory } = scene();
    log(zero);
    const contact = await verified(zero);
    assert.deepEqual([contact.version, contact.verification, contact.source], [0, 'logged', 'log']);
    assert(contact.treeSize >= 2);
    const asked = directory.calls.length;
    await verified(zero);
    assert.equal(directory.calls.length, asked);
    log(one);
    assert.equal((await verified(one)).devices.length, 2);
    assert(directory.calls.length > asked);
  });

  test('are refused when the log does not show them, and nothing of them is kept', async () => {
    const { verified, log, alice } = scene();
    log(zero);
    const swapped = firstManifest(userId, newKey(), newKey().publicKey, 0);
    await assert.rejects(verified(swapped), refused('NOT_IN_LOG'));
    await assert.rejects(verified(one), refused('NOT_IN_LOG'));
    assert.deepEqual(alice.contacts.get(userId)?.accountKey, accountKey.publicKey);
    assert.equal(alice.contacts.get(userId)?.version, 0);
  });

  test('are refused when they are older than what is known', async () => {
    const { verified, log } = scene();
    log(zero, one);
    await verified(one);
    await assert.rejects(verified(zero), refused('MANIFEST_ROLLBACK'));
  });

  test('are overtaken by what the log shows', async () => {
    const { verified, log } = scene();
    log(zero, one);
    assert.equal((await verified(zero)).version, 1);
  });

  test('without a device are no reason to invite nobody', async () => {
    const { alice, log, directory } = scene();
    const closed = nextManifest(
      zero,
      {
        devices: [],
        closed: true,
        revoked: [{ identityPub: first.publicKey, atMs: 1n, reason: 'deleted' }],
      },
      { accountKey },
    );
    log(zero, closed);
    const caller: Caller = {
      call: async (method, request) => {
        if (method.id !== methods.fetchKeyPackage.id) return directory.call(method, request);
        const answer: unknown = { manifest: closed };
        return create(method.response, answer as MessageInitShape<typeof method.response>);
      },
    };
    const { store, contacts, mls, runtime } = alice;
    await assert.rejects(
      fetchInvitees({ store, runtime, contacts, mls }, caller, userId, [mandatorySuite], {}),
      refused('NO_KEY_PACKAGE'),
    );
  });
});

describe('a log', () => {
  test('that shows another history than before is refused, and what is known stays', async () => {
    const { resolve, log, alice } = scene();
    log(zero, one);
    await resolve();
    // The same keys of the log, and another past.
    const other = new TestDirectory();
    const swapped = firstManifest(userId, newKey(), newKey().publicKey, 0);
    other.logVersion(
      'carol@blue.example',
      firstManifest('carol@blue.example', newKey(), newKey().publicKey, 0),
    );
    other.logVersion(userId, swapped);
    other.logVersion(userId, nextManifest(swapped, {}, { accountKey: newKey() }));
    const before = alice.contacts.get(userId);
    await assert.rejects(alice.contacts.resolve(userId, other));
    assert.equal(alice.lies.length, 1);
    assert.deepEqual(alice.contacts.get(userId), before);
    // The honest one is still believed.
    assert.equal((await resolve()).version, 1);
  });

  test('that has fewer entries than before, or hides a person, is refused', async () => {
    const { resolve, log, alice } = scene();
    log(zero);
    await resolve();
    const empty = new TestDirectory();
    await assert.rejects(alice.contacts.resolve(userId, empty));
    const hiding: Caller = {
      call: (method, request) => {
        const asked = request as { request?: Uint8Array };
        const isAboutBob = Buffer.from(asked.request ?? []).includes(userId);
        return scene().directory.call(method, isAboutBob ? { ...request, userId: 'x' } : request);
      },
    };
    await assert.rejects(alice.contacts.resolve(userId, hiding));
    assert.equal(alice.contacts.get(userId)?.version, 0);
  });

  test('with a manifest that is not its version or not its user’s is refused', async () => {
    for (const wrong of [one, firstManifest('eve@blue.example', accountKey, first.publicKey, 0)]) {
      const { resolve, log, alice } = scene();
      log(wrong);
      await assert.rejects(resolve(), refused('CHAIN'));
      assert.deepEqual(alice.lies, ['CHAIN']);
      assert.equal(alice.contacts.get(userId), undefined);
    }
  });

  test('with a version that does not follow the one before is refused', async () => {
    const { resolve, log, alice } = scene();
    log(zero);
    await resolve();
    const stranger = nextManifest(
      firstManifest(userId, accountKey, second.publicKey, 0),
      {},
      { accountKey },
    );
    log(stranger);
    await assert.rejects(resolve(), refused('MANIFEST_FORK'));
    assert.equal(alice.contacts.get(userId)?.version, 0);
  });
});

describe('an account key', () => {
  test('that the old one signed for is taken, and told as a change', async () => {
    const { resolve, log, alice, told } = scene();
    log(zero);
    await resolve();
    alice.contacts.verify(userId, accountKey.publicKey);
    // Two versions at once: the one between is fetched and judged.
    log(one, rotated);
    const contact = await resolve();
    assert.deepEqual(contact.accountKey, nextKey.publicKey);
    assert.equal(contact.verification, 'compared');
    assert.deepEqual(told(), ['keyChange', 'keyChange']);
    await resolve();
    assert.equal(told().length, 2);
  });

  test('that nobody signed for is a loud reset', async () => {
    const { resolve, log, told, alice } = scene();
    log(zero, one);
    await resolve();
    log(reset);
    assert.deepEqual((await resolve()).accountKey, nextKey.publicKey);
    assert.deepEqual(told(), ['identityReset']);
    assert.deepEqual(
      alice.store.logs.events(9).map(({ type, subject }) => [type, subject]),
      [['identityReset', userId]],
    );
  });

  test('that nobody signed for blocks a contact that people had compared, until they decide', async () => {
    const { resolve, log, alice } = scene();
    log(zero, one);
    await resolve();
    assert.throws(() => alice.contacts.verify(userId, nextKey.publicKey), refused('BAD_FIELD'));
    alice.contacts.verify(userId, accountKey.publicKey);
    log(reset);
    await assert.rejects(resolve(), refused('IDENTITY_RESET'));
    assert.equal(alice.contacts.get(userId)?.verification, 'blocked');
    assert.equal(alice.contacts.lookup(userId), undefined);
    assert.throws(() => alice.contacts.requireUnblocked([userId]), refused('IDENTITY_RESET'));
    // Nothing that the new key signs unblocks it.
    const further = nextManifest(
      reset,
      {
        devices: [deviceOf(first)],
        revoked: [{ identityPub: second.publicKey, atMs: 1n, reason: '' }],
      },
      { accountKey: nextKey },
    );
    log(further);
    await assert.rejects(resolve(), refused('IDENTITY_RESET'));
    alice.restart();
    assert.equal(alice.contacts.get(userId)?.isBlocked, true);
    assert.equal(alice.contacts.acceptIdentityReset(userId).verification, 'logged');
    assert.notEqual(alice.contacts.lookup(userId), undefined);
  });
});

describe('old keys', () => {
  /** A clock that can be put ahead. */
  function movable(): Clock & { aheadMs: number } {
    return {
      ...systemClock,
      aheadMs: 0,
      now() {
        return systemClock.now() + this.aheadMs;
      },
    };
  }
  const dark: Caller = {
    call: () => Promise.reject(new TransportError('closed', 'gone')),
  };

  test('are checked again after a day, and pass for a while up to a week without the log', async () => {
    const clock = movable();
    const { resolve, log, alice } = scene(clock);
    log(zero);
    await resolve();
    assert.notEqual(alice.contacts.lookup(userId), undefined);
    clock.aheadMs = contactLimits.freshMs + 60_000;
    assert.equal(alice.contacts.lookup(userId), undefined);
    assert.equal(alice.contacts.get(userId)?.verification, 'notRechecked');
    await assert.rejects(alice.contacts.resolve(userId, dark), refused('DISCONNECTED'));
    assert.equal(alice.contacts.passUnreached(userId), true);
    assert.notEqual(alice.contacts.lookup(userId), undefined);
    clock.aheadMs = contactLimits.unreachableMs + 60_000;
    assert.equal(alice.contacts.lookup(userId), undefined);
    assert.equal(alice.contacts.passUnreached(userId), false);
    assert.equal(alice.contacts.passUnreached('nobody@blue.example'), false);
  });

  test('are not refreshed by a log that stands still', async () => {
    const clock = movable();
    const { resolve, log, alice } = scene(clock);
    log(zero);
    await resolve();
    clock.aheadMs = contactLimits.freshMs + 60_000;
    await assert.rejects(resolve(), refused('TOO_OLD'));
    assert.deepEqual(alice.lies, ['TOO_OLD']);
  });
});
