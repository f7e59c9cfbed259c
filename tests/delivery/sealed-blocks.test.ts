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
const strangerRows = 2;
const config = `[limits]\ninbox_stranger_rows = ${strangerRows}\n`;
const many = (from: string): string[] => Array.from({ length: 6 }, (_, n) => `${from} ${n}`);
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
  await using rig = await Rig.make(config);
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
  // More than his inbox takes of strangers, which she is for now.
  for (const text of many('to bob')) await alice.client.send(id, text);
  await inTime(alice.client.flush(), 'what alice sends');
  await alice.close();
  await bob.open(sealed);
  await bob.start();
  assert.deepEqual(await bob.texts(6), many('to bob'));
  for (const text of many('to alice')) await bob.client.send(id, text);
  await inTime(bob.client.flush(), 'what bob sends');
  await alice.open(sealed);
  await alice.start();
  assert.deepEqual(await alice.texts(6), many('to alice'));
  assert.deepEqual([alice, bob].flatMap(failed), []);
});

test('who is blocked finds no new token, the others of the conversation do, and so do they once it is over', async () => {
  await using rig = await Rig.make(config);
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
  await alice.close();
  for (const { client, userId } of [bob, carol]) {
    for (const text of many(userId)) await client.send(id, text);
  }
  await inTime(bob.client.flush(), 'what bob sends');
  assert.deepEqual(await bob.texts(6), many(carol.userId));
  // Carol has bob's token, and looked in vain for alice's: what her inbox takes of strangers is there, no more.
  await carol.logged.first(({ event }) => event === 'no new delivery token', 'a look for a token');
  await carol.events.first(({ type }) => type === 'waitsForToken', 'a copy that waits');
  await alice.open(sealed);
  await alice.start();
  assert.deepEqual(await alice.texts(6), many(bob.userId));
  alice.client.unblock(carol.userId);
  assert.deepEqual(await alice.texts(6), many(carol.userId));
  assert.deepEqual(clients.flatMap(failed), []);
});
