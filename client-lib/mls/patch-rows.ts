/**
 * Test support: one check per row of patches/ts-mls+2.0.0-rc.10.patch. Each holds on the
 * patched library and fails on the published one; the numbers are those of docs and patch.
 */
import assert from 'node:assert/strict';
import { systemRandom } from '@quicprochat/proto';
import type { CiphersuiteImpl, ClientState } from 'ts-mls';
import { RawGroups, present, testExtensionType } from './patch-harness.ts';
import type { Library } from './patch-harness.ts';

/** A row: what RFC 9420 asks, and the check. */
export interface PatchRow {
  readonly row: number;
  readonly title: string;
  /** The published library never returns from this one. */
  readonly hangsUnpatched?: true;
  run(library: Library): Promise<void>;
}

function at(states: readonly ClientState[], index: number): ClientState {
  const state = states[index];
  assert.ok(state, `a member at ${index}`);
  return state;
}

function agree(states: readonly ClientState[]): void {
  const [first, ...others] = present(states).map((s) => s.keySchedule.epochAuthenticator);
  for (const other of others) assert.deepEqual(other, first, 'members agree on the epoch');
}

// How many path ciphertexts of a commit the private keys of `member` (in the old epoch) open.
async function openable(
  groups: RawGroups,
  old: ClientState,
  next: ClientState,
  path: NonNullable<ReturnType<RawGroups['pathOf']>>,
  member: ClientState,
): Promise<number> {
  const { deep, tsMls } = groups.library;
  // The provisional context of RFC 9420 section 12.4.1.
  const context = tsMls.encode(deep.groupContextEncoder, {
    ...next.groupContext,
    confirmedTranscriptHash: old.groupContext.confirmedTranscriptHash,
  });
  let opened = 0;
  for (const key of Object.values(member.privatePath.privateKeys)) {
    const privateKey = await groups.cs.hpke.importPrivateKey(key);
    for (const { kemOutput, ciphertext } of path.nodes.flatMap((n) => n.encryptedPathSecret)) {
      try {
        const { hpke } = groups.cs;
        await deep.decryptWithLabel(
          privateKey,
          'UpdatePathNode',
          context,
          kemOutput,
          ciphertext,
          hpke,
        );
        opened++;
      } catch {
        // not for this key: what is being counted
      }
    }
  }
  return opened;
}

export const patchRows: readonly PatchRow[] = [
  {
    row: 1,
    title: 'one Remove and GroupContextExtensions need a path; Adds alone do not (12.4)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(3);
      const withPath = async (...proposals: Parameters<RawGroups['create']>[1]): Promise<boolean> =>
        groups.pathOf((await groups.create(at(states, 0), proposals, true)).commit) !== undefined;
      assert.equal(await withPath(groups.remove(1)), true, 'one Remove');
      assert.equal(await withPath(groups.setExtensions(Uint8Array.of(1))), true, 'extensions');
      assert.equal(await withPath(), true, 'no proposals');
      assert.equal(await withPath(groups.add(await groups.client())), false, 'an Add');
    },
  },
  {
    row: 1,
    title: 'a member removed alone cannot derive the next epoch',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(3);
      const { newState } = await groups.create(at(states, 0), [groups.remove(2)]);
      // All that a commit without a path leaves unknown to a removed member is nothing.
      const zeros = new Uint8Array(groups.cs.kdf.size);
      const { keySchedule } = await library.deep.initializeEpoch(
        at(states, 2).keySchedule.initSecret,
        zeros,
        newState.groupContext,
        zeros,
        groups.cs.kdf,
      );
      assert.notDeepEqual(keySchedule.epochAuthenticator, newState.keySchedule.epochAuthenticator);
    },
  },
  {
    row: 2,
    title:
      'path secrets go to the tree after the proposals, not to a removed or added leaf (12.4.1)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(6);
      const joiner = await groups.client();
      const proposals = [groups.remove(2), groups.remove(4), groups.add(joiner)];
      const { states: next } = await groups.commit(states, 0, proposals, [joiner]);
      assert.equal(present(next).length, 5);
      assert.equal(at(next, 2).groupContext.epoch, 2n, 'the joiner took slot 2');
      agree(next);

      const made = await groups.create(at(states, 0), proposals, true);
      const path = groups.pathOf(made.commit);
      assert.ok(path);
      const count = (index: number): Promise<number> =>
        openable(groups, at(states, 0), made.newState, path, at(states, index));
      assert.equal(await count(2), 0, 'the removed member opens none');
      assert.equal(await count(4), 0, 'the removed member opens none');
      assert.equal(await count(3), 1, 'a remaining one opens its own');
    },
  },
  {
    row: 3,
    title: 'the path is sealed under the new extensions (12.4.1)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(5);
      const proposals = [
        groups.setExtensions(Uint8Array.of(7)),
        groups.remove(1),
        groups.remove(2),
      ];
      const { states: next } = await groups.commit(states, 0, proposals);
      agree(next);
      const [extension] = at(next, 3).groupContext.extensions;
      assert.deepEqual(extension?.extensionData, Uint8Array.of(7));
    },
  },
  {
    row: 3,
    title: 'an empty GroupContextExtensions clears them, none keeps them (12.1.7)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const set = groups.setExtensions(Uint8Array.of(7));
      let { states } = await groups.commit(await groups.group(3), 0, [set]);
      ({ states } = await groups.commit(states, 1, []));
      assert.equal(at(states, 2).groupContext.extensions.length, 1, 'kept');
      ({ states } = await groups.commit(states, 0, [groups.setExtensions()]));
      agree(states);
      assert.equal(at(states, 0).groupContext.extensions.length, 0, 'cleared by the committer');
      assert.equal(at(states, 2).groupContext.extensions.length, 0, 'cleared by the others');
    },
  },
  {
    row: 4,
    title: 'an honest tree whose ancestors list different unmerged leaves is joined (12.4.3.1)',
    async run(library) {
      const groups = await RawGroups.open(library);
      let { states } = await groups.commit(await groups.group(8), 0, [
        groups.remove(3),
        groups.remove(7),
      ]);
      ({ states } = await groups.commit(states, 4, []));
      // Added without a path: node 3 lists leaf 3, node 11 leaf 7, the root both.
      const joiners = [await groups.client(), await groups.client()];
      const adds = joiners.map((client) => groups.add(client));
      ({ states } = await groups.commit(states, 1, adds, joiners));
      agree(states);
      assert.equal(present(states).length, 8);
    },
  },
  {
    row: 4,
    title: 'an unmerged leaf outside the node, or missing in between, is refused (12.4.3.1)',
    async run(library) {
      const groups = await RawGroups.open(library);
      let { states } = await groups.commit(await groups.group(4), 0, []);
      ({ states } = await groups.commit(states, 3, []));
      const state = at(states, 0);
      const verdict = async (nodeIndex: number, unmergedLeaves: number[]): Promise<string> => {
        const ratchetTree = state.ratchetTree.slice();
        const node = ratchetTree[nodeIndex];
        assert.ok(node && 'parent' in node);
        ratchetTree[nodeIndex] = { ...node, parent: { ...node.parent, unmergedLeaves } };
        const error = await library.deep.validateRatchetTree(
          ratchetTree,
          state.groupContext,
          library.tsMls.defaultLifetimeConfig,
          groups.context.authService,
          state.groupContext.treeHash,
          groups.cs,
        );
        return error?.message ?? 'accepted';
      };
      assert.match(await verdict(1, [3]), /non-blank descendant/);
      assert.match(await verdict(3, [0]), /must list leaf node/);
    },
  },
  {
    row: 5,
    title: 'members agree when the other half of the tree is empty (7.4, 12.4.2)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const { states } = await groups.commit(await groups.group(4), 2, [
        groups.remove(0),
        groups.remove(1),
      ]);
      assert.equal(present(states).length, 2);
      agree(states);
      const root = 3;
      assert.equal(at(states, 3).ratchetTree[root], undefined, 'the root is blank');
      assert.ok(!(root in at(states, 3).privatePath.privateKeys), 'and nobody holds a key of it');
      agree((await groups.commit(states, 3, [])).states);
    },
  },
  {
    row: 5,
    title:
      'the commit secret of an empty path is not zero: a removed partner cannot follow (12.4.1)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(2);
      const { newState } = await groups.create(at(states, 0), [groups.remove(1)]);
      const zeros = new Uint8Array(groups.cs.kdf.size);
      const { keySchedule } = await library.deep.initializeEpoch(
        at(states, 1).keySchedule.initSecret,
        zeros,
        newState.groupContext,
        zeros,
        groups.cs.kdf,
      );
      assert.notDeepEqual(keySchedule.epochAuthenticator, newState.keySchedule.epochAuthenticator);
    },
  },
  {
    row: 6,
    title: 'a removed member learns it, though its slot is filled again (12.4.2)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(6);
      const proposals = [groups.remove(2), groups.remove(4), groups.add(await groups.client())];
      const { commit } = await groups.create(at(states, 0), proposals);
      for (const removed of [2, 4]) {
        const { newState } = await groups.process(at(states, removed), commit);
        assert.equal(newState.groupActiveState.kind, 'removedFromGroup');
        assert.equal(newState.groupContext.epoch, 1n, 'and stays in its epoch');
      }
    },
  },
  {
    row: 7,
    title: 'a leaf with the encryption key of another is refused (7.3)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const shared = await groups.cs.hpke.generateKeyPair();
      let keysMade = 0;
      const repeating: CiphersuiteImpl = {
        ...groups.cs,
        hpke: {
          ...groups.cs.hpke,
          // The init key first, the leaf's encryption key second.
          generateKeyPair: async () =>
            keysMade++ % 2 === 0 ? groups.cs.hpke.generateKeyPair() : shared,
        },
      };
      const twins = [await groups.client(repeating), await groups.client(repeating)];
      const states = await groups.group(2);
      await assert.rejects(
        groups.create(
          at(states, 0),
          twins.map((twin) => groups.add(twin)),
        ),
        /hpke keys not unique/,
      );
    },
  },
  {
    row: 7,
    title: 'a leaf with the signature key of another is refused (7.3)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const key = await groups.cs.signature.keygen();
      const repeating: CiphersuiteImpl = {
        ...groups.cs,
        signature: { ...groups.cs.signature, keygen: async () => key },
      };
      const twins = [await groups.client(repeating), await groups.client(repeating)];
      const states = await groups.group(2);
      const context = {
        ...groups.context,
        clientConfig: {
          keyRetentionConfig: library.tsMls.defaultKeyRetentionConfig,
          lifetimeConfig: library.tsMls.defaultLifetimeConfig,
          paddingConfig: library.tsMls.defaultPaddingConfig,
          keyPackageEqualityConfig: {
            compareKeyPackages: () => false,
            compareKeyPackageToLeafNode: () => false,
          },
        },
      };
      await assert.rejects(
        groups.create(
          at(states, 0),
          twins.map((twin) => groups.add(twin)),
          false,
          context,
        ),
        /signature keys not unique/,
      );
    },
  },
  {
    row: 8,
    title: 'a path key that stands anywhere in the tree, or twice in the path, is refused (12.4.2)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(4);
      const path = groups.pathOf((await groups.create(at(states, 0), [], true)).commit);
      assert.ok(path && path.nodes.length === 2);
      const { ratchetTree } = at(states, 1);
      const apply = (key: Uint8Array): Promise<void> => {
        const nodes = path.nodes.with(1, { hpkePublicKey: key, encryptedPathSecret: [] });
        return library.deep.applyUpdatePath(
          ratchetTree.slice(),
          0,
          { ...path, nodes },
          groups.cs.hash,
        );
      };
      const leaf = ratchetTree[6];
      const [node] = path.nodes;
      assert.ok(leaf && 'leaf' in leaf && node);
      for (const key of [
        leaf.leaf.hpkePublicKey,
        node.hpkePublicKey,
        path.leafNode.hpkePublicKey,
      ]) {
        await assert.rejects(apply(key), /may not appear in a node/);
      }
    },
  },
  {
    row: 9,
    title: 'external_pub is a struct with its own length, both ways (12.4.3.2)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(3);
      const { tsMls } = library;
      const withoutTree = await tsMls.createGroupInfoWithExternalPub(at(states, 0), [], groups.cs);
      const groupInfo = await tsMls.createGroupInfoWithExternalPubAndRatchetTree(
        at(states, 0),
        [],
        groups.cs,
      );
      for (const { extensions } of [withoutTree, groupInfo]) {
        const pub = extensions.find(
          (e) => e.extensionType === tsMls.defaultExtensionTypes.external_pub,
        );
        assert.ok(pub);
        assert.equal(pub.extensionData.length, 33);
        assert.equal(pub.extensionData[0], 32);
      }
      const client = await groups.client();
      const joined = await tsMls.joinGroupExternal({
        context: groups.context,
        groupInfo,
        keyPackage: client.publicPackage,
        privateKeys: client.privatePackage,
        resync: false,
      });
      const others = await Promise.all(
        states.map((state) =>
          tsMls.processPublicMessage({
            context: groups.context,
            state,
            publicMessage: joined.publicMessage,
          }),
        ),
      );
      agree([joined.newState, ...others.map(({ newState }) => newState)]);
    },
  },
  {
    row: 10,
    title: 'a resync without an own leaf is an error (12.4.3.2)',
    hangsUnpatched: true,
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(3);
      const client = await groups.client();
      const groupInfo = await library.tsMls.createGroupInfoWithExternalPubAndRatchetTree(
        at(states, 0),
        [],
        groups.cs,
      );
      await assert.rejects(
        library.tsMls.joinGroupExternal({
          context: groups.context,
          groupInfo,
          keyPackage: client.publicPackage,
          privateKeys: client.privatePackage,
          resync: true,
        }),
        library.tsMls.UsageError,
      );
    },
  },
  {
    row: 11,
    title: 'required_capabilities are compared by content (11.2)',
    async run({ deep, tsMls }) {
      const required = (
        ...credentialTypes: number[]
      ): Parameters<typeof deep.extensionsEqual>[0] => [
        {
          extensionType: tsMls.defaultExtensionTypes.required_capabilities,
          extensionData: {
            extensionTypes: [testExtensionType],
            proposalTypes: [],
            credentialTypes,
          },
        },
      ];
      assert.equal(deep.extensionsEqual(required(1), required(1)), true);
      assert.equal(deep.extensionsEqual(required(1), required(2)), false);
    },
  },
  {
    row: 12,
    title: 'sender data that names a blank leaf is refused as such (6.3.2)',
    async run(library) {
      const groups = await RawGroups.open(library);
      const { states } = await groups.commit(await groups.group(4), 0, [
        groups.remove(1),
        groups.remove(2),
      ]);
      const sender = at(states, 3);
      const { contentTypes, defaultPaddingConfig, wireformats, protocolVersions } = library.tsMls;
      const content = {
        contentType: contentTypes.application,
        applicationData: new Uint8Array(3),
        auth: { contentType: contentTypes.application, signature: new Uint8Array(64) },
      };
      const { privateMessage } = await library.deep.protect(
        sender.keySchedule.senderDataSecret,
        new Uint8Array(0),
        sender.groupContext,
        sender.secretTree,
        content,
        2,
        defaultPaddingConfig,
        groups.cs,
      );
      await assert.rejects(
        groups.process(at(states, 0), {
          version: protocolVersions.mls10,
          wireformat: wireformats.mls_private_message,
          privateMessage,
        }),
        /SenderData did not point to a non-blank leaf/,
      );
    },
  },
  {
    row: 13,
    title: 'results name the sending leaf, a join the signer of its Welcome',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(4);
      const message = await library.tsMls.createApplicationMessage({
        context: groups.context,
        state: at(states, 2),
        message: Uint8Array.of(1),
      });
      const opened = await groups.process(at(states, 0), message.message);
      assert.equal(opened.senderLeafIndex, 2);
      for (const asPublicMessage of [false, true]) {
        const client = await groups.client();
        const made = await groups.create(at(states, 3), [groups.add(client)], asPublicMessage);
        assert.equal((await groups.process(at(states, 0), made.commit)).senderLeafIndex, 3);
        assert.ok(made.welcome);
        const joined = await library.tsMls.joinGroupWithExtensions({
          context: groups.context,
          welcome: made.welcome.welcome,
          keyPackage: client.publicPackage,
          privateKeys: client.privatePackage,
        });
        assert.equal(joined.signerLeafIndex, 3);
      }
    },
  },
  {
    row: 13,
    title: 'an external PSK is found for a PrivateMessage too',
    async run(library) {
      const groups = await RawGroups.open(library);
      const states = await groups.group(3);
      const { defaultProposalTypes, pskTypes, bytesToBase64 } = library.tsMls;
      const pskId = Uint8Array.of(1, 2, 3);
      const context = {
        ...groups.context,
        externalPsks: { [bytesToBase64(pskId)]: systemRandom.bytes(32) },
      };
      const psk = {
        proposalType: defaultProposalTypes.psk,
        psk: {
          preSharedKeyId: {
            psktype: pskTypes.external,
            pskId,
            pskNonce: systemRandom.bytes(groups.cs.kdf.size),
          },
        },
      };
      const { commit, newState } = await groups.create(at(states, 0), [psk], false, context);
      agree([newState, (await groups.process(at(states, 1), commit, context)).newState]);
    },
  },
  {
    row: 14,
    title: 'the patch shows itself',
    async run({ tsMls }) {
      assert.equal(Reflect.get(tsMls, 'qpcPatch'), 1);
    },
  },
];
