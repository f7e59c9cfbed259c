/**
 * Welcomes that a modified client makes with ts-mls itself: valid MLS, and values that no client
 * of ours chooses. Each must become a recorded row; one that the store refuses would be fetched
 * again for ever, and nothing behind it would arrive.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { methods, parseEntry, RowKind, signEntry, signingKeyFromSeed } from '@quicprochat/proto';
import {
  create,
  GroupControlSchema,
  GroupEntrySchema,
  toBinary,
} from '@quicprochat/proto/messages';
import { unsafeTestingAuthenticationService } from 'ts-mls';
import { sealHybrid } from '../../crypto/envelope.ts';
import { hkdfExpand } from '../../crypto/hkdf.ts';
import { createMlsCryptoProvider } from '../../crypto/provider.ts';
import { encodeMessage } from '../../mls/commit.ts';
import { groupContextExtensions } from '../../mls/group-extensions.ts';
import { mandatorySuite } from '../../mls/index.ts';
import { decodeKeyPackage, decodePrivateKeyPackage } from '../../mls/key-package.ts';
import { createCommit, createGroup, defaultProposalTypes, mlsExporter } from '../../mls/library.ts';
import { clientConfig } from '../../mls/suite.ts';
import { TestDevice, type TestRow } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { testRuntime } from '../../test-runtime.ts';

const { random } = testRuntime;

interface Forgery {
  readonly groupId: Uint8Array;
  readonly conversationId: Uint8Array;
  readonly epoch?: bigint;
  /** The entry beside it is of another group, epoch or key, or has no certificate. */
  readonly spoil?: 'group' | 'epoch' | 'key' | 'join key' | 'certificate';
}

/** A Welcome of a group that mallory made, for the victim, in an envelope as the node brings it. */
async function forgedWelcome(
  mallory: TestDevice,
  victim: TestDevice,
  { groupId, conversationId, epoch = 0n, spoil }: Forgery,
): Promise<TestRow> {
  const { userId } = victim;
  const claim = { userId, claimId: random.bytes(16), suites: [mandatorySuite] };
  const { packages } = await mallory.directory.call(methods.fetchKeyPackage, claim);
  const [one] = packages;
  assert(one?.prekey !== undefined);
  const identity = { userId: mallory.userId, deviceId: mallory.deviceId };
  const { signatureKey } = mallory;
  const own = await mallory.mls.makeKeyPackage({
    suite: mandatorySuite,
    identity,
    signatureKey,
    lastResort: false,
  });
  const keys = decodePrivateKeyPackage(own.privateBytes);
  const context = {
    cipherSuite: await createMlsCryptoProvider({ random }).getCiphersuiteImpl(mandatorySuite),
    authService: unsafeTestingAuthenticationService,
    clientConfig: clientConfig(),
  };
  const state = await createGroup({
    context,
    groupId,
    keyPackage: keys.keyPackage,
    privateKeyPackage: { ...keys, signaturePrivateKey: signatureKey.seed },
    extensions: groupContextExtensions({
      info: {
        conversationId,
        name: 'forged',
        roles: [{ userId: identity.userId, role: 'owner' }],
        expirySeconds: 0,
        joinKeyHash: undefined,
        policyVersion: 1,
        directDevices: 32,
        channelNonce: undefined,
      },
      hubs: ['red.example'],
    }),
  });
  const { welcome, newState } = await createCommit({
    context,
    state: { ...state, groupContext: { ...state.groupContext, epoch } },
    ratchetTreeExtension: true,
    extraProposals: [
      {
        proposalType: defaultProposalTypes.add,
        add: { keyPackage: decodeKeyPackage(one.keyPackage) },
      },
    ],
  });
  assert(welcome !== undefined);
  const mid = random.bytes(16);
  const content = { kind: 'welcome', bytes: encodeMessage(welcome) } as const;
  const recipientKey = mallory.contacts.acceptPrekey(victim.rid, one.prekey);
  const envelope = sealHybrid({ content, recipientKey, rid: victim.rid, mid, random });
  const { exporterSecret } = newState.keySchedule;
  const { cipherSuite } = context;
  const seed = await mlsExporter(exporterSecret, 'qpc commit', groupId, 32, cipherSuite);
  const commitKey = signingKeyFromSeed(seed);
  const join = await mlsExporter(exporterSecret, 'qpc join', groupId, 32, cipherSuite);
  const label = new TextEncoder().encode('qpc join commit');
  const joinKey = signingKeyFromSeed(hkdfExpand('sha256', join, label, 32));
  const entry = signEntry(
    create(GroupEntrySchema, {
      group: spoil === 'group' ? random.bytes(32) : groupId,
      parent: random.bytes(32),
      // What no entry can say is found out before it is looked at.
      epoch: epoch > 99n ? 1n : epoch + (spoil === 'epoch' ? 2n : 1n),
      commitHash: random.bytes(32),
      nextCommitPub: spoil === 'key' ? random.bytes(32) : commitKey.publicKey,
      joinCommitPub: spoil === 'join key' ? random.bytes(32) : joinKey.publicKey,
    }),
    commitKey,
  );
  const group = groupId.length === 32 ? parseEntry(entry).hash : random.bytes(32);
  const certified = mallory.directory.hub.certify(['red.example'], { hash: group }, entry);
  if (spoil === 'certificate') certified.signatures[0]?.signature.set([1, 2, 3], 5);
  const control = create(GroupControlSchema, { entry: certified, welcome: envelope });
  return { mid, payload: toBinary(GroupControlSchema, control), kind: RowKind.GroupControl };
}

describe('a Welcome of a modified client', () => {
  /** bob is in alice's conversation; then comes the forgery; then alice writes on. */
  async function afterForgery(
    forge: (conversationId: Uint8Array) => Forgery,
    reasons: readonly string[],
  ): Promise<void> {
    const directory = new TestDirectory();
    const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(
      (name) => new TestDevice(`${name}@red.example`, directory),
    );
    assert(alice !== undefined && bob !== undefined && mallory !== undefined);
    const conversationId = await alice.conversations.create('real', [bob.userId]);
    await alice.conversations.send(conversationId, 'before');
    await alice.conversations.send(conversationId, 'after');
    const [welcome, before, after] = alice.rowsFor(bob);
    assert(welcome !== undefined && before !== undefined && after !== undefined);
    // Known before, so that the Welcome does not wait for her manifest.
    await bob.contacts.resolve(mallory.userId, directory);
    await bob.receive(welcome);
    await bob.receive(before);
    await bob.receive(await forgedWelcome(mallory, bob, forge(conversationId)));
    await bob.receive(after);
    assert.deepEqual(
      bob.store.inbox.undecryptable().map(({ reason }) => reason),
      reasons,
    );
    assert.deepEqual(
      bob.history(conversationId).map(({ text }) => text),
      ['before', 'after'],
    );
    const others = bob.store.groups.conversations().filter(({ name }) => name !== 'real');
    assert.equal(others.length, reasons.length === 0 ? 1 : 0);
  }

  test('opens when nothing is wrong with it', async () => {
    const groupId = random.bytes(32);
    await afterForgery(() => ({ groupId, conversationId: groupId }), []);
  });

  for (const spoil of ['group', 'epoch', 'key', 'join key', 'certificate'] as const) {
    test(`whose entry has another ${spoil} is recorded, and the next rows come`, async () => {
      const groupId = random.bytes(32);
      await afterForgery(() => ({ groupId, conversationId: groupId, spoil }), ['UNCERTIFIED']);
    });
  }

  test('that claims the conversation of another group is recorded, and the next rows come', async () => {
    await afterForgery(
      (conversationId) => ({ groupId: random.bytes(32), conversationId }),
      ['INVALID_WELCOME'],
    );
  });

  test('with a group id of another length is recorded, and the next rows come', async () => {
    await afterForgery(
      () => ({ groupId: random.bytes(16), conversationId: random.bytes(32) }),
      ['INVALID_WELCOME'],
    );
  });

  test('of an epoch that no number holds is recorded, and the next rows come', async () => {
    const groupId = random.bytes(32);
    for (const epoch of [2n ** 53n, 2n ** 63n, 2n ** 64n - 2n]) {
      await afterForgery(() => ({ groupId, conversationId: groupId, epoch }), ['INVALID_WELCOME']);
    }
  });
});
