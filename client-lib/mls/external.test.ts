/** Coming back by an external commit: as oneself only, and by whose word. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemRandom } from '@quicprochat/proto';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { continuityBroken } from './continuity.ts';
import {
  acceptCommit,
  acceptReturn,
  mandatorySuite,
  MlsError,
  xwingSuite,
  type MlsGroup,
} from './index.ts';
import { decodeKeyPackage, decodePrivateKeyPackage } from './key-package.ts';
import {
  encode,
  joinGroupExternal,
  mlsMessageDecoder,
  mlsMessageEncoder,
  protocolVersions,
  wireformats,
} from './library.ts';
import { clientConfig } from './suite.ts';
import { groupOf, keyPackageOf, refused, TestWorld, type TestDevice } from './test-members.ts';

const same = (groups: readonly MlsGroup[]): void => {
  const authenticators = groups.map(({ epochAuthenticator }) => Buffer.from(epochAuthenticator));
  assert.equal(new Set(authenticators.map((one) => one.toString('hex'))).size, 1);
};

/** An external commit that only adds, as the library makes it. */
async function joining(device: TestDevice, info: Uint8Array): Promise<Uint8Array> {
  const provider = createMlsCryptoProvider({ random: systemRandom });
  const cipherSuite = await provider.getCiphersuiteImpl(mandatorySuite);
  const message = mlsMessageDecoder(info, 0)?.[0];
  assert(message?.wireformat === wireformats.mls_group_info);
  const { publicBytes, privateBytes } = await keyPackageOf(device, mandatorySuite);
  const { keyPackage: _, ...keys } = decodePrivateKeyPackage(privateBytes);
  const { publicMessage } = await joinGroupExternal({
    context: {
      cipherSuite,
      authService: { validateCredential: async () => true },
      clientConfig: clientConfig(),
    },
    groupInfo: message.groupInfo,
    keyPackage: decodeKeyPackage(publicBytes),
    privateKeys: { ...keys, signaturePrivateKey: device.signatureKey.seed },
    resync: false,
  });
  return encode(mlsMessageEncoder, {
    version: protocolVersions.mls10,
    wireformat: wireformats.mls_public_message,
    publicMessage,
  });
}

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`a device takes a new leaf for its lost one, and goes on with the others (suite ${suite})`, async () => {
    const world = new TestWorld();
    const [alice, bob, carol] = ['alice', 'bob', 'carol'].map((name) => world.device(name));
    assert(alice !== undefined && bob !== undefined && carol !== undefined);
    const [ofAlice, ofBob, ofCarol] = await groupOf(suite, [alice, bob, carol]);
    assert(ofBob !== undefined && ofCarol !== undefined);
    const late = await carol.mls.encrypt(ofCarol, new Uint8Array(3), new Uint8Array(0));
    // Bob misses this one.
    const moved = await alice.mls.rekey(ofAlice);
    const one = acceptCommit(ofAlice, moved.pending).next;
    const two = (await carol.mls.process(late.next, moved.commit)).next;
    const info = await alice.mls.groupInfoOf(one);
    const back = await bob.mls.comeBack(info, ofBob, bob);
    assert.equal(back.signer.userId, alice.identity.userId);
    assert.equal(
      continuityBroken(ofBob, back.pending, back.signer.userId, 'x@y.example'),
      undefined,
    );
    const three = await alice.mls.processReturn(one, back.commit);
    const four = await carol.mls.processReturn(two, back.commit);
    assert.deepEqual(three.sender.userId, bob.identity.userId);
    const { next: ofBack } = acceptReturn(ofBob, back.pending);
    same([ofBack, three.next, four.next]);
    assert.throws(() => acceptReturn(ofBack, ofBob), refused('BAD_STATE'));
    assert.equal(back.pending.members().length, 3);
    // What was sealed in an epoch that it was in opens still.
    const opened = await bob.mls.process(ofBack, late.ciphertext);
    assert.equal(opened.kind, 'application');
    // And it commits as before.
    const next = await bob.mls.rekey(ofBack);
    const seen = await carol.mls.process(four.next, next.commit);
    same([acceptCommit(ofBack, next.pending).next, seen.next]);
    // The same epoch, which its lost copy may have written in, does as well.
    const again = await carol.mls.comeBack(
      await carol.mls.groupInfoOf(four.next),
      four.next,
      carol,
    );
    assert.equal(again.signer.userId, carol.identity.userId);
    same([again.pending, (await bob.mls.processReturn(ofBack, again.commit)).next]);
  });
}

test('nobody comes back as somebody else, from elsewhere, or twice', async () => {
  const world = new TestWorld();
  const [alice, bob, mallory, eve] = ['alice', 'bob', 'mallory', 'eve'].map((name) =>
    world.device(name),
  );
  assert(alice !== undefined && bob !== undefined && mallory !== undefined && eve !== undefined);
  const [ofAlice, ofBob, ofMallory] = await groupOf(mandatorySuite, [alice, bob, mallory]);
  assert(ofBob !== undefined && ofMallory !== undefined);
  const info = await alice.mls.groupInfoOf(ofAlice);
  // A stranger has no leaf to take the place of.
  await assert.rejects(eve.mls.comeBack(info, ofMallory, eve), refused('REMOVED'));
  // A member for another's leaf: its name, and not its key.
  const posing = { identity: bob.identity, signatureKey: mallory.signatureKey };
  const posed = await mallory.mls.comeBack(info, ofMallory, posing);
  await assert.rejects(alice.mls.processReturn(ofAlice, posed.commit), refused('NOT_ALLOWED'));
  // Nor does anybody come in who was not in, whatever the GroupInfo lets it make.
  const stranger = await joining(eve, info);
  await assert.rejects(alice.mls.processReturn(ofAlice, stranger), refused('NOT_ALLOWED'));
  const good = await bob.mls.comeBack(info, ofBob, bob);
  await assert.rejects(bob.mls.processReturn(ofBob, good.commit), refused('OWN_MESSAGE'));
  const { next } = await alice.mls.processReturn(ofAlice, good.commit);
  await assert.rejects(alice.mls.processReturn(next, good.commit), refused('STALE_COMMIT'));
  for (const at of [20, 60, good.commit.length - 1]) {
    const broken = good.commit.slice();
    broken[at] = (broken[at] ?? 0) ^ 1;
    await assert.rejects(alice.mls.processReturn(ofAlice, broken), MlsError);
  }
  // A commit of a member, and a Welcome, are none.
  const rekey = await mallory.mls.rekey(ofMallory);
  await assert.rejects(alice.mls.processReturn(ofAlice, rekey.commit), refused('MALFORMED'));
  // The word of somebody outside, a changed word, and one for another group.
  const changed = info.slice();
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
  await assert.rejects(bob.mls.comeBack(changed, ofBob, bob), refused('INVALID_GROUP_INFO'));
  const [other] = await groupOf(mandatorySuite, [mallory]);
  const foreign = await mallory.mls.groupInfoOf(other);
  await assert.rejects(bob.mls.comeBack(foreign, ofBob, bob), refused('WRONG_GROUP'));
  const back = acceptCommit(ofMallory, rekey.pending).next;
  await assert.rejects(mallory.mls.comeBack(info, back, mallory), refused('STALE_COMMIT'));
  await assert.rejects(bob.mls.comeBack(rekey.commit, ofBob, bob), refused('MALFORMED'));
  // Who was revoked vouches for nothing.
  world.manifests.get(alice.identity.userId)?.revoked.push(alice.signatureKey.publicKey);
  await assert.rejects(bob.mls.comeBack(info, ofBob, bob), refused('BAD_CREDENTIAL'));
});

test('the word of a member goes as far as the rights it had', async () => {
  const world = new TestWorld();
  const [alice, bob, carol, dave] = ['alice', 'bob', 'carol', 'dave'].map((n) => world.device(n));
  assert(alice !== undefined && bob !== undefined && carol !== undefined && dave !== undefined);
  const [ofAlice, ofBob] = await groupOf(mandatorySuite, [alice, bob, carol]);
  assert(ofBob !== undefined);
  const judge = (after: MlsGroup, by: { readonly identity: { readonly userId: string } }) =>
    continuityBroken(ofBob, after, by.identity.userId, bob.identity.userId);
  const row = await keyPackageOf(dave, mandatorySuite);
  const adding = await alice.mls.addMembers(ofAlice, [row.publicBytes]);
  const withDave = acceptCommit(ofAlice, adding.pending).next;
  const carolIndex = 2;
  const removing = await alice.mls.removeMembers(withDave, [carolIndex]);
  const without = acceptCommit(withDave, removing.pending).next;
  const roles = [alice, dave].map(({ identity: { userId } }) => ({
    userId,
    role: 'owner' as const,
  }));
  const promoting = await alice.mls.commit(without, {
    context: { info: { ...without.info, roles } },
  });
  const promoted = acceptCommit(without, promoting.pending).next;
  for (const after of [withDave, without, promoted]) {
    // An owner may do all that; a member could not; a newcomer is not known; own devices saw it.
    assert.equal(judge(after, alice), undefined);
    assert.notEqual(judge(after, carol), undefined);
    assert.notEqual(judge(after, dave), undefined);
    assert.equal(judge(after, bob), undefined);
  }
  assert.equal(judge(ofAlice, carol), undefined, 'nothing changed');
  const moved = {
    info: ofBob.info,
    hubs: ['blue.example'],
    members: () => ofBob.members(),
  };
  assert.notEqual(continuityBroken(ofBob, moved, carol.identity.userId, ''), undefined);
  const [elsewhere] = await groupOf(mandatorySuite, [alice]);
  assert.notEqual(judge(elsewhere, alice), undefined, 'another conversation');
});
