/** Credential attacks: who gets in, who is told why not, and who may invite. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, systemRandom } from '@quicprochat/proto';
import { createGroup, unsafeTestingAuthenticationService } from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { encodeMessage } from './commit.ts';
import { groupContextExtensions } from './group-extensions.ts';
import { MlsGroup, stateOf } from './group.ts';
import { CredentialError, acceptCommit, createMls, mandatorySuite, xwingSuite } from './index.ts';
import type { CredentialFailure } from './index.ts';
import { decodeKeyPackage, decodePrivateKeyPackage } from './key-package.ts';
import { createCommit, defaultProposalTypes, makeCustomExtension } from './library.ts';
import { clientConfig } from './suite.ts';
import { TestWorld, groupOf, keyPackageOf, refused } from './test-members.ts';
import type { TestDevice } from './test-members.ts';

const provider = createMlsCryptoProvider({ random: systemRandom });

/** A CredentialError with exactly these failures. */
function credentials(
  reason: 'BAD_CREDENTIAL' | 'UNKNOWN_CREDENTIAL',
  ...failures: CredentialFailure['reason'][]
): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof CredentialError, String(error));
    assert.equal(error.reason, reason);
    assert.deepEqual(
      error.failures.map((failure) => failure.reason),
      failures,
    );
    return true;
  };
}

test('a device that its manifest lacks, revoked it, or knows by another key is not added', async () => {
  const world = new TestWorld();
  const [alice, mallory] = [world.device('alice'), world.device('mallory')];
  const [a] = await groupOf(mandatorySuite, [alice]);
  const { publicBytes } = await keyPackageOf(mallory, mandatorySuite);
  const add = (): Promise<unknown> => alice.mls.addMembers(a, [publicBytes]);
  const { userId, deviceId } = mallory.identity;
  const identityPub = mallory.signatureKey.publicKey;

  world.manifests.set(userId, { devices: [], revoked: [] });
  await assert.rejects(add(), credentials('BAD_CREDENTIAL', 'unknown_device'));
  world.manifests.set(userId, { devices: [{ deviceId, identityPub }], revoked: [identityPub] });
  await assert.rejects(add(), credentials('BAD_CREDENTIAL', 'revoked'));
  const otherKey = systemRandom.bytes(32);
  world.manifests.set(userId, { devices: [{ deviceId, identityPub: otherKey }], revoked: [] });
  await assert.rejects(add(), credentials('BAD_CREDENTIAL', 'wrong_key'));
  world.manifests.delete(userId);
  await assert.rejects(add(), credentials('UNKNOWN_CREDENTIAL', 'unknown_user'));
  world.manifests.set(userId, { devices: [{ deviceId, identityPub }], revoked: [] });
  await add();
});

test('a joiner learns all missing users at once, and joins once they are there', async () => {
  const world = new TestWorld();
  const devices = ['alice', 'bob', 'carol', 'dave'].map((name) => world.device(name));
  const [alice, bob, carol, dave] = devices;
  assert.ok(alice && bob && carol && dave);
  const [a] = await groupOf(xwingSuite, [alice, bob, carol]);
  const row = await keyPackageOf(dave, xwingSuite);
  const { welcome } = await alice.mls.addMembers(a, [row.publicBytes]);
  assert.ok(welcome);
  const join = (): Promise<unknown> => dave.mls.joinFromWelcome(welcome, [row], dave.signatureKey);

  const kept = new Map(world.manifests);
  for (const name of ['alice', 'carol']) world.manifests.delete(`${name}@red.example`);
  await assert.rejects(join(), (error) => {
    assert.ok(error instanceof CredentialError);
    assert.equal(error.reason, 'UNKNOWN_CREDENTIAL');
    assert.deepEqual(error.failures.map(({ userId }) => userId).sort(), [
      'alice@red.example',
      'carol@red.example',
    ]);
    return true;
  });
  for (const [userId, manifest] of kept) world.manifests.set(userId, manifest);
  const bobs = kept.get('bob@red.example');
  assert.ok(bobs);
  const { publicKey } = bob.signatureKey;
  world.manifests.set('bob@red.example', { devices: [], revoked: [] });
  await assert.rejects(join(), credentials('BAD_CREDENTIAL', 'unknown_device'));
  // A revoked leaf that nobody took out yet keeps nobody out, and its own word brings nobody in.
  world.manifests.set('bob@red.example', { devices: [], revoked: [publicKey] });
  await join();
  const alices = kept.get('alice@red.example');
  assert.ok(alices);
  const revoked = [alice.signatureKey.publicKey];
  world.manifests.set('alice@red.example', { ...alices, revoked });
  await assert.rejects(join(), credentials('BAD_CREDENTIAL', 'revoked'));
  world.manifests.set('alice@red.example', alices);
  await join();
});

test('a member that does not know the added device yet waits, with its state unchanged', async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const { publicBytes } = await keyPackageOf(carol, mandatorySuite);
  const { commit } = await alice.mls.addMembers(a, [publicBytes]);
  const manifest = world.manifests.get('carol@red.example');
  assert.ok(manifest);
  world.manifests.delete('carol@red.example');
  await assert.rejects(
    bob.mls.process(b, commit),
    credentials('UNKNOWN_CREDENTIAL', 'unknown_user'),
  );
  world.manifests.set('carol@red.example', manifest);
  const result = await bob.mls.process(b, commit);
  assert.equal(result.kind, 'commit');
  assert.deepEqual(
    result.added.map(({ userId }) => userId),
    ['carol@red.example'],
  );
});

/** A group that `maker` sets up with ts-mls itself in the name of `creator`, with `guest` added. */
async function forgedGroup(
  maker: TestDevice,
  creator: TestDevice,
  guest: Uint8Array,
): Promise<Uint8Array> {
  const context = {
    cipherSuite: await provider.getCiphersuiteImpl(mandatorySuite),
    authService: unsafeTestingAuthenticationService,
    clientConfig: clientConfig(),
  };
  const own = decodePrivateKeyPackage((await keyPackageOf(maker, mandatorySuite)).privateBytes);
  const creators = await keyPackageOf(creator, mandatorySuite);
  const groupId = systemRandom.bytes(32);
  const state = await createGroup({
    context,
    groupId,
    keyPackage: own.keyPackage,
    privateKeyPackage: { ...own, signaturePrivateKey: maker.signatureKey.seed },
    extensions: groupContextExtensions({
      info: {
        conversationId: groupId,
        name: 'not by alice',
        roles: [{ userId: creator.identity.userId, role: 'owner' }],
        expirySeconds: 0,
        joinKeyHash: undefined,
        policyVersion: 1,
        directDevices: 32,
        channelNonce: undefined,
      },
      hubs: ['red.example'],
    }),
  });
  const { welcome } = await createCommit({
    context,
    state,
    ratchetTreeExtension: true,
    extraProposals: [creators.publicBytes, guest].map((bytes) => ({
      proposalType: defaultProposalTypes.add,
      add: { keyPackage: decodeKeyPackage(bytes) },
    })),
  });
  assert.ok(welcome);
  return encodeMessage(welcome);
}

test('a group made in the name of somebody else is not joined', async () => {
  const world = new TestWorld();
  const [alice, bob, mallory] = [
    world.device('alice'),
    world.device('bob'),
    world.device('mallory'),
  ];
  const row = await keyPackageOf(bob, mandatorySuite);
  const forged = await forgedGroup(mallory, alice, row.publicBytes);
  await assert.rejects(
    bob.mls.joinFromWelcome(forged, [row], bob.signatureKey),
    refused('NOT_ALLOWED'),
  );
});

test('a client is added once, by identity and by key; a replaced one takes its slot', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a] = await groupOf(mandatorySuite, [alice, bob]);
  const again = await keyPackageOf(bob, mandatorySuite);
  const more = await keyPackageOf(bob, mandatorySuite);
  await assert.rejects(alice.mls.addMembers(a, [again.publicBytes]), refused('ALREADY_MEMBER'));
  const carol = world.device('carol');
  const rows = [
    await keyPackageOf(carol, mandatorySuite),
    await keyPackageOf(carol, mandatorySuite),
  ];
  await assert.rejects(
    alice.mls.addMembers(
      a,
      rows.map(({ publicBytes }) => publicBytes),
    ),
    refused('ALREADY_MEMBER'),
  );
  // Not even as its own successor: who votes on a commit is who is there before and after it.
  await assert.rejects(
    alice.mls.commit(a, { remove: [1], add: [more.publicBytes] }),
    refused('NOT_ALLOWED'),
  );
});

test('what the rules forbid is refused whoever it adds, also who is known to nobody', async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const ghost = await keyPackageOf(carol, mandatorySuite);
  // Bob is no admin, and his client knows no rules.
  const { manifests } = world;
  const lawless = createMls({
    clock: systemClock,
    random: systemRandom,
    manifests: (userId) => manifests.get(userId),
    mayCommit: () => true,
  });
  const { commit } = await lawless.addMembers(b, [ghost.publicBytes]);
  for (const known of [undefined, { devices: [], revoked: [] }]) {
    if (known === undefined) manifests.delete(carol.identity.userId);
    else manifests.set(carol.identity.userId, known);
    await assert.rejects(alice.mls.process(a, commit), refused('NOT_ALLOWED'));
  }
});

test('a device that was revoked since it was added came in all the same', async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const { publicBytes } = await keyPackageOf(carol, mandatorySuite);
  const { commit, pending } = await alice.mls.addMembers(a, [publicBytes]);
  const { userId, deviceId } = carol.identity;
  const identityPub = carol.signatureKey.publicKey;
  const stranger = { devices: [], revoked: [world.device('eve').signatureKey.publicKey] };
  world.manifests.set(userId, stranger);
  await assert.rejects(bob.mls.process(b, commit), credentials('BAD_CREDENTIAL', 'unknown_device'));
  // Who was online took it in before, and who reads the log later must not go another way.
  world.manifests.set(userId, { devices: [], revoked: [identityPub] });
  const { next } = await bob.mls.process(b, commit);
  assert.deepEqual(next.epochAuthenticator, acceptCommit(a, pending).next.epochAuthenticator);
  assert.ok(next.members().some((member) => member.deviceId === deviceId));
});

test('the same key under another device id, or an id with another key, is the same client', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a] = await groupOf(mandatorySuite, [alice, bob]);
  const { userId, deviceId } = bob.identity;
  const otherId = 'b'.repeat(16);
  const other = world.device('carol').signatureKey;
  world.manifests.set(userId, {
    devices: [
      { deviceId, identityPub: other.publicKey },
      { deviceId: otherId, identityPub: bob.signatureKey.publicKey },
    ],
    revoked: [],
  });
  for (const client of [
    { identity: { userId, deviceId: otherId }, signatureKey: bob.signatureKey },
    { identity: { userId, deviceId }, signatureKey: other },
  ]) {
    const { publicBytes } = await bob.mls.makeKeyPackage({ suite: mandatorySuite, ...client });
    await assert.rejects(alice.mls.addMembers(a, [publicBytes]), refused('ALREADY_MEMBER'));
  }
});

test('bounds of a commit: 64 Adds, members that exist, never the committer', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a] = await groupOf(mandatorySuite, [alice, bob]);
  const { publicBytes } = await keyPackageOf(bob, mandatorySuite);
  await assert.rejects(
    alice.mls.addMembers(
      a,
      Array.from({ length: 65 }, () => publicBytes),
    ),
    refused('TOO_MANY_ADDS'),
  );
  for (const leafIndex of [2, 7, -1, 0.5]) {
    await assert.rejects(alice.mls.removeMembers(a, [leafIndex]), refused('UNKNOWN_MEMBER'));
  }
  await assert.rejects(alice.mls.removeMembers(a, [0]), refused('NOT_ALLOWED'));
  await assert.rejects(alice.mls.removeMembers(a, [1, 1]), refused('INVALID_COMMIT'));
  const { publicBytes: otherSuite } = await keyPackageOf(world.device('carol'), xwingSuite);
  await assert.rejects(alice.mls.addMembers(a, [otherSuite]), refused('BAD_KEY_PACKAGE'));
});

test('a group context with more than our extensions is no group of ours', async () => {
  const world = new TestWorld();
  const [a] = await groupOf(mandatorySuite, [world.device('alice')]);
  const state = stateOf(a);
  const { extensions } = state.groupContext;
  const more = makeCustomExtension({ extensionType: 0xf0ff, extensionData: new Uint8Array(0) });
  const wrong = [
    [...extensions, more],
    [],
    extensions.slice(0, 1),
    extensions.slice(1),
    [...extensions, ...extensions.slice(0, 1)],
  ];
  for (const changed of wrong) {
    const groupContext = { ...state.groupContext, extensions: changed };
    assert.throws(() => new MlsGroup({ ...state, groupContext }), refused('MALFORMED'));
  }
});
