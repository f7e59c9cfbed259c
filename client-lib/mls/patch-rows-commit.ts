/**
 * Test support: checks for rows 1-6 of patches/ts-mls+2.0.0-rc.10.patch: when a commit needs a
 * path, to whom and under what it is sealed, and how others follow it. Each holds on the patched
 * library and fails on the published one.
 */
import assert from 'node:assert/strict';
import type { ClientState } from 'ts-mls';
import { RawGroups, agree, at, present } from './patch-harness.ts';
import type { PatchRow } from './patch-harness.ts';

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

/** Rows 1 to 6. */
export const commitRows: readonly PatchRow[] = [
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
];
