/** Changes of a group as its members ask for them, made by one and applied by the others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QpcError } from '@quicprochat/proto';
import { groupEvents } from './group-events.ts';
import {
  groupMembers,
  parseRole,
  removing,
  requireMember,
  settingRole,
  updating,
  whyNot,
} from './group-roles.ts';
import {
  acceptCommit,
  groupLimits,
  mandatorySuite,
  type Change,
  type MlsGroup,
} from '../mls/index.ts';
import { groupOf, TestWorld, type TestDevice } from '../mls/test-members.ts';

const [alice, bob, carol] = ['alice', 'bob', 'carol'].map((name) => `${name}@red.example`) as [
  string,
  string,
  string,
];

/** One group of three users, of whom carol has two devices; alice made it. */
class Circle {
  readonly devices: readonly TestDevice[];
  readonly groups: MlsGroup[];

  private constructor(devices: readonly TestDevice[], groups: MlsGroup[]) {
    this.devices = devices;
    this.groups = groups;
  }

  static async make(): Promise<Circle> {
    const world = new TestWorld();
    const [first, ...others] = ['alice', 'bob', 'carol', 'carol'].map((name) => world.device(name));
    assert(first !== undefined);
    return new Circle([first, ...others], await groupOf(mandatorySuite, [first, ...others]));
  }

  group(index: number): MlsGroup {
    const group = this.groups[index];
    assert(group !== undefined);
    return group;
  }

  /** A device commits; returns what each of the others is told. */
  async commit(
    author: number,
    change: Change | undefined,
  ): Promise<readonly (readonly string[])[]> {
    const device = this.devices[author];
    assert(change !== undefined && device !== undefined);
    const { commit, pending } = await device.mls.commit(this.group(author), change);
    const told: string[][] = [];
    for (const [index, { mls }] of this.devices.entries()) {
      const before = this.group(index);
      if (!before.isActive) continue;
      const next =
        index === author
          ? acceptCommit(before, pending).next
          : (await mls.process(before, commit)).next;
      const events = groupEvents(before, next, device.identity.userId);
      told.push(events.map(({ type }) => type));
      this.groups[index] = next;
    }
    return told;
  }
}

const reason =
  (wanted: string) =>
  (error: unknown): true => {
    assert(error instanceof QpcError);
    assert.equal(error.reason, wanted);
    return true;
  };

test('name, timer and roles change for everybody, and are told', async () => {
  const circle = await Circle.make();
  assert.equal(circle.group(1).info.name, 'group');
  const renamed = await circle.commit(0, updating(circle.group(0), { name: 'tea' }));
  assert.deepEqual(new Set(renamed.flat()), new Set(['renamed']));
  assert.equal(renamed.length, 4);
  assert.deepEqual((await circle.commit(0, updating(circle.group(0), { expirySeconds: 60 })))[1], [
    'timerChanged',
  ]);
  const roles = await circle.commit(0, settingRole(circle.group(0), bob, 'admin'));
  assert.deepEqual(roles[2], ['roleChanged']);
  // Bob may now, what he may not do yet he may not.
  await circle.commit(1, updating(circle.group(1), { name: 'coffee' }));
  assert.match(
    whyNot(circle.group(1), bob, settingRole(circle.group(1), carol, 'admin') ?? {}) ?? '',
    /owner/,
  );
  assert.deepEqual(
    circle.groups.map(({ info: { name, expirySeconds } }) => [name, expirySeconds]),
    Array.from({ length: 4 }, () => ['coffee', 60]),
  );
  assert.deepEqual(
    groupMembers(circle.group(3)).map(({ userId, role, deviceIds }) => [
      userId,
      role,
      deviceIds.length,
    ]),
    [
      [alice, 'owner', 1],
      [bob, 'admin', 1],
      [carol, 'member', 2],
    ],
  );
  // Fresh keys change nothing that people see.
  assert.deepEqual((await circle.commit(2, {})).flat(), []);
});

test('who is removed leaves no role behind, one device or all', async () => {
  const circle = await Circle.make();
  await circle.commit(0, settingRole(circle.group(0), carol, 'owner'));
  const second = circle.devices[3]?.identity.deviceId ?? '';
  assert.deepEqual((await circle.commit(0, removing(circle.group(0), [`${carol}/${second}`])))[1], [
    'membersChanged',
  ]);
  assert.equal(circle.group(3).isActive, false);
  assert.equal(groupMembers(circle.group(1)).at(-1)?.role, 'owner');
  await circle.commit(0, removing(circle.group(0), [carol]));
  assert.deepEqual(
    groupMembers(circle.group(1)).map(({ userId, role }) => [userId, role]),
    [
      [alice, 'owner'],
      [bob, 'member'],
    ],
  );
  assert.deepEqual(circle.group(1).info.roles, [{ userId: alice, role: 'owner' }]);
});

test('a group that is that way already needs no commit', async () => {
  const group = (await Circle.make()).group(1);
  assert.equal(updating(group, { name: 'group' }), undefined);
  assert.equal(updating(group, { expirySeconds: 0 }), undefined);
  assert.equal(settingRole(group, alice, 'owner'), undefined);
  assert.equal(settingRole(group, bob, 'member'), undefined);
  assert.equal(removing(group, ['dave@red.example']), undefined);
});

test('what cannot be asked for is refused with a reason', async () => {
  const group = (await Circle.make()).group(0);
  assert.throws(() => settingRole(group, alice, 'member'), reason('LAST_OWNER'));
  assert.throws(() => settingRole(group, alice, 'admin'), reason('LAST_OWNER'));
  assert.throws(() => settingRole(group, 'dave@red.example', 'admin'), reason('UNKNOWN_MEMBER'));
  assert.throws(() => requireMember(group, `${bob}/aaaaaaaaaaaaaaaa`), reason('UNKNOWN_MEMBER'));
  assert.throws(() => updating(group, { name: 'x'.repeat(257) }), reason('BAD_FIELD'));
  assert.throws(() => updating(group, { name: '\udc00' }), reason('BAD_FIELD'));
  assert.ok(updating(group, { name: 'x'.repeat(256), expirySeconds: groupLimits.expirySeconds }));
  for (const expirySeconds of [-1, 0.5, groupLimits.expirySeconds + 1, Number.NaN]) {
    assert.throws(() => updating(group, { expirySeconds }), reason('BAD_FIELD'));
  }
  assert.throws(() => parseRole('king'), reason('BAD_FIELD'));
  const users = Array.from({ length: 33 }, (_, i) => `u${i}@red.example`);
  const members = users.map((userId, leafIndex) => ({
    userId,
    deviceId: '',
    leafIndex,
    identityPub: new Uint8Array(32),
  }));
  const roles = users.slice(0, 32).map((userId) => ({ userId, role: 'owner' as const }));
  const full = { info: { ...group.info, roles }, hubs: group.hubs, members: () => members };
  assert.throws(() => settingRole(full, 'u32@red.example', 'admin'), reason('BAD_FIELD'));
  assert.equal(settingRole(full, 'u31@red.example', 'admin')?.context?.info?.roles.length, 32);
});
