/**
 * Changes of a group while the own node of who wants them is dead: its hub elsewhere takes them of somebody whom it
 * does not know, or, of who leaves, of those who stay; and everybody agrees on them, also those who come back with
 * that node.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OpenOptions } from '@quicprochat/client-lib';
import { testRuntime } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { inTime, Rig, type RigClient } from './rig.ts';
import { threeNodes } from './three-nodes.ts';

const past: Pick<OpenOptions, 'fallback'> = { fallback: {} };

const away = (client: RigClient, isAway: boolean): Promise<unknown> =>
  client.events.first(
    (event) => event.type === 'ownNode' && event.isAway === isAway,
    `the node of ${client.userId} to be ${isAway ? 'away' : 'back'}`,
  );
const heard = (client: RigClient, type: string, from = 0): Promise<unknown> =>
  client.events.first((event) => event.type === type, `${client.userId} to hear: ${type}`, from);

/** What the client has to fetch first. */
async function soon<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (tries === 200) throw error;
      await testRuntime.clock.sleep(50);
    }
  }
}

/** While time goes by for all with this clock. */
async function meanwhile(clock: JumpClock, work: Promise<unknown>, what: string): Promise<void> {
  let isDone = false;
  const watched = work.finally(() => (isDone = true));
  watched.catch(() => undefined);
  const jumping = (async () => {
    while (!isDone) {
      clock.jump(5_000);
      await testRuntime.clock.sleep(50);
    }
  })();
  await inTime(watched, what);
  await jumping;
}

/** All are in one epoch, and see the same there. */
async function agree(id: Uint8Array, clients: readonly RigClient[]): Promise<void> {
  const look = async (): Promise<Set<string>> => {
    const states = await Promise.all(clients.map(({ client }) => client.groupState(id)));
    const seen = states.map((state) => state?.epochAuthenticator ?? new Uint8Array(0));
    return new Set(seen.map((bytes) => Buffer.from(bytes).toString('hex')));
  };
  const settled = (async () => {
    while ((await look()).size > 1) await testRuntime.clock.sleep(50);
  })();
  await inTime(settled, 'everybody to be in one epoch');
}

test('whose node is dead renames, removes and reads at the hub itself, and all agree when it is back', async () => {
  await using rig = await Rig.make();
  const { red } = rig;
  const bert = await rig.client('bert@blue.example');
  const carl = await rig.client('carl@blue.example');
  const dora = await rig.client('dora@blue.example');
  const anna = await rig.client('anna@red.example', undefined, past);
  const emil = await rig.client('emil@red.example');
  const fred = await rig.client('fred@blue.example');
  const others = [anna, carl, dora, emil];
  const members = others.map(({ userId }) => userId);
  const id = await bert.client.createConversation({ name: 'before', members });
  await Promise.all(others.map((one) => one.joined()));
  await bert.client.setRole(id, anna.userId, 'owner');
  await Promise.all([heard(anna, 'roleChanged'), heard(emil, 'roleChanged')]);
  // With that comes what lets her write to him past her node.
  await carl.client.send(id, 'carl');
  for (const one of [anna, bert, emil]) assert.deepEqual(await one.texts(1), ['carl']);

  const card = await soon(async () => fred.client.exportCard());
  await soon(() => anna.client.importCard(card));

  await red.node?.stop();
  await away(anna, true);
  await inTime(anna.client.updateMetadata(id, { name: 'after' }), 'anna to rename');
  await Promise.all([heard(bert, 'renamed'), heard(carl, 'renamed')]);
  await inTime(anna.client.removeMembers(id, [dora.userId]), 'anna to remove dora');
  await inTime(anna.client.rotateKeys(id), 'anna to have new keys');
  await agree(id, [anna, bert, carl]);

  // Of these she hears nothing, for their rows wait for her node.
  await bert.client.updateMetadata(id, { name: 'and after that' });
  await carl.client.rotateKeys(id);
  await bert.client.rotateKeys(id);
  // So her change loses, she reads what won, one step after the other, and makes it anew.
  await inTime(anna.client.updateMetadata(id, { name: 'at last' }), 'anna to rename again');
  await agree(id, [anna, bert, carl]);
  assert.equal((await bert.client.metadata(id))?.name, 'at last');
  // Also one that starts while its node is dead.
  await anna.close();
  await anna.open(past);
  anna.client.start();
  await inTime(anna.client.setRole(id, carl.userId, 'admin'), 'anna to make carl an admin');
  await anna.client.send(id, 'in the dark');
  for (const one of [bert, carl]) assert.deepEqual(await one.texts(1), ['in the dark']);
  // Keys of others come by the own node, but for whom she has a card of.
  await inTime(anna.client.addMembers(id, [fred.userId]), 'anna to add fred');
  await agree(id, [anna, bert, carl]);

  red.node = undefined;
  await red.start([rig.blue]);
  await away(anna, false);
  // He waited for a word of the log of those whom he has never met.
  await fred.joined();
  await agree(id, [anna, bert, carl, emil, fred]);
  assert.equal((await emil.client.metadata(id))?.name, 'at last');
  const all = [anna, bert, carl, emil, fred];
  const expected = all.map(({ userId }) => userId).sort();
  for (const one of all) {
    assert.deepEqual([...(await one.client.members(id))].sort(), expected);
  }
  await anna.client.send(id, 'hello again');
  for (const one of [bert, carl, fred]) {
    assert.deepEqual(await one.texts(1), ['hello again']);
  }
  const missed = [...(await emil.texts(2))].sort();
  assert.deepEqual(missed, ['hello again', 'in the dark']);
  await anna.client.rotateKeys(id);
});

test('whose node is dead leaves: the others let go at once, and nothing of it comes twice', async () => {
  await using rig = await Rig.make();
  const { red } = rig;
  const clock = new JumpClock();
  const bert = await rig.client('bert@blue.example', clock);
  const carl = await rig.client('carl@blue.example');
  const anna = await rig.client('anna@red.example', undefined, past);
  const emil = await rig.client('emil@red.example');
  const others = [carl, anna, emil];
  const members = others.map(({ userId }) => userId);
  const id = await bert.client.createConversation({ name: 'before', members });
  await Promise.all(others.map((one) => one.joined()));
  await carl.client.send(id, 'carl');
  for (const one of [anna, bert, emil]) assert.deepEqual(await one.texts(1), ['carl']);
  const epochOf = async (one: RigClient) => (await one.client.groupState(id))?.epoch ?? 0;
  const before = await epochOf(bert);
  const stay = [bert, carl, emil];
  const from = new Map(stay.map((one) => [one, one.events.count]));
  const changed = (one: RigClient): Promise<unknown> => heard(one, 'membersChanged', from.get(one));

  await red.node?.stop();
  red.node = undefined;
  await away(anna, true);
  const asked = assert.rejects(anna.client.leave(id), { name: 'ClosedError' });
  await meanwhile(clock, Promise.all([changed(bert), changed(carl)]), 'bert to let her go');
  await anna.close();
  await asked;
  // It was a wish, and is one still: of somebody who does not know that she is out.
  await anna.open(past);
  anna.client.start();
  const left = anna.client.leave(id);
  await carl.client.send(id, 'without her');
  assert.deepEqual(await bert.texts(1), ['without her']);

  await red.start([rig.blue]);
  await inTime(left, 'her node to bring the word');
  assert.equal(anna.client.conversations()[0]?.ended, 'LEFT');
  assert.deepEqual(await emil.texts(1), ['without her']);
  await agree(id, stay);
  // What she said a second time is taken up by nobody.
  await emil.client.send(id, 'emil');
  for (const one of [bert, carl]) assert.deepEqual(await one.texts(1), ['emil']);
  clock.jump(5_000);
  await agree(id, stay);
  const expected = stay.map(({ userId }) => userId).toSorted();
  for (const one of stay) {
    assert.equal(await epochOf(one), before + 1);
    assert.deepEqual([...(await one.client.members(id))].toSorted(), expected);
    const since = one.events.all().slice(from.get(one));
    assert.equal(since.filter(({ type }) => type === 'membersChanged').length, 1, one.userId);
  }
  await assert.rejects(anna.client.send(id, 'one more'), { reason: 'CONVERSATION_ENDED' });
  assert.equal(anna.client.history(id).length, 1);
  const removals = anna.events.all().filter(({ type }) => type === 'removed');
  assert.equal(removals.length, 1);
});

test('who leaves while the hub that led is dead with its own node is let go by the other two', async () => {
  await using stack = new AsyncDisposableStack();
  const clock = new JumpClock();
  const { nodes, people } = await threeNodes(stack, ['alice', 'bob', 'carol'], {
    clock,
    optionsOf: (name) => (name === 'alice' ? past : {}),
  });
  const [alice, bob, carol] = people;
  const [red] = nodes;
  const done = (work: Promise<unknown>, what: string) => meanwhile(clock, work, what);
  const members = [bob.userId, carol.userId];
  const id = await alice.client.createConversation({ name: 'three', members });
  await Promise.all([bob.joined(), carol.joined()]);
  await alice.client.setRole(id, bob.userId, 'owner');
  await Promise.all([heard(bob, 'roleChanged'), heard(carol, 'roleChanged')]);
  await bob.client.send(id, 'bob');
  for (const one of [alice, carol]) assert.deepEqual(await one.texts(1), ['bob']);

  await red.node?.stop();
  red.node = undefined;
  await done(away(alice, true), 'red to be away');
  const left = alice.client.leave(id);
  const changed = [bob, carol].map((one) => heard(one, 'membersChanged', one.events.count));
  await done(Promise.all(changed), 'bob to let her go');
  await agree(id, [bob, carol]);
  // Nobody tells her, until she asks for something else.
  const refused = assert.rejects(alice.client.rotateKeys(id), { reason: 'REMOVED' });
  await done(Promise.all([refused, left]), 'her to read the log');
  await red.start(nodes.filter((one) => one !== red));
  await done(away(alice, false), 'red to be back');
  assert.equal(alice.client.conversations()[0]?.ended, 'LEFT');
  // Whoever lost its place would be back within an hour.
  for (let round = 0; round < 3; round += 1) {
    clock.jump(3_600_000);
    await done(bob.client.rotateKeys(id), 'red to pass it on');
  }
  await agree(id, [bob, carol]);
  assert.deepEqual([...(await carol.client.members(id))].toSorted(), members);
});

test('one of three hubs takes over for somebody whose own node was the one that led', async () => {
  await using stack = new AsyncDisposableStack();
  const clock = new JumpClock();
  const { nodes, people } = await threeNodes(stack, ['alice', 'bob', 'carol'], {
    clock,
    optionsOf: (name) => (name === 'alice' ? past : {}),
  });
  const [alice, bob, carol] = people;
  const [red] = nodes;
  const members = [bob.userId, carol.userId];
  const id = await alice.client.createConversation({ name: 'three', members });
  await Promise.all([bob.joined(), carol.joined()]);

  await red.node?.stop();
  red.node = undefined;
  const done = (work: Promise<unknown>, what: string) => meanwhile(clock, work, what);
  await done(alice.client.updateMetadata(id, { name: 'two are enough' }), 'blue to take over');
  await Promise.all([heard(bob, 'renamed'), heard(carol, 'renamed')]);
  await done(alice.client.removeMembers(id, [carol.userId]), 'carol to be removed');
  await agree(id, [alice, bob]);
  await red.start(nodes.filter((one) => one !== red));
  await done(away(alice, false), 'red to be back');
  await done(alice.client.rotateKeys(id), 'red to pass it on');
  await agree(id, [alice, bob]);
});

test('what a hub refuses to somebody it does not know waits for the own node', async () => {
  await using rig = await Rig.make();
  const { red } = rig;
  const clock = new JumpClock();
  const bert = await rig.client('bert@blue.example');
  const anna = await rig.client('anna@red.example', clock, past);
  const id = await bert.client.createConversation({ name: 'before', members: [anna.userId] });
  await anna.joined();
  await bert.client.setRole(id, anna.userId, 'owner');
  await heard(anna, 'roleChanged');
  await red.node?.stop();
  red.node = undefined;
  await away(anna, true);
  // Her clock is off by more than a hub forgives.
  clock.jump(2 * 86_400_000);
  let isDone = false;
  const renamed = anna.client.updateMetadata(id, { name: 'after' }).then(() => (isDone = true));
  await anna.logged.first(
    ({ event, fields }) =>
      event === 'a change of a group waits' &&
      fields['reason'] === 'HUB_UNAVAILABLE' &&
      String(fields['error']).includes('of no member'),
    'the hub to refuse',
  );
  assert.equal(isDone, false);
  assert.equal((await bert.client.metadata(id))?.name, 'before');
  await red.start([rig.blue]);
  await inTime(renamed, 'the own node to bring it in');
  await heard(bert, 'renamed');
});

test('nothing goes past the own node where the application does not want that', async () => {
  await using rig = await Rig.make();
  const bert = await rig.client('bert@blue.example');
  const anna = await rig.client('anna@red.example');
  const id = await bert.client.createConversation({ name: 'before', members: [anna.userId] });
  await anna.joined();
  await bert.client.setRole(id, anna.userId, 'owner');
  await heard(anna, 'roleChanged');
  await rig.red.node?.stop();
  rig.red.node = undefined;
  await anna.events.first(
    (event) => event.type === 'link' && event.state === 'offline',
    'the link to fail',
    anna.events.count,
  );
  let isDone = false;
  const renamed = anna.client.updateMetadata(id, { name: 'after' }).then(() => (isDone = true));
  await testRuntime.clock.sleep(3_000);
  assert.equal(isDone, false);
  assert.equal((await bert.client.metadata(id))?.name, 'before');
  await rig.red.start([rig.blue]);
  await inTime(renamed, 'the own node to be back');
});
