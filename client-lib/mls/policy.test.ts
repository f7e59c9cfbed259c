/**
 * The rules of a group: what each role may do, that nothing allowed leaves a group without an owner in
 * it, and that members refuse the commit of a modified client that breaks a rule.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemRandom } from '@quicprochat/proto';
import type { Proposal } from 'ts-mls';
import { unsafeTestingAuthenticationService } from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import { encodeMessage } from './commit.ts';
import { groupContextExtensions, roleOf } from './group-extensions.ts';
import type { GroupContextInfo, QpcGroupInfo, Role } from './group-extensions.ts';
import { stateOf } from './group.ts';
import type { Member, MlsGroup } from './group.ts';
import { acceptCommit, mandatorySuite } from './index.ts';
import { decodeKeyPackage } from './key-package.ts';
import { createCommit, defaultProposalTypes } from './library.ts';
import { effectsOf, ruleBroken } from './policy.ts';
import type { CommitEffects, ParentEpoch } from './policy.ts';
import { clientConfig } from './suite.ts';
import { TestWorld, groupOf, keyPackageOf, refused } from './test-members.ts';
import type { TestDevice } from './test-members.ts';

const users = ['ann', 'bob', 'cid', 'dan', 'eve'].map((name) => `${name}@red.example`);
const [ann = '', bob = '', cid = '', dan = '', eve = ''] = users;

/** A group of users, two devices each, with these roles. */
function epoch(roles: Readonly<Record<string, Role>>, part: Partial<QpcGroupInfo> = {}): Epoch {
  const entries = Object.entries(roles).sort(([a], [b]) => (a < b ? -1 : 1));
  const members = entries.flatMap(([userId], index) => [
    memberOf(userId, index * 2),
    memberOf(userId, index * 2 + 1),
  ]);
  return {
    info: {
      conversationId: new Uint8Array(32),
      name: 'group',
      roles: entries.flatMap(([userId, role]) => (role === 'member' ? [] : [{ userId, role }])),
      expirySeconds: 0,
      joinKeyHash: undefined,
      policyVersion: 1,
      directDevices: 32,
      channelNonce: undefined,
      ...part,
    },
    hubs: ['red.example'],
    members: () => members,
  };
}

type Epoch = ParentEpoch & { readonly info: QpcGroupInfo };

const memberOf = (userId: string, leafIndex: number): Member => ({
  userId,
  deviceId: String.fromCodePoint(97 + leafIndex).repeat(16),
  leafIndex,
  identityPub: new Uint8Array(32).fill(leafIndex),
});

function effects(part: Partial<CommitEffects>): CommitEffects {
  return { added: [], removed: [], context: undefined, ...part };
}

const roles = { [ann]: 'owner', [bob]: 'admin', [cid]: 'member', [dan]: 'admin' } as const;
const parent = epoch(roles);
const all = (userId: string): readonly Member[] =>
  parent.members().filter((member) => member.userId === userId);
const newcomer = { userId: eve, deviceId: 'z'.repeat(16) };

/** The context with other fields and roles. */
function changed(
  part: Partial<QpcGroupInfo>,
  given: Readonly<Record<string, Role>> = roles,
): Partial<CommitEffects> {
  const info = { ...parent.info, ...part, roles: epoch(given).info.roles };
  return { context: { info, hubs: parent.hubs } };
}

test('what each role may do', () => {
  const { info } = parent;
  const hubs = ['a.example', 'b.example', 'c.example'];
  const key = new Uint8Array(32).fill(7);
  const may: readonly (readonly [string, Partial<CommitEffects>, readonly string[]])[] = [
    ['fresh keys', {}, [ann, bob, cid, dan]],
    ['add a stranger', { added: [newcomer] }, [ann, bob, dan]],
    ['add a device of a member', { added: [{ ...newcomer, userId: cid }] }, [ann, bob, cid, dan]],
    ['remove a member', { removed: all(cid) }, [ann, bob, cid, dan]],
    ['remove one device of an admin', { removed: all(bob).slice(1) }, [ann, bob]],
    ['remove an admin and leave the role', { removed: all(bob) }, []],
    [
      'remove an admin with the role',
      { removed: all(bob), ...changed({}, { ...roles, [bob]: 'member' }) },
      [ann, bob],
    ],
    ['remove an owner', { removed: all(ann).slice(1) }, [ann]],
    ['rename', changed({ name: 'other' }), [ann, bob, dan]],
    ['set the timer', changed({ expirySeconds: 60 }), [ann, bob, dan]],
    ['set a join key', changed({ joinKeyHash: key }), [ann, bob, dan]],
    ['make a member admin', changed({}, { ...roles, [cid]: 'admin' }), [ann]],
    ['lower an admin', changed({}, { ...roles, [bob]: 'member' }), [ann, bob]],
    ['raise an admin', changed({}, { ...roles, [bob]: 'owner' }), [ann]],
    ['hand over', changed({}, { ...roles, [ann]: 'member', [dan]: 'owner' }), [ann]],
    ['a role for a stranger', changed({}, { ...roles, [eve]: 'admin' }), []],
    ['move the hub', { context: { info, hubs } }, [ann]],
    ['say the same again', changed({}), [ann, bob, cid, dan]],
    ['take a device out and in again', { removed: all(cid), added: all(cid) }, []],
    ['add and rename', { added: [newcomer], ...changed({ name: 'other' }) }, []],
    ['another conversation', changed({ conversationId: key }), []],
    ['another version of the rules', changed({ policyVersion: 2 }), []],
  ];
  for (const [what, part, who] of may) {
    for (const actor of [ann, bob, cid, dan]) {
      const broken = ruleBroken(parent, actor, effects(part));
      const isMeant = who.includes(actor);
      assert.equal(broken === undefined, isMeant, `${what} by ${actor}: ${broken}`);
    }
  }
  const later = epoch(roles, { policyVersion: 2 });
  assert.match(ruleBroken(later, ann, effects({})) ?? '', /later version/);
});

test('whoever was removed knows the join key: a removal sets another', () => {
  const before = epoch(roles, { joinKeyHash: new Uint8Array(32).fill(1) });
  const removed = before.members().filter(({ userId }) => userId === cid);
  const setting = (joinKeyHash: Uint8Array | undefined): CommitEffects =>
    effects({ removed, context: { info: { ...before.info, joinKeyHash }, hubs: before.hubs } });
  const again = new Uint8Array(32).fill(2);
  for (const actor of [bob, cid]) {
    assert.match(ruleBroken(before, actor, effects({ removed })) ?? '', /join key/);
    assert.match(ruleBroken(before, actor, setting(before.info.joinKeyHash)) ?? '', /join key/);
    assert.equal(ruleBroken(before, actor, setting(again)), undefined);
    assert.equal(ruleBroken(before, actor, setting(undefined)), undefined);
    // Nothing else needs another one.
    assert.equal(ruleBroken(before, actor, effects({})), undefined);
  }
  assert.equal(ruleBroken(before, bob, effects({ added: [newcomer] })), undefined);
});

test('a commit has at most 64 Adds, one context, and Removes of members', async () => {
  const world = new TestWorld();
  const { publicBytes } = await keyPackageOf(world.device('eve'), mandatorySuite);
  const keyPackage = decodeKeyPackage(publicBytes);
  const add: Proposal = { proposalType: defaultProposalTypes.add, add: { keyPackage } };
  const remove = (removed: number): Proposal => ({
    proposalType: defaultProposalTypes.remove,
    remove: { removed },
  });
  const context = contextProposal(parent.info, parent.hubs);
  const of = (...proposals: readonly Proposal[]): CommitEffects | undefined =>
    effectsOf(
      parent.members(),
      proposals.map((proposal) => ({ proposal })),
    );
  const most = of(...Array.from({ length: 64 }, () => add));
  assert.equal(most?.added.length, 64);
  assert.equal(of(...Array.from({ length: 65 }, () => add)), undefined);
  const all3 = of(add, remove(3), context);
  assert.deepEqual(
    [all3?.added[0]?.userId, all3?.removed[0]?.leafIndex, all3?.context?.info.name],
    ['eve@red.example', 3, 'group'],
  );
  assert.equal(of(context, context), undefined);
  assert.equal(of(remove(99)), undefined);
});

const role = fc.constantFrom<Role>('owner', 'admin', 'member');
const someRoles = fc.record(Object.fromEntries(users.map((userId) => [userId, role] as const)), {
  noNullPrototype: true,
  requiredKeys: [ann, bob],
});
const steps = fc.array(
  fc.record({
    actor: fc.constantFrom(...users),
    added: fc.subarray([newcomer], { maxLength: 1 }),
    removed: fc.array(fc.nat({ max: 9 }), { maxLength: 3 }),
    roles: fc.option(someRoles, { nil: undefined }),
    name: fc.constantFrom('group', 'other'),
    hub: fc.constantFrom('red.example', 'blue.example'),
  }),
  { minLength: 1, maxLength: 30 },
);

test('no allowed commit takes the last owner, leaves a role behind, or goes beyond its author', () => {
  fc.assert(
    fc.property(steps, (walk) => {
      let now = epoch({ ...roles, [eve]: 'member' });
      for (const step of walk) {
        if (!now.members().some(({ userId }) => userId === step.actor)) continue;
        const removed = now.members().filter(({ leafIndex }) => step.removed.includes(leafIndex));
        const present = Object.entries(step.roles ?? {});
        const context: GroupContextInfo | undefined =
          step.roles === undefined
            ? undefined
            : {
                info: {
                  ...now.info,
                  name: step.name,
                  roles: present
                    .sort(([a], [b]) => (a < b ? -1 : 1))
                    .flatMap(([userId, kind]) =>
                      kind === 'member' ? [] : [{ userId, role: kind }],
                    ),
                },
                hubs: [step.hub],
              };
        // The codec lets no context without an owner out, or in.
        if (context?.info.roles.every(({ role: kind }) => kind !== 'owner')) continue;
        const wanted = effects({ added: step.added, removed, context });
        if (removed.length === now.members().filter(({ userId }) => userId === step.actor).length)
          continue;
        if (ruleBroken(now, step.actor, wanted) !== undefined) continue;
        const members = now.members().filter((member) => !removed.includes(member));
        const next: Epoch = {
          info: context?.info ?? now.info,
          hubs: context?.hubs ?? now.hubs,
          members: () => members,
        };
        check(now, next, step.actor, wanted);
        now = next;
      }
    }),
    { numRuns: 400 },
  );
});

/** What must hold of an allowed commit, said without the rules. */
function check(
  before: Epoch,
  after: Epoch,
  actor: string,
  { added, removed }: CommitEffects,
): void {
  const inGroup = (userId: string): boolean =>
    after.members().some((member) => member.userId === userId);
  const owners = after.info.roles.filter((entry) => entry.role === 'owner');
  assert.ok(owners.some(({ userId }) => inGroup(userId)));
  assert.ok(after.info.roles.every(({ userId }) => inGroup(userId)));
  const own = roleOf(before.info, actor);
  if (own === 'owner') return;
  assert.deepEqual(after.hubs, before.hubs);
  for (const userId of users) {
    const [was, is] = [roleOf(before.info, userId), roleOf(after.info, userId)];
    if (userId !== actor) assert.equal(is, was);
    assert.ok(is === was || is === 'member' || was === 'owner');
  }
  for (const { userId } of removed) {
    if (userId !== actor) assert.deepEqual([own, roleOf(before.info, userId)], ['admin', 'member']);
  }
  if (own === 'admin') return;
  assert.equal(after.info.name, before.info.name);
  assert.ok(added.every(({ userId }) => userId === actor));
}

const provider = createMlsCryptoProvider({ random: systemRandom });

/** A commit that the library makes, and our adapter would not. */
async function unruly(group: MlsGroup, extraProposals: readonly Proposal[]): Promise<Uint8Array> {
  const { commit } = await createCommit({
    context: {
      cipherSuite: await provider.getCiphersuiteImpl(mandatorySuite),
      authService: unsafeTestingAuthenticationService,
      clientConfig: clientConfig(),
    },
    state: stateOf(group),
    ratchetTreeExtension: true,
    extraProposals: [...extraProposals],
  });
  return encodeMessage(commit);
}

const contextProposal = (info: QpcGroupInfo, hubs: readonly string[]): Proposal => ({
  proposalType: defaultProposalTypes.group_context_extensions,
  groupContextExtensions: { extensions: groupContextExtensions({ info, hubs }) },
});

/** Alice owns, bob is admin, carol and dave are members. */
async function fourMembers(): Promise<{
  readonly world: TestWorld;
  readonly devices: readonly [TestDevice, TestDevice, TestDevice, TestDevice];
  readonly groups: readonly [MlsGroup, MlsGroup, MlsGroup, MlsGroup];
}> {
  const world = new TestWorld();
  const alice = world.device('alice');
  const devices = [
    alice,
    world.device('bob'),
    world.device('carol'),
    world.device('dave'),
  ] as const;
  const [a, b, c, d] = await groupOf(mandatorySuite, [...devices]);
  assert.ok(b && c && d);
  const info: QpcGroupInfo = {
    ...a.info,
    roles: [
      { userId: 'alice@red.example', role: 'owner' },
      { userId: 'bob@red.example', role: 'admin' },
    ],
  };
  const { commit, pending } = await alice.mls.commit(a, { context: { info } });
  const next = await Promise.all(
    [b, c, d].map(async (group, i) => (await devices[i + 1]?.mls.process(group, commit))?.next),
  );
  const [b2, c2, d2] = next;
  assert.ok(b2 && c2 && d2);
  return { world, devices, groups: [acceptCommit(a, pending).next, b2, c2, d2] };
}

test('members refuse what a modified client commits beyond its role, and lose nothing by it', async () => {
  const { world, devices, groups } = await fourMembers();
  const [alice, bobs, carol, dave] = devices;
  const [a, b, c, d] = groups;
  const stranger = await keyPackageOf(world.device('eve'), mandatorySuite);
  const add: Proposal = {
    proposalType: defaultProposalTypes.add,
    add: { keyPackage: decodeKeyPackage(stranger.publicBytes) },
  };
  const remove = (removed: number): Proposal => ({
    proposalType: defaultProposalTypes.remove,
    remove: { removed },
  });
  const owned = (userId: string): QpcGroupInfo => ({
    ...a.info,
    roles: [...a.info.roles, { userId, role: 'owner' }],
  });
  const attacks: readonly (readonly [MlsGroup, readonly Proposal[]])[] = [
    [c, [add]],
    [c, [remove(0)]],
    [c, [remove(3)]],
    [c, [contextProposal({ ...a.info, name: 'stolen' }, a.hubs)]],
    [c, [contextProposal(owned('carol@red.example'), a.hubs)]],
    [b, [remove(0)]],
    [b, [contextProposal(owned('carol@red.example'), a.hubs)]],
    [b, [contextProposal(a.info, ['blue.example'])]],
    [b, [add, contextProposal({ ...a.info, name: 'both' }, a.hubs)]],
    [a, [contextProposal({ ...a.info, conversationId: systemRandom.bytes(32) }, a.hubs)]],
    [a, [remove(1)]],
  ];
  for (const [group, proposals] of attacks) {
    const commit = await unruly(group, proposals);
    await assert.rejects(dave.mls.process(d, commit), refused('NOT_ALLOWED'));
  }
  // Also whoever such a commit would throw out.
  await assert.rejects(alice.mls.process(a, await unruly(c, [remove(0)])), refused('NOT_ALLOWED'));
  // The same epoch goes on with one that is allowed.
  const info = { ...b.info, name: 'renamed', expirySeconds: 3600 };
  const { commit, pending } = await bobs.mls.commit(b, { context: { info } });
  for (const [device, group] of [
    [alice, a],
    [carol, c],
    [dave, d],
  ] as const) {
    const done = await device.mls.process(group, commit);
    assert.deepEqual(done.next.info, info);
    assert.deepEqual(done.next.epochAuthenticator, pending.epochAuthenticator);
  }
});

test('a device judges its own commits by the same rules', async () => {
  const { world, devices, groups } = await fourMembers();
  const [alice, , carol] = devices;
  const [a, , c] = groups;
  const [one, stranger] = [world.device('carol'), world.device('eve')];
  const own = await keyPackageOf(one, mandatorySuite);
  const foreign = await keyPackageOf(stranger, mandatorySuite);
  await assert.rejects(carol.mls.addMembers(c, [foreign.publicBytes]), refused('NOT_ALLOWED'));
  const context = { info: { ...c.info, name: 'x' } };
  await assert.rejects(carol.mls.commit(c, { context }), refused('NOT_ALLOWED'));
  await assert.rejects(alice.mls.removeMembers(a, [1]), refused('NOT_ALLOWED'));
  await assert.rejects(
    alice.mls.commit(a, { context: { info: { ...a.info, roles: [] } } }),
    refused('MALFORMED'),
  );
  // Her second device, invited by herself: nobody else has to be asked.
  const { welcome, commit } = await carol.mls.addMembers(c, [own.publicBytes]);
  assert.ok(welcome);
  const joined = await one.mls.joinFromWelcome(welcome, [own], one.signatureKey);
  const seen = await alice.mls.process(a, commit);
  assert.deepEqual(joined.group.epochAuthenticator, seen.next.epochAuthenticator);
});
