/** What of a commit is wrong for everybody, and what for one member alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, systemRandom as random } from '@quicprochat/proto';
import type { CryptoProvider } from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { createMls, DoubtError, mandatorySuite, MlsError, type Mls } from './index.ts';
import { nodeKeyAt, stateOf } from './group.ts';
import { groupOf, TestWorld } from './test-members.ts';

type Hpke = Awaited<ReturnType<CryptoProvider['getCiphersuiteImpl']>>['hpke'];

/** A client whose commits are made with other HPKE operations. */
function withHpke(world: TestWorld, change: (hpke: Hpke) => Partial<Hpke>): Mls {
  const honest = createMlsCryptoProvider({ random });
  const provider: CryptoProvider = {
    async getCiphersuiteImpl(id) {
      const suite = await honest.getCiphersuiteImpl(id);
      return { ...suite, hpke: { ...suite.hpke, ...change(suite.hpke) } };
    },
  };
  const manifests = (userId: string) => world.manifests.get(userId);
  return createMls({ clock: systemClock, random, manifests, provider, mayCommit: () => true });
}

async function company() {
  const world = new TestWorld();
  const names = ['alice', 'bob', 'carol', 'dave'] as const;
  const [first, ...rest] = names.map((name) => world.device(name));
  assert(first !== undefined);
  const devices = [first, ...rest];
  const groups = await groupOf(mandatorySuite, [first, ...rest]);
  const members = devices.map((device, index) => {
    const group = groups[index];
    assert(group !== undefined);
    return { device, group };
  });
  const hostile = members.at(-1);
  assert(hostile !== undefined);
  return { world, members, hostile, others: members.slice(0, -1) };
}

/** As each of them finds it. */
const verdicts = (
  others: Awaited<ReturnType<typeof company>>['others'],
  commit: Uint8Array,
): Promise<readonly (Error | undefined)[]> =>
  Promise.all(
    others.map(({ device, group }) =>
      device.mls.process(group, commit).then(
        () => undefined,
        (error: unknown) => {
          assert(error instanceof Error);
          return error;
        },
      ),
    ),
  );

test('a path secret that is garbage for one member is no invalid commit for that one', async () => {
  const { world, hostile, others } = await company();
  const [victim] = others;
  assert(victim !== undefined);
  const { ratchetTree } = stateOf(victim.group);
  const key = nodeKeyAt(ratchetTree, 2 * victim.group.ownLeafIndex);
  const mls = withHpke(world, (hpke) => ({
    seal: async (to, plaintext, info, aad) => {
      const isMeant = Buffer.compare(await hpke.exportPublicKey(to), key ?? plaintext) === 0;
      return hpke.seal(to, isMeant ? random.bytes(plaintext.length) : plaintext, info, aad);
    },
  }));
  const { commit } = await mls.rekey(hostile.group);
  const [doubt, ...rest] = await verdicts(others, commit);
  assert(doubt instanceof DoubtError);
  assert.deepEqual(rest, [undefined, undefined]);
  const userOf = (index: number): string | undefined => others[index]?.device.identity.userId;
  assert.equal(doubt.commit.by, hostile.device.identity.userId);
  assert.deepEqual(doubt.commit.voters, [userOf(0), userOf(1), userOf(2)]);
  assert.equal(doubt.author, undefined);
});

test('a key of the path that its secret does not lead to is found by who would need it', async () => {
  const { world, hostile, others } = await company();
  for (const at of [1, 2]) {
    let made = 0;
    const mls = withHpke(world, (hpke) => ({
      deriveKeyPair: async (ikm) => {
        const pair = await hpke.deriveKeyPair(ikm);
        made += 1;
        // The first one is the leaf's.
        if (made !== at + 1) return pair;
        return { ...pair, publicKey: (await hpke.deriveKeyPair(random.bytes(32))).publicKey };
      },
    }));
    const { commit } = await mls.rekey(hostile.group);
    const found = await verdicts(others, commit);
    // Everybody below that node; who is not, has nothing to open with it.
    assert.ok(found.some((error) => error instanceof DoubtError));
    assert.ok(found.every((error) => error === undefined || error instanceof DoubtError));
    if (at === 2) assert.ok(found.every((error) => error instanceof DoubtError));
  }
});

test('what all members see is invalid for all, with the name of who signed it', async () => {
  const { world, hostile, others } = await company();
  const mls = withHpke(world, () => ({}));
  const { commit } = await mls.removeMembers(hostile.group, [0]);
  const torn = Uint8Array.from(commit);
  const last = torn.length - 1;
  torn[last] = (torn[last] ?? 0) ^ 1;
  for (const [bytes, author] of [
    [commit, hostile.device.identity.userId],
    [torn, undefined],
  ] as const) {
    for (const error of await verdicts(others, bytes)) {
      assert(error instanceof MlsError && !(error instanceof DoubtError));
      assert.equal(error.author, author);
    }
  }
});
