/**
 * Test support: checks for rows 7-14 of patches/ts-mls+2.0.0-rc.10.patch: keys that must be
 * unique, external commits, comparisons, and what results tell. Each holds on the patched library
 * and fails on the published one.
 */
import assert from 'node:assert/strict';
import { systemRandom } from '@quicprochat/proto';
import type { CiphersuiteImpl } from 'ts-mls';
import { RawGroups, agree, at, testExtensionType } from './patch-harness.ts';
import type { PatchRow } from './patch-harness.ts';

/** Rows 7 to 14. */
export const validationRows: readonly PatchRow[] = [
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
