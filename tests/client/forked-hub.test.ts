/**
 * A hub that shows two histories, by real nodes and clients: its operator puts its database back to before a change, and it
 * takes another one in the same place. Both sides end with its word for both (docs/security/hubs.md).
 */
import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { openNodeStore } from '@quicprochat/nodes';
import type { ClientEvent } from '@quicprochat/client-lib';
import { testRuntime, type LocalNode } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { Rig } from './rig.ts';

/** Stops the node, lets `work` at its directory, and starts it again. */
async function whileStopped(node: LocalNode, peers: readonly LocalNode[], work: () => void) {
  const { databasePath: path, store: limits } = node.config;
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
  work();
  node.store = await openNodeStore({ path, key: node.key, limits, runtime: node.runtime });
  await node.start(peers);
}

test('a hub that took two changes in one place is convicted by both sides', async () => {
  await using rig = await Rig.make();
  const { red, blue } = rig;
  const clock = new JumpClock();
  const alice = await rig.client('alice@red.example', clock);
  const bob = await rig.client('bob@blue.example', clock);
  const id = await alice.client.createConversation({ name: 'two-faced', members: [bob.userId] });
  await bob.joined();
  await alice.client.setRole(id, bob.userId, 'owner');
  await bob.events.first(({ type }) => type === 'roleChanged', 'bob to be an owner');
  // Nobody but alice hears of what red takes now: blue is away, and red forgets.
  await bob.close();
  await blue.node?.stop();
  const copy = `${red.directory}.old`;
  await whileStopped(red, [blue], () => cpSync(red.directory, copy, { recursive: true }));
  await alice.client.updateMetadata(id, { name: 'one face' });
  await alice.close();
  await whileStopped(red, [blue], () => {
    rmSync(red.directory, { recursive: true });
    cpSync(copy, red.directory, { recursive: true });
    rmSync(copy, { recursive: true });
  });
  await blue.start([red]);
  await bob.open();
  await bob.start();
  await bob.client.updateMetadata(id, { name: 'another face' });
  await alice.open();
  await alice.start();
  await bob.client.send(id, 'which name do you see?');
  for (const one of [alice, bob]) {
    const seen = one.events.first(({ type }) => type === 'fork', `${one.userId} to see the fork`);
    let fork: ClientEvent | undefined;
    void seen.then((event) => (fork = event));
    // Whoever gets what no key opens tells the others after five minutes where it stands.
    for (let tries = 0; tries < 200 && fork === undefined; tries += 1) {
      clock.jump(10_000);
      await testRuntime.clock.sleep(50);
    }
    assert.ok((await seen).type === 'fork' && fork?.type === 'fork');
    assert.deepEqual(fork.hubs, [red.domain]);
  }
});
