/** A group all of whose owners gave up their keys: who inherits it, who may say so, and what is believed of that. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { continuityBroken } from './continuity.ts';
import { roleOf, type GroupContextInfo } from './group-extensions.ts';
import type { Member, MlsGroup } from './group.ts';
import { acceptCommit, CredentialError, mandatorySuite } from './index.ts';
import { isSuccession, notRevoked, successionOf } from './succession.ts';
import { groupOf, refused, TestWorld, type TestDevice } from './test-members.ts';

type Devices = readonly [TestDevice, TestDevice, TestDevice, TestDevice, TestDevice];
type Groups = readonly [MlsGroup, MlsGroup, MlsGroup, MlsGroup, MlsGroup];

/** alice owns the group with two devices; bob, carol and dave are members. */
async function rig(admin?: 'carol') {
  const world = new TestWorld();
  const names = ['alice', 'alice', 'bob', 'carol', 'dave'];
  const devices = names.map((name) => world.device(name)) as unknown as Devices;
  let groups = (await groupOf(mandatorySuite, [...devices])) as unknown as Groups;
  if (admin !== undefined) {
    const { info, hubs } = groups[0];
    const roles = [...info.roles, { userId: 'carol@red.example', role: 'admin' as const }];
    const made = await devices[0].mls.commit(groups[0], {
      context: { info: { ...info, roles }, hubs },
    });
    const others = devices.slice(1).map(async (device, index) => {
      const group = groups[index + 1];
      assert(group !== undefined);
      return (await device.mls.process(group, made.commit)).next;
    });
    groups = [acceptCommit(groups[0], made.pending).next, ...(await Promise.all(others))] as never;
  }
  const revoke = (...which: readonly TestDevice[]): void => {
    for (const { identity, signatureKey } of which) {
      world.manifests.get(identity.userId)?.revoked.push(signatureKey.publicKey);
    }
  };
  return { world, devices, groups, revoke };
}

function wantedOf(group: MlsGroup) {
  const wanted = successionOf(group);
  assert(wanted !== undefined);
  return { ...wanted, remove: wanted.removed.map(({ leafIndex }) => leafIndex) };
}

const isRefused =
  (reason: string, failure: string) =>
  (error: unknown): boolean =>
    error instanceof CredentialError &&
    error.reason === reason &&
    error.failures.every((one) => one.reason === failure);

test('an admin inherits, else the leftmost member, whoever of the others commits it', async () => {
  for (const admin of [undefined, 'carol'] as const) {
    const { devices, groups, revoke } = await rig(admin);
    const [one, two, bob, , dave] = devices;
    const { heir, remove, context } = wantedOf(groups[4]);
    assert.equal(heir, admin === undefined ? 'bob@red.example' : 'carol@red.example');
    revoke(one, two);
    const made = await dave.mls.commit(groups[4], { remove, context });
    const seen = await bob.mls.process(groups[2], made.commit);
    assert.equal(roleOf(seen.next.info, heir), 'owner');
    assert.deepEqual(seen.next.info.roles.length, 1);
    assert.ok(seen.next.members().every(({ userId }) => userId !== one.identity.userId));
  }
});

test('a log that does not say that all of them gave up their keys speaks against it', async () => {
  const { world, devices, groups, revoke } = await rig();
  const [one, two, bob, carol] = devices;
  const { remove, context } = wantedOf(groups[3]);
  revoke(one);
  const change = { remove, context };
  await assert.rejects(
    carol.mls.commit(groups[3], change),
    isRefused('BAD_CREDENTIAL', 'not_revoked'),
  );
  revoke(two);
  const { commit } = await carol.mls.commit(groups[3], change);
  // bob's log says something else, or nothing yet.
  const alice = world.manifests.get(one.identity.userId);
  assert(alice !== undefined);
  const [first, second] = alice.revoked.splice(0);
  await assert.rejects(
    bob.mls.process(groups[2], commit),
    isRefused('BAD_CREDENTIAL', 'not_revoked'),
  );
  world.manifests.delete(one.identity.userId);
  const unknown = bob.mls.process(groups[2], commit);
  await assert.rejects(unknown, isRefused('UNKNOWN_CREDENTIAL', 'unknown_user'));
  const voters = await unknown.catch((error: unknown) =>
    error instanceof CredentialError ? error.commit?.voters : undefined,
  );
  assert.deepEqual(voters, ['bob@red.example', 'dave@red.example'], 'who stays decides');
  world.manifests.set(one.identity.userId, alice);
  alice.revoked.push(...[first, second].filter((key) => key !== undefined));
  assert.equal((await bob.mls.process(groups[2], commit)).kind, 'commit');
});

test('no other commit passes for one', async () => {
  const { devices, groups, revoke } = await rig('carol');
  const [one, two, bob] = devices;
  revoke(one, two);
  const group = groups[2];
  const { removed, remove, context, heir } = wantedOf(group);
  const { info, hubs } = context;
  const withInfo = (part: Partial<GroupContextInfo['info']>) => ({
    info: { ...info, ...part },
    hubs,
  });
  const owner = (userId: string) => [{ userId, role: 'owner' as const }];
  const wrong: readonly [readonly number[], GroupContextInfo | undefined][] = [
    [remove.slice(1), context],
    [
      [
        ...remove,
        ...group
          .members()
          .filter(({ userId }) => userId === heir)
          .map((one) => one.leafIndex),
      ],
      context,
    ],
    [remove, withInfo({ roles: owner('bob@red.example') })],
    [remove, withInfo({ roles: [...owner('bob@red.example'), ...info.roles] })],
    [remove, withInfo({ name: 'mine' })],
    [remove, withInfo({ expirySeconds: 7 })],
    [remove, { info, hubs: ['blue.example'] }],
    [[], context],
    [remove, undefined],
  ];
  for (const [leaves, changed] of wrong) {
    const isGone = ({ leafIndex }: Member): boolean => leaves.includes(leafIndex);
    const effects = { added: [], removed: group.members().filter(isGone), context: changed };
    assert.equal(isSuccession(group, effects), false);
    const change = { remove: leaves, ...(changed && { context: changed }) };
    await assert.rejects(bob.mls.commit(group, change), refused('NOT_ALLOWED'));
  }
  assert.ok(isSuccession(group, { added: [], removed, context }));
  const comes = [{ userId: 'eve@red.example', deviceId: 'z'.repeat(16) }];
  assert.equal(isSuccession(group, { added: comes, removed, context }), false);
});

test('who comes back believes it of keys that a log says were given up', async () => {
  const { world, devices, groups, revoke } = await rig();
  const [one, two, bob, carol] = devices;
  revoke(one, two);
  const { remove, context } = wantedOf(groups[3]);
  const { pending } = await carol.mls.commit(groups[3], { remove, context });
  const lookup = (userId: string) => world.manifests.get(userId);
  const broken = (isRevoked?: (member: Member) => boolean) =>
    continuityBroken(groups[2], pending, carol.identity.userId, bob.identity.userId, isRevoked);
  assert.equal(
    broken((member) => notRevoked(lookup, [member]).length === 0),
    undefined,
  );
  assert.notEqual(broken(), undefined);
  world.manifests.get(one.identity.userId)?.revoked.pop();
  assert.notEqual(
    broken((member) => notRevoked(lookup, [member]).length === 0),
    undefined,
  );
});
