/**
 * The MLS working group's vectors on the patched library with our provider, suite 1:
 * key-schedule, secret-tree, psk_secret, transcript-hashes, welcome, message-protection.
 */
import assert from 'node:assert/strict';
import { systemRandom } from '@quicprochat/proto';
import { encode, mlsExporter, mlsMessageDecoder, mlsMessageEncoder } from 'ts-mls';
import type { CiphersuiteImpl, GroupContext, MlsMessage } from 'ts-mls';
import type * as AuthenticatedContent from '../../node_modules/ts-mls/dist/src/authenticatedContent.js';
import type * as CommitModule from '../../node_modules/ts-mls/dist/src/commit.js';
import type * as FramedContent from '../../node_modules/ts-mls/dist/src/framedContent.js';
import type * as GroupContextModule from '../../node_modules/ts-mls/dist/src/groupContext.js';
import type * as GroupInfo from '../../node_modules/ts-mls/dist/src/groupInfo.js';
import type * as KeyPackageModule from '../../node_modules/ts-mls/dist/src/keyPackage.js';
import type * as KeySchedule from '../../node_modules/ts-mls/dist/src/keySchedule.js';
import type * as Protection from '../../node_modules/ts-mls/dist/src/messageProtection.js';
import type * as PublicProtection from '../../node_modules/ts-mls/dist/src/messageProtectionPublic.js';
import type * as Proposal from '../../node_modules/ts-mls/dist/src/proposal.js';
import type * as PskIndex from '../../node_modules/ts-mls/dist/src/pskIndex.js';
import type * as SecretTree from '../../node_modules/ts-mls/dist/src/secretTree.js';
import type * as Sender from '../../node_modules/ts-mls/dist/src/sender.js';
import type * as TranscriptHash from '../../node_modules/ts-mls/dist/src/transcriptHash.js';
import type * as Welcome from '../../node_modules/ts-mls/dist/src/welcome.js';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { hex, specTest, toHex } from '../crypto/spec-vectors.ts';
import { contentTypes, wireformats } from './library.ts';
import { RawGroups, innerModule, patchedLibrary } from './patch-harness.ts';

const keySchedule = (await innerModule('keySchedule.js')) as typeof KeySchedule;
const { extractJoinerSecret, groupContextEncoder } = (await innerModule(
  'groupContext.js',
)) as typeof GroupContextModule;
const secretTree = (await innerModule('secretTree.js')) as typeof SecretTree;
const sender = (await innerModule('sender.js')) as typeof Sender;
const { accumulatePskSecret } = (await innerModule('pskIndex.js')) as typeof PskIndex;
const transcript = (await innerModule('transcriptHash.js')) as typeof TranscriptHash;
const { authenticatedContentDecoder } = (await innerModule(
  'authenticatedContent.js',
)) as typeof AuthenticatedContent;
const welcomes = (await innerModule('welcome.js')) as typeof Welcome;
const groupInfo = (await innerModule('groupInfo.js')) as typeof GroupInfo;
const { makeKeyPackageRef } = (await innerModule('keyPackage.js')) as typeof KeyPackageModule;
const protection = (await innerModule('messageProtection.js')) as typeof Protection;
const publicProtection = (await innerModule(
  'messageProtectionPublic.js',
)) as typeof PublicProtection;
const framed = (await innerModule('framedContent.js')) as typeof FramedContent;
const { proposalDecoder, proposalEncoder } = (await innerModule('proposal.js')) as typeof Proposal;
const { commitDecoder, commitEncoder } = (await innerModule('commit.js')) as typeof CommitModule;

const cs: CiphersuiteImpl = await createMlsCryptoProvider({
  random: systemRandom,
}).getCiphersuiteImpl(1);

interface Case {
  readonly cipher_suite: number;
}

/** The cases of suite 1; a file without any would prove nothing. */
function suiteOne<T extends Case>(cases: readonly T[]): T[] {
  const ours = cases.filter(({ cipher_suite }) => cipher_suite === 1);
  assert.ok(ours.length > 0);
  return ours;
}

function message(encoded: string): MlsMessage {
  const decoded = mlsMessageDecoder(hex(encoded), 0)?.[0];
  assert.ok(decoded);
  assert.equal(toHex(encode(mlsMessageEncoder, decoded)), encoded);
  return decoded;
}

interface KeyScheduleCase extends Case {
  group_id: string;
  initial_init_secret: string;
  epochs: (Record<string, string> & {
    exporter: { label: string; context: string; length: number; secret: string };
  })[];
}

specTest<KeyScheduleCase[]>(
  'RFC 9420 key-schedule',
  'rfc9420-vectors/key-schedule.json',
  async (cases) => {
    for (const v of suiteOne(cases)) {
      let initSecret = hex(v.initial_init_secret);
      for (const [i, e] of v.epochs.entries()) {
        const field = (name: string): Uint8Array => hex(String(e[name]));
        const context: GroupContext = {
          version: 1,
          cipherSuite: 1,
          groupId: hex(v.group_id),
          epoch: BigInt(i),
          treeHash: field('tree_hash'),
          confirmedTranscriptHash: field('confirmed_transcript_hash'),
          extensions: [],
        };
        assert.equal(toHex(encode(groupContextEncoder, context)), e['group_context']);
        const joiner = await extractJoinerSecret(
          context,
          initSecret,
          field('commit_secret'),
          cs.kdf,
        );
        assert.equal(toHex(joiner), e['joiner_secret']);
        const epoch = await keySchedule.initializeEpoch(
          initSecret,
          field('commit_secret'),
          context,
          field('psk_secret'),
          cs.kdf,
        );
        const keys = epoch.keySchedule;
        const computed = {
          welcome_secret: epoch.welcomeSecret,
          encryption_secret: epoch.encryptionSecret,
          init_secret: keys.initSecret,
          sender_data_secret: keys.senderDataSecret,
          exporter_secret: keys.exporterSecret,
          epoch_authenticator: keys.epochAuthenticator,
          external_secret: keys.externalSecret,
          confirmation_key: keys.confirmationKey,
          membership_key: keys.membershipKey,
          resumption_psk: keys.resumptionPsk,
        };
        for (const [name, value] of Object.entries(computed)) {
          assert.equal(toHex(value), e[name], name);
        }
        const external = await cs.hpke.deriveKeyPair(keys.externalSecret);
        assert.equal(toHex(await cs.hpke.exportPublicKey(external.publicKey)), e['external_pub']);
        const { label, context: exporterContext, length, secret } = e.exporter;
        const exported = await mlsExporter(
          keys.exporterSecret,
          label,
          hex(exporterContext),
          length,
          cs,
        );
        assert.equal(toHex(exported), secret);
        initSecret = keys.initSecret;
      }
    }
  },
);

interface SecretTreeCase extends Case {
  sender_data: { sender_data_secret: string; ciphertext: string; key: string; nonce: string };
  encryption_secret: string;
  leaves: {
    generation: number;
    handshake_key: string;
    handshake_nonce: string;
    application_key: string;
    application_nonce: string;
  }[][];
}

specTest<SecretTreeCase[]>(
  'RFC 9420 secret-tree',
  'rfc9420-vectors/secret-tree.json',
  async (cases) => {
    for (const v of suiteOne(cases)) {
      const { sender_data_secret: secret, ciphertext, key, nonce } = v.sender_data;
      const data = [cs, hex(secret), hex(ciphertext)] as const;
      assert.equal(toHex(await sender.expandSenderDataKey(...data)), key);
      assert.equal(toHex(await sender.expandSenderDataNonce(...data)), nonce);
      const config = {
        retainKeysForGenerations: 10,
        retainKeysForEpochs: 1,
        maximumForwardRatchetSteps: 1000,
      };
      let tree = secretTree.createSecretTree(v.leaves.length, hex(v.encryption_secret));
      for (const [leafIndex, generations] of v.leaves.entries()) {
        for (const g of generations) {
          for (const [contentType, wantedKey, wantedNonce] of [
            [contentTypes.commit, g.handshake_key, g.handshake_nonce],
            [contentTypes.application, g.application_key, g.application_nonce],
          ] as const) {
            const result = await secretTree.ratchetToGeneration(
              tree,
              { leafIndex, generation: g.generation, reuseGuard: noGuard },
              contentType,
              config,
              cs,
            );
            assert.equal(toHex(result.key), wantedKey);
            assert.equal(toHex(result.nonce), wantedNonce);
            tree = result.newTree;
          }
        }
      }
    }
  },
);

type ReuseGuard = Parameters<typeof secretTree.ratchetToGeneration>[1]['reuseGuard'];
const noGuard: ReuseGuard = new Uint8Array(4) as ReuseGuard;

interface PskCase extends Case {
  psks: { psk_id: string; psk: string; psk_nonce: string }[];
  psk_secret: string;
}

specTest<PskCase[]>('RFC 9420 psk_secret', 'rfc9420-vectors/psk_secret.json', async (cases) => {
  for (const v of suiteOne(cases)) {
    const ids = v.psks.map(({ psk_id, psk_nonce }) => ({
      psktype: 1 as const,
      pskId: hex(psk_id),
      pskNonce: hex(psk_nonce),
    }));
    const known = new Map(v.psks.map(({ psk_id, psk }) => [psk_id, hex(psk)]));
    const search: Parameters<typeof accumulatePskSecret>[1] = {
      findPsk: (id) => ('pskId' in id ? known.get(toHex(id.pskId)) : undefined),
    };
    const [secret] = await accumulatePskSecret(ids, search, cs, new Uint8Array(cs.kdf.size));
    assert.equal(toHex(secret), v.psk_secret);
  }
});

interface TranscriptCase extends Case {
  confirmation_key: string;
  authenticated_content: string;
  interim_transcript_hash_before: string;
  confirmed_transcript_hash_after: string;
  interim_transcript_hash_after: string;
}

specTest<TranscriptCase[]>(
  'RFC 9420 transcript-hashes',
  'rfc9420-vectors/transcript-hashes.json',
  async (cases) => {
    for (const v of suiteOne(cases)) {
      const decoded = authenticatedContentDecoder(hex(v.authenticated_content), 0)?.[0];
      assert.ok(decoded);
      const { content, auth, wireformat } = decoded;
      assert.ok(content.contentType === contentTypes.commit && 'confirmationTag' in auth);
      const confirmed = await transcript.createConfirmedHash(
        hex(v.interim_transcript_hash_before),
        { wireformat, content, signature: auth.signature },
        cs.hash,
      );
      assert.equal(toHex(confirmed), v.confirmed_transcript_hash_after);
      assert.ok(
        await framed.verifyConfirmationTag(
          hex(v.confirmation_key),
          auth.confirmationTag,
          confirmed,
          cs.hash,
        ),
      );
      const interim = await transcript.createInterimHash(confirmed, auth.confirmationTag, cs.hash);
      assert.equal(toHex(interim), v.interim_transcript_hash_after);
    }
  },
);

interface WelcomeCase extends Case {
  init_priv: string;
  signer_pub: string;
  key_package: string;
  welcome: string;
}

specTest<WelcomeCase[]>('RFC 9420 welcome', 'rfc9420-vectors/welcome.json', async (cases) => {
  for (const v of suiteOne(cases)) {
    const keyPackage = message(v.key_package);
    const welcome = message(v.welcome);
    assert.ok('keyPackage' in keyPackage && 'welcome' in welcome);
    const ref = await makeKeyPackageRef(keyPackage.keyPackage, cs.hash);
    const privateKey = await cs.hpke.importPrivateKey(hex(v.init_priv));
    const secrets = await welcomes.decryptGroupSecrets(privateKey, ref, welcome.welcome, cs.hpke);
    assert.ok(secrets);
    const psk = new Uint8Array(cs.kdf.size);
    const info = await welcomes.decryptGroupInfo(welcome.welcome, secrets.joinerSecret, psk, cs);
    assert.ok(info);
    assert.ok(await groupInfo.verifyGroupInfoSignature(info, hex(v.signer_pub), cs.signature));
    assert.ok(await groupInfo.verifyGroupInfoConfirmationTag(info, secrets.joinerSecret, psk, cs));
  }
});

interface ProtectionCase extends Case {
  epoch: number;
  [field: string]: string | number;
}

specTest<ProtectionCase[]>(
  'RFC 9420 message-protection',
  'rfc9420-vectors/message-protection.json',
  async (cases) => {
    // Somebody has to be at leaf 1; the vectors' own signature key is passed beside the tree.
    const [member] = await (await RawGroups.open(await patchedLibrary())).group(2);
    assert.ok(member);
    const { ratchetTree } = member;
    const leafIndex = 1;
    for (const v of suiteOne(cases)) {
      const field = (name: string): Uint8Array => hex(String(v[name]));
      const context: GroupContext = {
        version: 1,
        cipherSuite: 1,
        groupId: field('group_id'),
        epoch: BigInt(v.epoch),
        treeHash: field('tree_hash'),
        confirmedTranscriptHash: field('confirmed_transcript_hash'),
        extensions: [],
      };
      const signKey = field('signature_priv');
      const senderDataSecret = field('sender_data_secret');
      const membershipKey = field('membership_key');
      const tree = secretTree.createSecretTree(2, field('encryption_secret'));
      const padding = { kind: 'padUntilLength', padUntilLength: 256 } as const;
      const config = {
        retainKeysForGenerations: 10,
        retainKeysForEpochs: 1,
        maximumForwardRatchetSteps: 10,
      };
      type Private = Parameters<typeof protection.unprotectPrivateMessage>[1];
      const openPrivate = async (privateMessage: Private): Promise<string> => {
        const { content } = await protection.unprotectPrivateMessage(
          senderDataSecret,
          privateMessage,
          tree,
          ratchetTree,
          context,
          config,
          cs,
          field('signature_pub'),
        );
        return contentOf(content.content);
      };
      type Public = Parameters<typeof publicProtection.unprotectPublicMessage>[3];
      const openPublic = async (publicMessage: Public): Promise<string> => {
        const { content } = await publicProtection.unprotectPublicMessage(
          membershipKey,
          context,
          ratchetTree,
          publicMessage,
          cs,
          field('signature_pub'),
        );
        return contentOf(content);
      };

      for (const kind of ['proposal', 'commit', 'application']) {
        const sealed = message(String(v[`${kind}_priv`]));
        assert.ok('privateMessage' in sealed);
        assert.equal(await openPrivate(sealed.privateMessage), v[kind], kind);
        if (kind === 'application') continue;
        const shown = message(String(v[`${kind}_pub`]));
        assert.ok('publicMessage' in shown);
        assert.equal(await openPublic(shown.publicMessage), v[kind], kind);
      }

      const application = await protection.protectApplicationData(
        signKey,
        senderDataSecret,
        field('application'),
        new Uint8Array(0),
        context,
        tree,
        leafIndex,
        padding,
        cs,
      );
      assert.equal(await openPrivate(application.privateMessage), v['application']);

      const proposal = proposalDecoder(field('proposal'), 0)?.[0];
      assert.ok(proposal);
      const aad = systemRandom.bytes(4);
      const privately = await protection.protectProposal(
        signKey,
        senderDataSecret,
        proposal,
        aad,
        context,
        tree,
        leafIndex,
        padding,
        cs,
      );
      assert.equal(await openPrivate(privately.privateMessage), v['proposal']);
      const publicly = await publicProtection.protectProposalPublic(
        signKey,
        membershipKey,
        context,
        aad,
        proposal,
        leafIndex,
        cs,
      );
      assert.equal(await openPublic(publicly.publicMessage), v['proposal']);

      const commit = commitDecoder(field('commit'), 0)?.[0];
      assert.ok(commit);
      for (const wireformat of ['mls_private_message', 'mls_public_message'] as const) {
        const { framedContent, signature } = await framed.createContentCommitSignature(
          context,
          wireformat,
          commit,
          { senderType: 1, leafIndex },
          aad,
          signKey,
          cs.signature,
        );
        const auth = {
          contentType: contentTypes.commit,
          signature,
          confirmationTag: systemRandom.bytes(32),
        };
        if (wireformat === 'mls_private_message') {
          const result = await protection.protect(
            senderDataSecret,
            aad,
            context,
            tree,
            { ...framedContent, auth },
            leafIndex,
            padding,
            cs,
          );
          assert.equal(await openPrivate(result.privateMessage), v['commit']);
        } else {
          const authenticated = {
            wireformat: wireformats.mls_public_message,
            content: framedContent,
            auth,
          };
          const result = await publicProtection.protectPublicMessage(
            membershipKey,
            context,
            authenticated,
            cs,
          );
          assert.equal(await openPublic(result), v['commit']);
        }
      }
    }
  },
);

/** The raw content of a message as the vectors write it. */
function contentOf(content: FramedContent.FramedContent): string {
  switch (content.contentType) {
    case contentTypes.application:
      return toHex(content.applicationData);
    case contentTypes.proposal:
      return toHex(encode(proposalEncoder, content.proposal));
    case contentTypes.commit:
      return toHex(encode(commitEncoder, content.commit));
    default:
      throw new Error('a content type beyond RFC 9420');
  }
}
