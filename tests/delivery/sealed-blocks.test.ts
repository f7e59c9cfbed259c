/**
 * Sealed senders who replaced their delivery tokens at the same time: what they write each other goes with tokens
 * that are in force no more, and so does the message that would bring the new ones. Each finds the other's new token at
 * that device's node, sealed for it; whoever was blocked finds none.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClientEvent } from '@quicprochat/client-lib';
import { inTime, Rig, type RigClient } from '../client/rig.ts';

const sealed = { sealedSender: true };
const [eve, mallory] = ['eve@blue.example', 'mallory@red.example'];

/** Everybody has a token of every other one of these. */
async function acquainted(clients: readonly RigClient[]): Promise<void> {
  const others = clients.length - 1;
  for (const { logged } of clients) {
    const taken = (): number =>
      logged.all().filter(({ event }) => event === 'delivery token taken').length;
    await logged.first(() => taken() >= others, 'the tokens of the others');
  }
}

async function sealedClients(rig: Rig, ...userIds: string[]): Promise<RigClient[]> {
  const clients: RigClient[] = [];
  for (const userId of userIds) clients.push(await rig.client(userId, undefined, sealed));
  for (const { logged } of clients)
    await logged.first(({ event }) => event === 'delivery token told', 'a token at the node');
  return clients;
}

const failed = ({ events }: RigClient): ClientEvent[] =>
  events.all().filter(({ type }) => type === 'sendFailed' || type === 'bounced');

test('two who block somebody at the same time reach each other at once, also over restarts', async () => {
  await using rig = await Rig.make();
  const clients = await sealedClients(rig, 'alice@red.example', 'bob@blue.example');
  const [alice, bob] = clients;
  assert(alice !== undefined && bob !== undefined);
  const id = await alice.client.createConversation({ name: 'two', members: [bob.userId] });
  await bob.joined();
  await acquainted(clients);
  // Both have new ones before either could tell.
  await Promise.all([alice.client.block(eve), bob.client.block(mallory)]);
  await Promise.all([alice.client.send(id, 'to bob'), bob.client.send(id, 'to alice')]);
  assert.deepEqual(await bob.texts(1), ['to bob']);
  assert.deepEqual(await alice.texts(1), ['to alice']);

  // One of them is away meanwhile, and blocks again and again.
  await alice.close();
  for (const userId of ['a', 'b', 'c']) await bob.client.block(`${userId}@red.example`);
  await bob.close();
  await alice.open(sealed);
  await alice.start();
  await alice.client.block(mallory);
  await alice.client.send(id, 'to bob, later');
  await inTime(alice.client.flush(), 'what alice sends');
  await alice.close();
  await bob.open(sealed);
  await bob.start();
  assert.deepEqual(await bob.texts(1), ['to bob, later']);
  await bob.client.send(id, 'to alice, later');
  await inTime(bob.client.flush(), 'what bob sends');
  await alice.open(sealed);
  await alice.start();
  assert.deepEqual(await alice.texts(1), ['to alice, later']);
  assert.deepEqual([alice, bob].flatMap(failed), []);
});

test('who is blocked finds no new token, the others of the conversation do, and so do they once it is over', async () => {
  await using rig = await Rig.make();
  const clients = await sealedClients(
    rig,
    'alice@red.example',
    'bob@blue.example',
    'carol@red.example',
  );
  const [alice, bob, carol] = clients;
  assert(alice !== undefined && bob !== undefined && carol !== undefined);
  const members = [bob.userId, carol.userId];
  const id = await alice.client.createConversation({ name: 'three', members });
  await Promise.all([bob.joined(), carol.joined()]);
  await acquainted(clients);
  await Promise.all([
    alice.client.block(carol.userId),
    bob.client.block(eve),
    carol.client.block(mallory),
  ]);
  const refusals = carol.logged.count;
  for (const one of clients) await one.client.send(id, `from ${one.userId}`);
  const isFrom = (text: string): boolean => text !== `from ${bob.userId}`;
  assert.deepEqual((await bob.texts(2)).filter(isFrom).length, 2);
  assert.deepEqual(await alice.texts(1), [`from ${bob.userId}`]);
  // Carol has bob's, and asked in vain for alice's.
  await carol.logged.first(
    ({ event, fields }) => event === 'enqueue failed' && fields['reason'] === 'BLOCKED',
    'a refused copy',
    refusals,
  );
  await carol.logged.first(({ event }) => event === 'no new delivery token', 'a look for a token');
  alice.client.unblock(carol.userId);
  assert.deepEqual(await alice.texts(1), [`from ${carol.userId}`]);
  assert.deepEqual(clients.flatMap(failed), []);
});
