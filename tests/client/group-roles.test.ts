/** Roles, name and timer of a conversation whose members are at two real nodes. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { QpcError, systemRandom } from '@quicprochat/proto';
import { QpcClient, type ClientEvent } from '@quicprochat/client-lib';
import { testRuntime } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { Rig, type RigClient } from './rig.ts';

const password = new TextEncoder().encode('correct horse battery');

async function refusal(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert(error instanceof QpcError, 'it was not refused');
  return error.reason;
}

describe('a conversation of two nodes', () => {
  const clock = new JumpClock();
  let rig: Rig;
  let alice: RigClient;
  let bob: RigClient;
  let carol: RigClient;
  let id: Uint8Array;

  before(async () => {
    rig = await Rig.make();
    alice = await rig.client('alice@red.example');
    bob = await rig.client('bob@blue.example', clock);
    carol = await rig.client('carol@red.example');
    const members = [bob.userId, carol.userId];
    id = await alice.client.createConversation({ name: 'tea', members });
    await bob.joined();
    await carol.joined();
  });
  after(async () => {
    await rig[Symbol.asyncDispose]();
  });

  const rolesAt = async ({ client }: RigClient): Promise<readonly string[]> =>
    (await client.listMembers(id)).map(({ userId, role, deviceIds }) => {
      assert.equal(deviceIds.length, 1);
      return `${userId.split('@')[0]} ${role}`;
    });
  const sees = <T extends ClientEvent['type']>(
    { events }: RigClient,
    type: T,
    matches: (event: Extract<ClientEvent, { type: T }>) => boolean = () => true,
  ): Promise<ClientEvent> =>
    events.first(
      (event) => event.type === type && matches(event as Extract<ClientEvent, { type: T }>),
      type,
    );

  test('is owned by its creator, and a member changes nothing of it', async () => {
    const expected = ['alice owner', 'bob member', 'carol member'];
    for (const one of [alice, bob, carol]) assert.deepEqual(await rolesAt(one), expected);
    const { client } = bob;
    for (const work of [
      () => client.updateMetadata(id, { name: 'mine' }),
      () => client.updateMetadata(id, { expirySeconds: 5 }),
      () => client.setRole(id, bob.userId, 'owner'),
      () => client.removeMembers(id, [carol.userId]),
    ]) {
      assert.equal(await refusal(work()), 'NOT_ALLOWED');
    }
    // New keys are everybody's right.
    await client.rotateKeys(id);
    await alice.client.send(id, 'all the same');
    assert.deepEqual(await bob.texts(1), ['all the same']);
    assert.deepEqual(await carol.texts(1), ['all the same']);
    assert.deepEqual(await alice.client.metadata(id), {
      ...{ name: 'tea', expirySeconds: 0, directDevices: 32 },
    });
  });

  test('what nobody can ask for is refused before it becomes a commit', async () => {
    const { client } = alice;
    for (const [work, reason] of [
      [() => client.updateMetadata(id, { name: 'x'.repeat(257) }), 'BAD_FIELD'],
      [() => client.updateMetadata(id, { expirySeconds: -1 }), 'BAD_FIELD'],
      [() => client.setRole(id, 'bob', 'admin'), 'BAD_FIELD'],
      [() => client.setRole(id, bob.userId, 'king' as 'owner'), 'BAD_FIELD'],
      [() => client.setRole(id, 'dave@red.example', 'admin'), 'UNKNOWN_MEMBER'],
      [() => client.setRole(id, alice.userId, 'member'), 'LAST_OWNER'],
      [() => client.removeMembers(id, [alice.userId]), 'BAD_FIELD'],
      [() => client.removeMembers(id, [`${bob.userId}/x`]), 'BAD_FIELD'],
      [() => client.leave(id), 'LAST_OWNER'],
      [() => client.rotateKeys(new Uint8Array(32)), 'UNKNOWN_GROUP'],
    ] as const) {
      assert.equal(await refusal(work()), reason);
    }
  });

  test('an admin renames it and sets the timer, and everybody hears who did', async () => {
    await bob.close();
    await alice.client.setRole(id, bob.userId, 'admin');
    await bob.open();
    await bob.start();
    // He may have heard of it by now, or not: what he may do says the log, not what he knows of it.
    await bob.client.updateMetadata(id, { name: 'coffee', expirySeconds: 60 });
    for (const one of [alice, bob, carol]) {
      await sees(one, 'renamed', ({ name, by }) => name === 'coffee' && by === bob.userId);
      await sees(one, 'timerChanged', ({ expirySeconds }) => expirySeconds === 60);
      assert.equal(one.client.conversations()[0]?.name, 'coffee');
      assert.deepEqual(await one.client.metadata(id), {
        ...{ name: 'coffee', expirySeconds: 60, directDevices: 32 },
      });
    }
    assert.equal(await refusal(bob.client.setRole(id, carol.userId, 'admin')), 'NOT_ALLOWED');
    assert.equal(await refusal(bob.client.removeMembers(id, [alice.userId])), 'NOT_ALLOWED');
  });

  test('a text disappears a minute after it was shown, its id stays', async () => {
    await alice.client.send(id, 'soon gone');
    assert.deepEqual(await bob.texts(1), ['soon gone']);
    const shown = bob.client.history(id).at(-1);
    assert.deepEqual([shown?.text, shown?.goneMs], ['soon gone', undefined]);
    clock.jump(61_000);
    const gone = bob.client.history(id).at(-1);
    assert.deepEqual([gone?.text, gone?.innerId], ['', shown?.innerId]);
    assert.notEqual(gone?.goneMs, undefined);
    await sees(
      bob,
      'disappeared',
      ({ ids }) => Buffer.compare(ids[0] ?? id, gone?.innerId ?? id) === 0,
    );
    // Carol has not looked yet.
    assert.deepEqual(await carol.texts(1), ['soon gone']);
  });

  test('an admin removes a member, an owner makes another and leaves', async () => {
    await bob.client.removeMembers(id, [carol.userId]);
    await sees(carol, 'removed', ({ by }) => by === bob.userId);
    assert.equal(carol.client.conversations()[0]?.ended, 'REMOVED');
    await alice.client.setRole(id, bob.userId, 'owner');
    for (const one of [alice, bob]) {
      await sees(one, 'roleChanged', ({ role }) => role === 'owner');
      assert.deepEqual(await rolesAt(one), ['alice owner', 'bob owner']);
    }
    await alice.client.leave(id);
    assert.equal(alice.client.conversations()[0]?.ended, 'LEFT');
    assert.deepEqual(await rolesAt(bob), ['bob owner']);
    assert.equal(
      await refusal(alice.client.updateMetadata(id, { name: 'x' })),
      'CONVERSATION_ENDED',
    );
  });
});

test('a device that its user revokes is taken out of conversations', async () => {
  await using rig = await Rig.make();
  const alice = await rig.client('alice@red.example');
  const bob = await rig.client('bob@blue.example');
  await using second = await QpcClient.open({
    storePath: ':memory:',
    storeKey: systemRandom.bytes(32),
    runtime: testRuntime,
    transport: rig.network.transport('alice again'),
  });
  const { userId } = alice;
  await second.addDevice({ userId, password, nodeAddress: alice.node.address });
  // The log may show a head for a while that auditors have cosigned.
  while ((await bob.client.lookUp(userId)).devices.length < 2) await testRuntime.clock.sleep(50);
  const id = await bob.client.createConversation({ name: 'two', members: [userId] });
  await alice.joined();
  const { deviceId } = second.whoami();
  const devicesAt = async ({ client }: RigClient): Promise<readonly string[]> =>
    (await client.listMembers(id)).flatMap((user) =>
      user.userId === userId ? user.deviceIds : [],
    );
  assert.equal((await devicesAt(bob)).length, 2);
  const from = bob.events.count;
  await alice.client.revokeDevice(deviceId, 'lost');
  await bob.events.first(({ type }) => type === 'membersChanged', 'one device less', from);
  assert.deepEqual(await devicesAt(bob), [alice.client.whoami().deviceId]);
});
