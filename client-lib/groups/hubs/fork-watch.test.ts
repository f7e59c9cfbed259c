/** A hub with two histories: members that follow different ones find out, and both keep the proof. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkEvidence } from '@quicprochat/proto';
import { CertifiedEntrySchema, fromBinary } from '@quicprochat/proto/messages';
import { forkLimits } from './fork-watch.ts';
import { mandatorySuite, xwingSuite } from '../../mls/index.ts';
import { exchange, TestDevice } from '../../test-devices.ts';
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
      const [kept] = one.store.groupLog.forks();
      assert(kept !== undefined);
      const [a, b] = [kept.one, kept.other].map((bytes) => fromBinary(CertifiedEntrySchema, bytes));
      assert(a !== undefined && b !== undefined);
      assert.deepEqual(
        checkEvidence(a, b, [hub], () => [signPub]),
        [hub],
      );
    }
    for (const one of all) await one.groups.stop();
  });
}
