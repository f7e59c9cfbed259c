/** What the adapter refuses on the way in, by which reason, and that the state stays as it was. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createProposal, unsafeTestingAuthenticationService } from 'ts-mls';
import type { LeafNode, Proposal } from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { systemRandom } from '@quicprochat/proto';
import { encodeMessage } from './commit.ts';
import { MlsGroup, stateOf } from './group.ts';
import {
  acceptCommit,
  dropEpochsBefore,
  inspectMessage,
  mandatorySuite,
  xwingSuite,
} from './index.ts';
import type { Mls, Processed } from './index.ts';
import { createCommit, defaultProposalTypes, makeCustomExtension } from './library.ts';
import { clientConfig, qpcGroupExtensionType } from './suite.ts';
import { TestWorld, groupOf, keyPackageOf, refused } from './test-members.ts';

const none = new Uint8Array(0);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const provider = createMlsCryptoProvider({ random: systemRandom });

// The library itself, for messages that no honest adapter makes.
const raw = async (suite: number): Promise<Parameters<typeof createCommit>[0]['context']> => ({
  cipherSuite: await provider.getCiphersuiteImpl(suite),
  authService: unsafeTestingAuthenticationService,
  clientConfig: clientConfig(),
});

async function opened(mls: Mls, group: MlsGroup, message: Uint8Array): Promise<MlsGroup> {
  const result: Processed = await mls.process(group, message);
  assert.equal(result.kind, 'application');
  return result.next;
}

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`suite ${suite}: a changed or missing byte of a message is refused, burning no key`, async () => {
    const world = new TestWorld();
    const [alice, bob] = [world.device('alice'), world.device('bob')];
    const [a, b] = await groupOf(suite, [alice, bob]);
    assert.ok(b);
    const { ciphertext } = await bob.mls.encrypt(b, systemRandom.bytes(100), text('head'));
    assert.equal(inspectMessage(ciphertext).epoch, 1n);
    for (let at = 0; at < ciphertext.length; at++) {
      for (const bit of [0x01, 0x80]) {
        const forged = Uint8Array.from(ciphertext);
        forged[at] = (forged[at] ?? 0) ^ bit;
        await assert.rejects(alice.mls.process(a, forged), { name: 'MlsError' }, `byte ${at}`);
      }
      await assert.rejects(alice.mls.process(a, ciphertext.subarray(0, at)), refused('MALFORMED'));
    }
    const longer = new Uint8Array(ciphertext.length + 1);
    longer.set(ciphertext);
    await assert.rejects(alice.mls.process(a, longer), refused('MALFORMED'));
    await opened(alice.mls, a, ciphertext);
  });

  test(`suite ${suite}: a changed byte of a commit is refused, and the commit still applies`, async () => {
    const world = new TestWorld();
    const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
    const [a, b] = await groupOf(suite, [alice, bob, carol]);
    assert.ok(b);
    const { commit } = await alice.mls.removeMembers(a, [2]);
    for (let at = 0; at < commit.length; at += suite === xwingSuite ? 7 : 1) {
      const forged = Uint8Array.from(commit);
      forged[at] = (forged[at] ?? 0) ^ 0x10;
      await assert.rejects(bob.mls.process(b, forged), { name: 'MlsError' }, `byte ${at}`);
    }
    assert.equal((await bob.mls.process(b, commit)).next.epoch, 2n);
  });
}

test('messages of other groups and epochs are told apart', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  const [other] = await groupOf(mandatorySuite, [alice]);
  assert.ok(b);
  const first = await bob.mls.encrypt(b, text('first'), none);
  b = first.next;
  await assert.rejects(alice.mls.process(other, first.ciphertext), refused('WRONG_GROUP'));

  const epochOne = a;
  const commits: Uint8Array[] = [];
  let second: Uint8Array = none;
  for (let epoch = 1; epoch <= 9; epoch++) {
    const made = await alice.mls.rekey(a);
    commits.push(made.commit);
    a = acceptCommit(a, made.pending).next;
    if (epoch === 2) {
      await assert.rejects(bob.mls.process(b, made.commit), refused('EPOCH_AHEAD'));
      b = (await bob.mls.process(b, commits[0] ?? none)).next;
      const sent = await bob.mls.encrypt(b, text('second'), none);
      second = sent.ciphertext;
      b = sent.next;
    }
    if (epoch >= 2) b = (await bob.mls.process(b, made.commit)).next;
  }
  assert.equal(a.epoch, 10n);
  a = dropEpochsBefore(a, 2n).next;
  await assert.rejects(alice.mls.process(a, first.ciphertext), refused('EPOCH_GONE'));
  a = await opened(alice.mls, a, second);
  await assert.rejects(alice.mls.process(a, second), refused('DUPLICATE'));
  await opened(alice.mls, epochOne, first.ciphertext);
  await assert.rejects(bob.mls.process(b, commits[3] ?? none), refused('STALE_COMMIT'));
});

test('the header of a message is read without its group, and nothing else is taken for one', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a] = await groupOf(xwingSuite, [alice, bob]);
  const authenticatedData = text('readable');
  const { ciphertext } = await alice.mls.encrypt(a, text('x'), authenticatedData);
  const { groupId } = a;
  assert.deepEqual(inspectMessage(ciphertext), { groupId, epoch: 1n, authenticatedData });
  const header = 4 + 1 + 32 + 8 + 1 + 1 + 8;
  for (let cut = 0; cut < header; cut++) {
    assert.throws(() => inspectMessage(ciphertext.subarray(0, cut)), refused('MALFORMED'));
  }
  for (const [at, value] of [
    [0, 1],
    [1, 2],
    [3, 3],
  ] as const) {
    assert.throws(() => inspectMessage(ciphertext.with(at, value)), refused('MALFORMED'));
  }
});

test('repeated, overtaken, far-ahead and own messages are told apart', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  let [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const sent: Uint8Array[] = [];
  for (let i = 0; i < 300; i++) {
    const one = await bob.mls.encrypt(b, text(`message ${i}`), none);
    assert.equal(one.generation, i);
    sent.push(one.ciphertext);
    b = one.next;
  }
  const nth = (i: number): Uint8Array => sent[i] ?? none;
  await assert.rejects(bob.mls.process(b, nth(0)), refused('OWN_MESSAGE'));
  a = await opened(alice.mls, a, nth(299));
  await assert.rejects(alice.mls.process(a, nth(0)), refused('GENERATION_GONE'));
  await assert.rejects(alice.mls.process(a, nth(42)), refused('GENERATION_GONE'));
  a = await opened(alice.mls, a, nth(43)); // 256 are kept: 43 to 298
  a = await opened(alice.mls, a, nth(100));
  await assert.rejects(alice.mls.process(a, nth(100)), refused('DUPLICATE'));
  await assert.rejects(alice.mls.process(a, nth(299)), refused('DUPLICATE'));
  await opened(alice.mls, a, nth(298));

  const state = stateOf(b);
  const node = state.secretTree.leafNodes[2];
  assert.ok(node);
  const leafNodes = { ...state.secretTree.leafNodes };
  leafNodes[2] = { ...node, application: { ...node.application, generation: 300 + 4097 } };
  const ahead = new MlsGroup({ ...state, secretTree: { ...state.secretTree, leafNodes } });
  const { ciphertext } = await bob.mls.encrypt(ahead, none, none);
  await assert.rejects(alice.mls.process(a, ciphertext), refused('GENERATION_AHEAD'));
});

test('a member who removes another is refused on both sides', async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [, b, c] = await groupOf(mandatorySuite, [alice, bob, carol]);
  assert.ok(b && c);
  await assert.rejects(bob.mls.removeMembers(b, [2]), refused('NOT_ALLOWED'));
  const { commit } = await createCommit({
    context: await raw(mandatorySuite),
    state: stateOf(b),
    extraProposals: [{ proposalType: defaultProposalTypes.remove, remove: { removed: 0 } }],
  });
  await assert.rejects(carol.mls.process(c, encodeMessage(commit)), refused('NOT_ALLOWED'));
});

test('proposals of other kinds are refused, alone and in a commit', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const state = stateOf(a);
  const context = await raw(mandatorySuite);
  const remove: Proposal = { proposalType: defaultProposalTypes.remove, remove: { removed: 1 } };
  const alone = await createProposal({ context, state, proposal: remove });
  await assert.rejects(bob.mls.process(b, encodeMessage(alone.message)), refused('NOT_ALLOWED'));
  const asPublic = await createProposal({
    context,
    state,
    proposal: remove,
    wireAsPublicMessage: true,
  });
  await assert.rejects(bob.mls.process(b, encodeMessage(asPublic.message)), refused('MALFORMED'));

  const extension = makeCustomExtension({
    extensionType: qpcGroupExtensionType,
    extensionData: none,
  });
  const others: Proposal[] = [
    {
      proposalType: defaultProposalTypes.group_context_extensions,
      groupContextExtensions: { extensions: [extension] },
    },
    { proposalType: 0xf123, proposalData: none },
    {
      proposalType: defaultProposalTypes.reinit,
      reinit: {
        groupId: systemRandom.bytes(32),
        version: 1,
        cipherSuite: xwingSuite,
        extensions: [],
      },
    },
  ];
  for (const proposal of others) {
    const { commit } = await createCommit({ context, state, extraProposals: [proposal] });
    await assert.rejects(bob.mls.process(b, encodeMessage(commit)), refused('NOT_ALLOWED'));
  }
  // By reference to a proposal that nobody keeps.
  const { commit } = await createCommit({ context, state: alone.newState });
  await assert.rejects(bob.mls.process(b, encodeMessage(commit)), refused('INVALID_COMMIT'));
});

test('a committer may change its encryption key and nothing else of its leaf', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const state = stateOf(a);
  const own = state.ratchetTree[0];
  assert.ok(own && 'leaf' in own);
  // The same key under another device id, which a careless manifest might carry.
  const known = world.manifests.get('alice@red.example');
  assert.ok(known);
  const otherId = 'a'.repeat(16);
  world.manifests.set('alice@red.example', {
    ...known,
    devices: [...known.devices, { deviceId: otherId, identityPub: alice.signatureKey.publicKey }],
  });
  const changes: Partial<Pick<LeafNode, 'credential' | 'capabilities' | 'extensions'>>[] = [
    { credential: { credentialType: 1, identity: text(`alice@red.example/${otherId}`) } },
    { capabilities: { ...own.leaf.capabilities, extensions: [qpcGroupExtensionType] } },
    { extensions: [makeCustomExtension({ extensionType: 0x000a, extensionData: none })] },
  ];
  for (const change of changes) {
    const leaf = { ...own.leaf, ...change };
    const ratchetTree = state.ratchetTree.with(0, { ...own, leaf });
    const { commit } = await createCommit({
      context: await raw(mandatorySuite),
      state: { ...state, ratchetTree },
      extraProposals: [],
    });
    await assert.rejects(bob.mls.process(b, encodeMessage(commit)), refused('INVALID_COMMIT'));
  }
});

test('a group that has lost this device can be read and not written', async () => {
  const world = new TestWorld();
  const [alice, bob] = [world.device('alice'), world.device('bob')];
  const [a, b] = await groupOf(mandatorySuite, [alice, bob]);
  assert.ok(b);
  const late = await alice.mls.encrypt(a, text('before'), none);
  const { commit } = await alice.mls.removeMembers(late.next, [1]);
  const gone = (await bob.mls.process(b, commit)).next;
  await opened(bob.mls, gone, late.ciphertext);
  await assert.rejects(bob.mls.encrypt(gone, none, none), refused('REMOVED'));
  await assert.rejects(bob.mls.exporter(gone, 'qpc commit', none, 32), refused('REMOVED'));
  await assert.rejects(bob.mls.process(gone, commit), refused('REMOVED'));
});

test('messages are padded to 256, multiples of 256, then PADME', async () => {
  const world = new TestWorld();
  const alice = world.device('alice');
  const [a] = await groupOf(mandatorySuite, [alice]);
  const size = async (length: number): Promise<number> =>
    (await alice.mls.encrypt(a, new Uint8Array(length), none)).ciphertext.length;
  const overhead = (await size(100)) - 256;
  assert.ok(overhead > 60 && overhead < 110, `${overhead} bytes around the content`);
  assert.equal(await size(0), await size(188), 'one size up to 256');
  assert.equal((await size(189)) - (await size(188)), 256);
  const sizes = new Set<number>();
  for (let length = 0; length < 65_000; length += 97) sizes.add(await size(length));
  assert.ok(sizes.size < 100, `${sizes.size} sizes up to 64 KiB`);
});

test('a device that is in no row of a Welcome, and rows of another key, are refused', async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
  const [a] = await groupOf(mandatorySuite, [alice]);
  const bobRow = await keyPackageOf(bob, mandatorySuite);
  const carolRow = await keyPackageOf(carol, mandatorySuite);
  const { welcome } = await alice.mls.addMembers(a, [bobRow.publicBytes]);
  assert.ok(welcome);
  await assert.rejects(
    carol.mls.joinFromWelcome(welcome, [carolRow], carol.signatureKey),
    refused('NO_KEY_PACKAGE'),
  );
  await assert.rejects(
    carol.mls.joinFromWelcome(welcome, [bobRow], carol.signatureKey),
    refused('BAD_STATE'),
  );
});
