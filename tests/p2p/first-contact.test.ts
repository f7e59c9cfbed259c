/**
 * A first conversation with all nodes down: two people who hold each other's card, real nodes that are gone, and
 * clients over libp2p. When the nodes are back the group is as any other.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasReason, systemClock } from '@quicprochat/proto';
import type { OpenOptions, Path } from '@quicprochat/client-lib';
import { deviceSwarm } from '@quicprochat/p2p/device';
import { Rig, type RigClient } from '../client/rig.ts';
import { loopback } from './devices.ts';

const kt =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\nreasonable_monitoring_window_ms = 50\nmax_behind_ms = 4000\n';
const swarm = deviceSwarm({ listen: ['/ip4/127.0.0.1/tcp/0'], reach: loopback });
const peers: Pick<OpenOptions, 'fallback'> = { fallback: { peers: swarm } };

/** Again while what it needs of a log is not there yet: a credential, and heads that both know. */
async function soon<T>(work: () => T | Promise<T>): Promise<T> {
  const deadlineMs = performance.now() + 20_000;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const isEarly = hasReason(error, 'BAD_CURSOR', 'BAD_SIGNATURE', 'CHAIN', 'NOT_FOUND');
      if (!isEarly || performance.now() > deadlineMs) throw error;
      await systemClock.sleep(100);
    }
  }
}

async function reopened(client: RigClient): Promise<void> {
  await client.close();
  await client.open(peers);
  client.client.start();
}

async function arrivals(client: RigClient, count: number): Promise<readonly [string, Path][]> {
  return (await client.read(count)).map(({ text, via }) => [text, via]);
}

test('two people with cards begin to talk while no node runs, and lose nothing when nodes are back', async () => {
  await using rig = await Rig.make(kt);
  const anna = await rig.client('anna@red.example', undefined, peers);
  const card = await soon(() => anna.client.exportCard());
  const bert = await rig.client('bert@red.example', undefined, peers);
  const carl = await rig.client('carl@blue.example');
  await soon(() => bert.client.importCard(card));
  const other = await soon(() => bert.client.exportCard());
  // A start asks the log for the heads that it stands on by now; else that is a daily duty.
  await reopened(anna);
  await anna.client.online();
  await soon(() => anna.client.importCard(other));

  await Promise.all([rig.red.node?.stop(), rig.blue.node?.stop()]);
  const id = await anna.client.createConversation({ name: 'dark', members: [bert.userId] });
  await anna.client.send(id, 'one');
  await bert.joined();
  assert.deepEqual(await arrivals(bert, 1), [['one', 'direct']]);
  await bert.client.send(id, 'two');
  assert.deepEqual(await arrivals(anna, 1), [['two', 'direct']]);
  assert.deepEqual(await bert.client.members(id), await anna.client.members(id));
  // What needs a hub waits for it, also over a restart, and so does the group itself.
  const rotated = bert.client.rotateKeys(id);
  await reopened(anna);
  await anna.client.send(id, 'three');
  assert.deepEqual(await arrivals(bert, 1), [['three', 'direct']]);

  await Promise.all([rig.red.start([rig.blue]), rig.blue.start([rig.red])]);
  await Promise.all([anna.client.online(), bert.client.online()]);
  await rotated;
  await anna.client.addMembers(id, [carl.userId]);
  await Promise.all([
    carl.joined(),
    bert.events.first(({ type }) => type === 'membersChanged', 'carl to be known to bert'),
  ]);
  await bert.client.send(id, 'four');
  assert.deepEqual(await carl.texts(1), ['four']);
  assert.deepEqual(await anna.texts(1), ['four']);
  for (const client of [anna.client, bert.client]) {
    await client.flush(AbortSignal.timeout(20_000));
    assert.deepEqual(
      client.history(id).map(({ text }) => text),
      ['one', 'two', 'three', 'four'],
    );
    assert.deepEqual([client.undecryptable(), client.missing(id)], [[], []]);
  }
});
