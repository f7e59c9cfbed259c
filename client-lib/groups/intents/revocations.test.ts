/** Revoked devices in groups: who takes them out, and when. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom } from '@quicprochat/proto';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { EventBus } from '../../events.ts';
import { decodeIntent } from './group-intents.ts';
import { settingRole } from '../group-roles.ts';
import { acceptCommit, mandatorySuite, type ManifestInfo } from '../../mls/index.ts';
import { groupOf, TestWorld, type TestDevice } from '../../mls/test-members.ts';
import { revocationLimits, Revocations } from './revocations.ts';
import { openMemoryStore } from '../../store/sqlite-store.ts';
import { LaterClock } from '../../test-runtime.ts';
import { Writer } from '../../writer.ts';

const keyOf = ({ signatureKey }: TestDevice): Uint8Array => signatureKey.publicKey;
const nameOf = ({ identity }: TestDevice): string => `${identity.userId}/${identity.deviceId}`;

/** A group of alice (owner), bob (admin) and carol, each with two devices, as one of them has it. */
async function rig(own: 'alice' | 'bob' | 'carol') {
  const world = new TestWorld();
  const devices = ['alice', 'alice', 'bob', 'bob', 'carol', 'carol'].map((name) =>
    world.device(name),
  ) as [TestDevice, ...TestDevice[]];
  const groups = await groupOf(mandatorySuite, devices);
  const change = settingRole(groups[0], 'bob@red.example', 'admin');
  assert(change !== undefined);
  const made = await devices[0].mls.commit(groups[0], change);
  const index = ['alice', 'bob', 'carol'].indexOf(own) * 2;
  const [device, before] = [devices[index], groups[index]];
  assert(device !== undefined && before !== undefined);
  const group =
    index === 0
      ? acceptCommit(before, made.pending).next
      : (await device.mls.process(before, made.commit)).next;
  const store = openMemoryStore();
  const runtime = { clock: new LaterClock(), random: systemRandom, log: silentLog };
  const writer = new Writer(store, runtime);
  const envelopeKey = await envelopeKeyOf(device.mls, group);
  const { groupId } = group;
  await writer.run(async (batch) => {
    batch.enterEpoch(group, envelopeKey, []);
    batch.write(() => {
      store.groups.addConversation({
        ...{ id: groupId, groupId, suite: group.suite, name: 'group', creator: '' },
        ...{ joinedMs: 1, sentCount: 0, lamport: 0 },
      });
    });
  });
  const revoked: Uint8Array[] = [];
  const lookup = (): ManifestInfo => ({ devices: [], revoked });
  const told = { intents: 0 };
  const revocations = new Revocations({
    ...{ store, runtime, writer, events: new EventBus(), contacts: { lookup } },
    userId: device.identity.userId,
    onIntents: () => void (told.intents += 1),
  });
  const duties = () =>
    store.groupLog
      .openIntents(groupId)
      .map((row) => ({ ...decodeIntent(row), waitsMs: row.dueMs - runtime.clock.now() }));
  return { store, revocations, revoked, duties, told, devices };
}

test('a device takes out the other ones of its user at once, and never itself', async () => {
  const { store, revocations, revoked, duties, told, devices } = await rig('carol');
  using _open = store;
  await revocations.check();
  assert.deepEqual(duties(), []);
  const [, , , , own, other] = devices;
  assert(own !== undefined && other !== undefined);
  revoked.push(keyOf(own), keyOf(other));
  await revocations.check();
  await revocations.check();
  const [duty, ...more] = duties();
  assert(duty?.kind === 'remove');
  assert.deepEqual([duty.userIds, duty.isDuty, more.length], [[nameOf(other)], true, 0]);
  assert.ok(duty.waitsMs <= 0);
  assert.equal(told.intents, 1);
});

test('an admin leaves it to the user for a while, and does what it may', async () => {
  const { store, revocations, revoked, duties, devices } = await rig('bob');
  using _open = store;
  const [, ofAlice, , , , ofCarol] = devices;
  assert(ofAlice !== undefined && ofCarol !== undefined);
  revoked.push(keyOf(ofAlice), keyOf(ofCarol));
  await revocations.check();
  const [duty, ...more] = duties();
  assert(duty?.kind === 'remove');
  assert.deepEqual([duty.userIds, more.length], [[nameOf(ofCarol)], 0]);
  const { othersAfterMs, spreadMs } = revocationLimits;
  assert.ok(duty.waitsMs > othersAfterMs / 2 && duty.waitsMs <= othersAfterMs + spreadMs);
});

test('a member does nothing about the devices of others while one of the owner is left', async () => {
  const { store, revocations, revoked, duties, told, devices } = await rig('carol');
  using _open = store;
  for (const device of devices.slice(1, 4)) revoked.push(keyOf(device));
  await revocations.check();
  assert.deepEqual([duties(), told.intents], [[], 0]);
});

test('whose owners gave up all their keys here has them taken out by anybody, by the heir first', async () => {
  for (const who of ['bob', 'carol'] as const) {
    const { store, revocations, revoked, duties, devices } = await rig(who);
    using _open = store;
    const owners = devices.slice(0, 2);
    for (const device of owners) revoked.push(keyOf(device));
    await revocations.check();
    const [duty, ...more] = duties();
    assert(duty?.kind === 'remove');
    assert.deepEqual([duty.userIds, more.length], [owners.map(nameOf).sort(), 0]);
    const { othersAfterMs, spreadMs, perDeviceMs } = revocationLimits;
    const mostMs = othersAfterMs + spreadMs + (who === 'bob' ? 0 : 6 * perDeviceMs);
    assert.ok(duty.waitsMs > othersAfterMs / 2 && duty.waitsMs <= mostMs, who);
  }
});
