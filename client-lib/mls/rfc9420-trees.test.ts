/**
 * The MLS working group's vectors on the patched library with our provider, suite 1: tree-math,
 * tree-operations, tree-validation, treekem, messages, deserialization.
 */
import assert from 'node:assert/strict';
import { systemRandom } from '@quicprochat/proto';
import { encode, mlsMessageDecoder, mlsMessageEncoder } from 'ts-mls';
import type {
  CiphersuiteImpl,
  Decoder,
  Encoder,
  GroupContext,
  PrivateKeyPath,
  RatchetTree,
} from 'ts-mls';
import type * as CommitModule from '../../node_modules/ts-mls/dist/src/commit.js';
import type * as CreateCommit from '../../node_modules/ts-mls/dist/src/createCommit.js';
import type * as GroupSecrets from '../../node_modules/ts-mls/dist/src/groupSecrets.js';
import type * as KdfModule from '../../node_modules/ts-mls/dist/src/crypto/kdf.js';
import type * as LeafNode from '../../node_modules/ts-mls/dist/src/leafNode.js';
import type * as ParentHash from '../../node_modules/ts-mls/dist/src/parentHash.js';
import type * as PathSecrets from '../../node_modules/ts-mls/dist/src/pathSecrets.js';
import type * as PrivateKeyPathModule from '../../node_modules/ts-mls/dist/src/privateKeyPath.js';
import type * as Proposal from '../../node_modules/ts-mls/dist/src/proposal.js';
import type * as Tree from '../../node_modules/ts-mls/dist/src/ratchetTree.js';
import type * as TreeHash from '../../node_modules/ts-mls/dist/src/treeHash.js';
import type * as TreeMath from '../../node_modules/ts-mls/dist/src/treemath.js';
import type * as UpdatePath from '../../node_modules/ts-mls/dist/src/updatePath.js';
import type * as VariableLength from '../../node_modules/ts-mls/dist/src/codec/variableLength.js';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { hex, specTest, toHex } from '../crypto/spec-vectors.ts';
import { innerModule } from './patch-harness.ts';

const math = (await innerModule('treemath.js')) as typeof TreeMath;
const trees = (await innerModule('ratchetTree.js')) as typeof Tree;
const { treeHash, treeHashRoot } = (await innerModule('treeHash.js')) as typeof TreeHash;
const { verifyParentHashes } = (await innerModule('parentHash.js')) as typeof ParentHash;
const { verifyLeafNodeSignature } = (await innerModule('leafNode.js')) as typeof LeafNode;
const paths = (await innerModule('updatePath.js')) as typeof UpdatePath;
const { applyUpdatePathSecret } = (await innerModule('createCommit.js')) as typeof CreateCommit;
const { pathToRoot } = (await innerModule('pathSecrets.js')) as typeof PathSecrets;
const keyPaths = (await innerModule('privateKeyPath.js')) as typeof PrivateKeyPathModule;
const { deriveSecret } = (await innerModule('crypto/kdf.js')) as typeof KdfModule;
const proposals = (await innerModule('proposal.js')) as typeof Proposal;
const commits = (await innerModule('commit.js')) as typeof CommitModule;
const groupSecrets = (await innerModule('groupSecrets.js')) as typeof GroupSecrets;
const { determineLength } = (await innerModule('codec/variableLength.js')) as typeof VariableLength;

const cs: CiphersuiteImpl = await createMlsCryptoProvider({
  random: systemRandom,
}).getCiphersuiteImpl(1);

function decoded<T>(decoder: Decoder<T>, encoded: string): T {
  const value = decoder(hex(encoded), 0)?.[0];
  assert.ok(value !== undefined);
  return value;
}

interface TreeMathCase {
  n_leaves: number;
  n_nodes: number;
  root: number;
  left: (number | null)[];
  right: (number | null)[];
  parent: (number | null)[];
  sibling: (number | null)[];
}

specTest<TreeMathCase[]>('RFC 9420 tree-math', 'rfc9420-vectors/tree-math.json', (cases) => {
  for (const v of cases) {
    assert.equal(math.nodeWidth(v.n_leaves), v.n_nodes);
    assert.equal(math.root(v.n_leaves), v.root);
    for (let i = 0; i < v.n_nodes; i++) {
      const node = math.toNodeIndex(i);
      if (v.left[i] !== null) assert.equal(math.left(node), v.left[i]);
      if (v.right[i] !== null) assert.equal(math.right(node), v.right[i]);
      if (v.parent[i] !== null) assert.equal(math.parent(node, v.n_leaves), v.parent[i]);
      if (v.sibling[i] !== null) assert.equal(math.sibling(node, v.n_leaves), v.sibling[i]);
    }
  }
});

interface TreeOperationCase {
  cipher_suite: number;
  tree_before: string;
  proposal: string;
  proposal_sender: number;
  tree_hash_before: string;
  tree_after: string;
  tree_hash_after: string;
}

specTest<TreeOperationCase[]>(
  'RFC 9420 tree-operations',
  'rfc9420-vectors/tree-operations.json',
  async (cases) => {
    for (const v of cases) {
      assert.equal(v.cipher_suite, 1);
      const tree = decoded(trees.ratchetTreeDecoder, v.tree_before);
      assert.equal(toHex(await treeHashRoot(tree, cs.hash)), v.tree_hash_before);
      const proposal = decoded(proposals.proposalDecoder, v.proposal);
      if ('add' in proposal) trees.addLeafNodeMutable(tree, proposal.add.keyPackage.leafNode);
      else if ('update' in proposal) {
        const sender = math.toLeafIndex(v.proposal_sender);
        trees.updateLeafNodeMutable(tree, proposal.update.leafNode, sender);
      } else if ('remove' in proposal) {
        trees.removeLeafNodeMutable(tree, math.toLeafIndex(proposal.remove.removed));
      } else assert.fail('another kind of proposal');
      assert.equal(toHex(encode(trees.ratchetTreeEncoder, tree)), v.tree_after);
      assert.equal(toHex(await treeHashRoot(tree, cs.hash)), v.tree_hash_after);
    }
  },
);

interface TreeValidationCase {
  cipher_suite: number;
  tree: string;
  group_id: string;
  resolutions: number[][];
  tree_hashes: string[];
}

specTest<TreeValidationCase[]>(
  'RFC 9420 tree-validation',
  'rfc9420-vectors/tree-validation.json',
  async (all) => {
    const cases = all.filter(({ cipher_suite }) => cipher_suite === 1);
    assert.ok(cases.length > 10);
    for (const v of cases) {
      const tree = decoded(trees.ratchetTreeDecoder, v.tree);
      assert.equal(tree.length, v.tree_hashes.length);
      for (const [i, node] of tree.entries()) {
        const index = math.toNodeIndex(i);
        assert.deepEqual(trees.resolution(tree, index), v.resolutions[i]);
        assert.equal(toHex(await treeHash(tree, index, cs.hash)), v.tree_hashes[i]);
        if (node !== undefined && 'leaf' in node) {
          const valid = verifyLeafNodeSignature(node.leaf, hex(v.group_id), i / 2, cs.signature);
          assert.ok(await valid, `leaf ${i / 2}`);
        }
      }
      assert.ok(await verifyParentHashes(tree, cs.hash));
    }
  },
);

interface TreeKemCase {
  cipher_suite: number;
  group_id: string;
  epoch: number;
  confirmed_transcript_hash: string;
  ratchet_tree: string;
  leaves_private: {
    index: number;
    encryption_priv: string;
    signature_priv: string;
    path_secrets: { node: number; path_secret: string }[];
  }[];
  update_paths: {
    sender: number;
    update_path: string;
    path_secrets: (string | null)[];
    commit_secret: string;
    tree_hash_after: string;
  }[];
}

specTest<TreeKemCase[]>('RFC 9420 treekem', 'rfc9420-vectors/treekem.json', async (all) => {
  const cases = all.filter(({ cipher_suite }) => cipher_suite === 1);
  assert.ok(cases.length > 5);
  for (const v of cases) {
    const tree = decoded(trees.ratchetTreeDecoder, v.ratchet_tree);
    const context: GroupContext = {
      version: 1,
      cipherSuite: 1,
      groupId: hex(v.group_id),
      epoch: BigInt(v.epoch),
      treeHash: await treeHashRoot(tree, cs.hash),
      confirmedTranscriptHash: hex(v.confirmed_transcript_hash),
      extensions: [],
    };
    const members = new Map<number, PrivateKeyPath>();
    for (const leaf of v.leaves_private) members.set(leaf.index, await privatePath(tree, leaf));

    for (const update of v.update_paths) {
      const sender = math.toLeafIndex(update.sender);
      const path = decoded(paths.updatePathDecoder, update.update_path);
      for (const [index, own] of members) {
        if (index === update.sender) continue;
        const merged = tree.slice();
        await paths.applyUpdatePath(merged, sender, path, cs.hash);
        const newTreeHash = await treeHashRoot(merged, cs.hash);
        assert.equal(toHex(newTreeHash), update.tree_hash_after);
        const provisional = { ...context, treeHash: newTreeHash };
        const opened = await applyUpdatePathSecret(merged, own, sender, provisional, path, [], cs);
        assert.equal(toHex(opened.pathSecret), update.path_secrets[index]);
        const secret = await commitSecret(merged, sender, opened);
        assert.equal(toHex(secret), update.commit_secret);
      }
      await newPath(v, tree, context, members, update.sender);
    }
  }
});

// The private state of a leaf; each key must fit the public one in the tree.
async function privatePath(
  tree: RatchetTree,
  leaf: TreeKemCase['leaves_private'][number],
): Promise<PrivateKeyPath> {
  const secrets = Object.fromEntries(
    leaf.path_secrets.map(({ node, path_secret }) => [node, hex(path_secret)]),
  );
  const path = keyPaths.mergePrivateKeyPaths(
    await keyPaths.toPrivateKeyPath(secrets, leaf.index, cs),
    { leafIndex: leaf.index, privateKeys: { [leaf.index * 2]: hex(leaf.encryption_priv) } },
  );
  const probe = Uint8Array.of(1, 2, 3);
  for (const [nodeIndex, key] of Object.entries(path.privateKeys)) {
    const node = tree[Number(nodeIndex)];
    assert.ok(node, 'not blank');
    const publicKey = await cs.hpke.importPublicKey(trees.getHpkePublicKey(node));
    const { enc, ct } = await cs.hpke.seal(publicKey, probe, probe);
    const privateKey = await cs.hpke.importPrivateKey(key);
    assert.deepEqual(await cs.hpke.open(privateKey, enc, ct, probe), probe);
  }
  return path;
}

// As a receiver derives it: up to the last node of the sender's filtered direct path.
async function commitSecret(
  tree: RatchetTree,
  sender: TreeMath.LeafIndex,
  opened: { nodeIndex: TreeMath.NodeIndex; pathSecret: Uint8Array },
): Promise<Uint8Array> {
  const secrets = await pathToRoot(tree, opened.nodeIndex, opened.pathSecret, cs.kdf);
  const last = secrets[trees.filteredDirectPath(sender, tree).at(-1) ?? -1];
  assert.ok(last);
  return deriveSecret(last, 'path', cs.kdf);
}

// A path of our own making, which every other member must be able to follow.
async function newPath(
  v: TreeKemCase,
  tree: RatchetTree,
  context: GroupContext,
  members: ReadonlyMap<number, PrivateKeyPath>,
  senderIndex: number,
): Promise<void> {
  const sender = math.toLeafIndex(senderIndex);
  const signer = v.leaves_private.find(({ index }) => index === senderIndex);
  assert.ok(signer);
  // The last element is our patch's: the secret that the commit secret comes from.
  const made: readonly unknown[] = await Reflect.apply(paths.createUpdatePath, undefined, [
    [],
    tree.slice(),
    sender,
    { ...context, epoch: context.epoch - 1n },
    hex(signer.signature_priv),
    cs,
  ]);
  const [, path, , , lastSecret] = made as [
    unknown,
    UpdatePath.UpdatePath,
    unknown,
    unknown,
    Uint8Array,
  ];
  const wanted = toHex(await deriveSecret(lastSecret, 'path', cs.kdf));
  for (const [index, own] of members) {
    if (index === senderIndex) continue;
    const merged = tree.slice();
    await paths.applyUpdatePath(merged, sender, path, cs.hash);
    const provisional = { ...context, treeHash: await treeHashRoot(merged, cs.hash) };
    const opened = await applyUpdatePathSecret(merged, own, sender, provisional, path, [], cs);
    assert.equal(toHex(await commitSecret(merged, sender, opened)), wanted);
  }
}

specTest<Record<string, string>[]>(
  'RFC 9420 messages: everything decodes and encodes back',
  'rfc9420-vectors/messages.json',
  (all) => {
    const roundTrip = <T>(decoder: Decoder<T>, encoder: Encoder<T>, encoded: string): void => {
      assert.equal(toHex(encode(encoder, decoded(decoder, encoded))), encoded);
    };
    const bodies = {
      add_proposal: [proposals.addDecoder, proposals.addEncoder],
      update_proposal: [proposals.updateDecoder, proposals.updateEncoder],
      remove_proposal: [proposals.removeDecoder, proposals.removeEncoder],
      pre_shared_key_proposal: [proposals.pskDecoder, proposals.pskEncoder],
      re_init_proposal: [proposals.reinitDecoder, proposals.reinitEncoder],
      external_init_proposal: [proposals.externalInitDecoder, proposals.externalInitEncoder],
      group_context_extensions_proposal: [
        proposals.groupContextExtensionsDecoder,
        proposals.groupContextExtensionsEncoder,
      ],
      commit: [commits.commitDecoder, commits.commitEncoder],
      ratchet_tree: [trees.ratchetTreeDecoder, trees.ratchetTreeEncoder],
      group_secrets: [groupSecrets.groupSecretsDecoder, groupSecrets.groupSecretsEncoder],
    } as unknown as Record<string, [Decoder<unknown>, Encoder<unknown>] | undefined>;
    assert.equal(all.length, 300);
    for (const v of all) {
      for (const [name, encoded] of Object.entries(v)) {
        const [decoder, encoder] = bodies[name] ?? [mlsMessageDecoder, mlsMessageEncoder];
        roundTrip(decoder, encoder as Encoder<unknown>, encoded);
      }
    }
  },
);

specTest<{ vlbytes_header: string; length: number }[]>(
  'RFC 9420 deserialization of vector lengths',
  'rfc9420-vectors/deserialization.json',
  (cases) => {
    for (const { vlbytes_header, length } of cases) {
      const header = hex(vlbytes_header);
      assert.deepEqual(determineLength(header), { length, lengthFieldSize: header.length });
    }
  },
);
