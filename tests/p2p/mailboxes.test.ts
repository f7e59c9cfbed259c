/**
 * Mailboxes at other nodes: real nodes, and clients that no relay and no address leads to. Their own node
 * dies, and what they write goes through the mailboxes at the node that it peered with.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rig, type RigClient } from '../client/rig.ts';
import { freePort } from '../cluster/free-port.ts';
import { aloneFallback } from './alone.ts';

const kt =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\nreasonable_monitoring_window_ms = 50\nmax_behind_ms = 4000\n';

const logged = (client: RigClient, event: string, what: string): Promise<unknown> =>
  client.logged.first((one) => one.event === event, `${client.userId} to ${what}`);

const away = (client: RigClient, isAway: boolean): Promise<unknown> =>
  client.events.first(
    (event) => event.type === 'ownNode' && event.isAway === isAway,
    `the node of ${client.userId} to be ${isAway ? 'away' : 'back'}`,
  );

const summary = (client: RigClient, count: number) =>
  client.read(count).then((messages) => messages.map(({ text, via }) => [text, via]));

test('what is written while the own node is dead comes through mailboxes, and once', async () => {
  const [red = '', blue = ''] = await Promise.all(
    ['', '[mailboxes]\nplaces = 4\n'].map(async (mailboxes) => {
      const place = `127.0.0.1:${await freePort()}`;
      return `[p2p]\nlisten = "${place}"\nadvertise = ["${place}"]\nrelay = false\n${mailboxes}${kt}`;
    }),
  );
  await using rig = await Rig.make([red, blue]);
  const anna = await rig.client('anna@red.example', undefined, aloneFallback());
  const dora = await rig.client('dora@red.example', undefined, aloneFallback());
  await Promise.all([anna, dora].map((one) => logged(one, 'mailbox', 'have a mailbox')));
  const id = await anna.client.createConversation({ name: 'dark', members: [dora.userId] });
  await dora.joined();
  await anna.client.send(id, 'here');
  assert.deepEqual(await dora.texts(1), ['here']);
  await dora.client.send(id, 'me too');
  assert.deepEqual(await anna.texts(1), ['me too']);
  // Each told the other, inside MLS, where its mailbox is; the own node told where that node is.
  await Promise.all([anna, dora].map((one) => logged(one, 'mailbox node known', 'know the node')));

  await rig.red.node?.stop();
  await Promise.all([away(anna, true), away(dora, true)]);
  await anna.client.send(id, 'one');
  await anna.client.send(id, 'two');
  assert.deepEqual(await summary(dora, 2), [
    ['one', 'mailbox'],
    ['two', 'mailbox'],
  ]);
  await dora.client.send(id, 'three');
  assert.deepEqual(await summary(anna, 1), [['three', 'mailbox']]);
  // A device that starts in the dark goes back to where its contacts write to.
  await dora.close();
  await anna.client.send(id, 'four');
  await dora.open(aloneFallback());
  dora.client.start();
  assert.deepEqual(await summary(dora, 1), [['four', 'mailbox']]);
  const sent = anna.client.history(id).filter(({ text }) => text === 'one');
  assert.deepEqual(
    sent.map(({ paths }) => paths),
    [['mailbox']],
  );

  // Its node is back, and brings the same copies: nothing comes twice.
  await rig.red.start([rig.blue]);
  await Promise.all([away(anna, false), dora.client.online()]);
  await anna.client.send(id, 'five');
  assert.deepEqual(await summary(dora, 1), [['five', 'node']]);
  const texts = dora.client.history(id).map(({ text }) => text);
  assert.deepEqual(texts, ['here', 'me too', 'one', 'two', 'three', 'four', 'five']);
  assert.deepEqual(dora.client.undecryptable(), []);
});
