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

test('who blocked somebody at the same time goes on at once, over restarts too; who is blocked waits until that is over', async () => {
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
  // All have new tokens before anybody could tell.
  await Promise.all([
    alice.client.block(carol.userId),
    bob.client.block(eve),
    carol.client.block(mallory),
  ]);
  await alice.close();
  // More than an inbox takes of strangers, which they are for now.
  for (const { client, userId } of [bob, carol]) {
    for (const text of many(userId)) await client.send(id, text);
  }
  await inTime(bob.client.flush(), 'what bob sends');
  assert.deepEqual(await bob.texts(6), many(carol.userId));
  // Carol has bob's token, and looked in vain for alice's: what her inbox takes of strangers is there, no more.
  await carol.logged.first(({ event }) => event === 'no new delivery token', 'a look for a token');
  await carol.events.first(({ type }) => type === 'waitsForToken', 'a copy that waits');

  // Both again, while the other one is away.
  for (const userId of ['a', 'b', 'c']) await bob.client.block(`${userId}@red.example`);
  await bob.close();
  await alice.open(sealed);
  await alice.start();
  assert.deepEqual(await alice.texts(6), many(bob.userId));
  await alice.client.block(mallory);
  for (const text of many(alice.userId)) await alice.client.send(id, text);
  await inTime(alice.client.flush(), 'what alice sends');
  await bob.open(sealed);
  await bob.start();
  assert.deepEqual(await bob.texts(6), many(alice.userId));
  alice.client.unblock(carol.userId);
  assert.deepEqual(await alice.texts(6), many(carol.userId));
  assert.deepEqual(clients.flatMap(failed), []);
});
