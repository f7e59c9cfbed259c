/**
 * A hub that shows two histories, by real nodes and clients: its operator puts its database back to before a change, and it
 * takes another one in the same place. Both sides end with its word for both, as a file for anybody (docs/security/hubs.md).
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openNodeStore } from '@quicprochat/nodes';
import { hex } from '@quicprochat/proto';
import type { ClientEvent } from '@quicprochat/client-lib';
import { runQpc } from '../cli/qpc-process.ts';
import { testRuntime, type LocalNode } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { Rig, type RigClient } from './rig.ts';

/** Stops the node, lets `work` at its directory, and starts it again. */
async function whileStopped(node: LocalNode, peers: readonly LocalNode[], work: () => void) {
  const { databasePath: path, store: limits } = node.config;
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
  work();
  node.store = await openNodeStore({ path, key: node.key, limits, runtime: node.runtime });
  await node.start(peers);
}

/** A home of `qpc` with the store of a closed client. */
function makeHome(directory: string, { storePath, storeKey }: RigClient): string {
  const home = join(directory, 'home');
  mkdirSync(home, { mode: 0o700 });
  cpSync(storePath, join(home, 'store.db'));
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');
  const check = createHash('sha256').update('qpc/key-vault/1\0').update(storeKey).digest();
  const vault = {
    ...{ format: 'qpc-key-vault', version: 1, protection: 'none', key: text(storeKey) },
    check: text(check.subarray(0, 8)),
  };
  writeFileSync(join(home, 'store.key'), `${JSON.stringify(vault)}\n`, { mode: 0o600 });
  return home;
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

  // Out of a device, and to somebody who has nothing but the file.
  const [held] = await alice.client.forks();
  await alice.close();
  const home = makeHome(rig.directory, alice);
  const out = join(rig.directory, 'out');
  const listed = await runQpc(['forks', '--out', out, '--home', home, '--json']);
  assert.equal(listed.code, 0, listed.stderr);
  const { type, conversation, hubs, file } = JSON.parse(listed.stdout) as Record<string, unknown>;
  assert.deepEqual([type, conversation, hubs], ['fork', hex(id), [red.domain]]);
  assert.deepEqual(new Uint8Array(readFileSync(String(file))), held?.evidence);
  const verified = await runQpc(['verify-fork', String(file), '--json']);
  assert.equal(verified.code, 0, verified.stderr);
  const { domain, keys } = JSON.parse(verified.stdout) as Record<string, unknown>;
  const ofRed = red.secrets?.recordKeys.map(({ signing }) => hex(signing.publicKey));
  assert.deepEqual([domain, keys], [red.domain, ofRed]);
});
