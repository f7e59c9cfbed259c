/** A hub with two histories: members that follow different ones find out, and both keep the proof. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openNodeRecord, verifyForkEvidence } from '@quicprochat/proto';
import { forkLimits } from './fork-watch.ts';
import { mandatorySuite, xwingSuite } from '../../mls/index.ts';
import { company } from '../../test-company.ts';
import { exchange, prekeyOf, takeRows, TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { LaterClock } from '../../test-runtime.ts';

const hub = 'red.example';

for (const suite of [mandatorySuite, xwingSuite]) {
  test(`two members of two histories convict their hub (suite ${suite})`, async () => {
    const clock = new LaterClock();
    const directory = new TestDirectory();
    const options = { clock, suites: suite === xwingSuite ? [xwingSuite] : [mandatorySuite] };
    const [alice, bob, carol] = ['alice', 'bob', 'carol'].map(
      (name) => new TestDevice(`${name}@red.example`, directory, options),
    );
    assert(alice !== undefined && bob !== undefined && carol !== undefined);
    const all = [alice, bob, carol];
    for (const one of all) one.groups.forks.start();
    const id = await alice.conversations.create('forked', [bob.userId, carol.userId]);
    await exchange(...all);
    await alice.conversations.setRole(id, bob.userId, 'owner');
    await exchange(...all);

    // The hub accepts alice's next commit, forgets it, and accepts bob's in its place.
    const log = directory.hub.copyOf(id);
    await alice.conversations.rotateKeys(id);
    directory.hub.restore(id, log);
    directory.hub.isSilent = true;
    directory.hub.takeRows(alice.rid, bob.rid);
    await bob.conversations.rotateKeys(id);
    directory.hub.takeRows(bob.rid, alice.rid);
    for (const from of [alice, bob]) {
      for (const row of directory.hub.takeRows(from.rid, carol.rid)) await carol.receive(row);
    }
    // carol saw both certificates, and says so at once.
    const fork = carol.events.find(({ type }) => type === 'fork');
    assert(fork?.type === 'fork');
    assert.deepEqual(fork.hubs, [hub]);

    await bob.conversations.send(id, 'of the other history');
    await exchange(alice, bob);
    clock.advance(2 * forkLimits.unknownKeyMs);
    for (const one of all) {
      one.groups.forks.sweep();
      await one.settle();
    }
    await exchange(alice, bob);
    const { record } = await directory.log(hub);
    const signPub = record.signatures[0]?.signPub;
    assert(signPub !== undefined);
    for (const one of [alice, bob]) {
      assert.ok(
        one.events.some(({ type }) => type === 'fork'),
        `${one.userId} does not know`,
      );
      const [held] = await one.conversations.forks();
      assert(held !== undefined);
      assert.deepEqual([held.conversationId, held.hubs, held.convicted], [id, [hub], [hub]]);
      // From here on there is nothing but the bytes, and what the domain shows to anybody.
      const { convicted, epoch, entries } = verifyForkEvidence(held.evidence);
      assert.deepEqual(convicted, [{ domain: hub, keys: [signPub], isTrusted: false }]);
      assert.deepEqual([epoch, entries], [held.epoch, held.entries]);
      const [again] = verifyForkEvidence(held.evidence, [openNodeRecord(record)]).convicted;
      assert.equal(again?.isTrusted, true);
    }
    for (const one of all) await one.groups.stop();
  });
}

test('whoever has a prekey is told, whatever the others lack', async () => {
  const { directory, alice, bob, carol, id } = await company([xwingSuite]);
  const { forks } = carol.groups;
  forks.start();
  const told = (): readonly number[] => [bob, alice].map((one) => takeRows(carol, one).length);
  told();
  // No node answers, and no key is here.
  directory.isDown = true;
  assert.equal(await forks.tellNewest(id), false);
  assert.deepEqual(told(), [0, 0]);
  directory.isDown = false;
  directory.serve(bob.userId, { prekey: undefined });
  assert.equal(await forks.tellNewest(id), true);
  assert.deepEqual(told(), [0, 1]);
  // alice's key is here by now.
  directory.isDown = true;
  assert.equal(await forks.tellNewest(id), true);
  assert.deepEqual(told(), [0, 1]);
  directory.isDown = false;
  directory.serve(bob.userId, { prekey: prekeyOf(bob, new Uint8Array(1216).fill(0xff)) });
  assert.equal(await forks.tellNewest(id), true);
  assert.deepEqual(told(), [0, 1]);
  directory.serve(bob.userId, { prekey: prekeyOf(bob) });
  assert.equal(await forks.tellNewest(id), true);
  assert.deepEqual(told(), [1, 1]);
  await carol.groups.stop();
});
