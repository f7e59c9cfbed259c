/** The adapter through its door: create, add, join, talk, remove, in both suites. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { acceptCommit, inspectWelcome, mandatorySuite, xwingSuite } from './index.ts';
import type { MlsGroup, Processed } from './index.ts';
import { TestWorld, keyPackageOf, refused } from './test-members.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const none = new Uint8Array(0);

function application(result: Processed): Extract<Processed, { kind: 'application' }> {
  assert.equal(result.kind, 'application');
  return result;
}

function commitOf(result: Processed): Extract<Processed, { kind: 'commit' }> {
  assert.equal(result.kind, 'commit');
  return result;
}

for (const suite of [mandatorySuite, xwingSuite]) {
  const name = `suite 0x${suite.toString(16)}`;

  test(`${name}: a group is made, joined, talked in, and left by a removed member`, async () => {
    const world = new TestWorld();
    const [alice, bob, carol] = [world.device('alice'), world.device('bob'), world.device('carol')];
    let a: MlsGroup = await alice.mls.createGroup({ suite, ...alice, name: 'trip' });
    const bobRow = await keyPackageOf(bob, suite);
    const carolRow = await keyPackageOf(carol, suite, true);
    const info = await alice.mls.inspectKeyPackage(carolRow.publicBytes);
    assert.ok(info.isLastResort);
    assert.deepEqual(info.ref, carolRow.ref);
    assert.equal(info.userId, 'carol@red.example');

    const add = await alice.mls.addMembers(a, [bobRow.publicBytes, carolRow.publicBytes]);
    assert.ok(add.welcome);
    assert.equal(a.epoch, 0n, 'the old state is untouched');
    assert.deepEqual(
      add.added.map(({ leafIndex, userId }) => [leafIndex, userId]),
      [
        [1, 'bob@red.example'],
        [2, 'carol@red.example'],
      ],
    );
    const accepted = acceptCommit(a, add.pending);
    a = accepted.next;
    accepted.wipe();
    assert.deepEqual(inspectWelcome(add.welcome), { suite, refs: [bobRow.ref, carolRow.ref] });
    const joinedBob = await bob.mls.joinFromWelcome(
      add.welcome,
      [carolRow, bobRow].slice(1),
      bob.signatureKey,
    );
    const joinedCarol = await carol.mls.joinFromWelcome(
      add.welcome,
      [carolRow],
      carol.signatureKey,
    );
    assert.equal(joinedBob.inviter.userId, 'alice@red.example');
    assert.equal(joinedBob.isLastResort, false);
    assert.equal(joinedCarol.isLastResort, true);
    assert.deepEqual(joinedBob.ref, bobRow.ref);
    let b = joinedBob.group;
    let c = joinedCarol.group;
    assert.equal(b.info.name, 'trip');
    assert.deepEqual(b.info.conversationId, a.groupId);

    for (const [from, group] of [
      [bob, b],
      [carol, c],
    ] as const) {
      assert.deepEqual(group.members(), a.members());
      assert.deepEqual(group.epochAuthenticator, a.epochAuthenticator);
      assert.deepEqual(
        await from.mls.exporter(group, 'qpc commit', group.groupId, 32),
        await alice.mls.exporter(a, 'qpc commit', a.groupId, 32),
      );
    }

    const sent = await bob.mls.encrypt(b, bytes('hello'), bytes('head'));
    b = sent.next;
    sent.wipe();
    const seen = application(await alice.mls.process(a, sent.ciphertext));
    assert.deepEqual(seen.plaintext, bytes('hello'));
    assert.deepEqual(seen.authenticatedData, bytes('head'));
    assert.equal(seen.sender.userId, 'bob@red.example');
    assert.deepEqual(seen.sender.identityPub, bob.signatureKey.publicKey);
    assert.equal(seen.generation, 0);
    a = seen.next;
    seen.wipe();
    await assert.rejects(alice.mls.process(a, sent.ciphertext), refused('DUPLICATE'));
    await assert.rejects(bob.mls.process(b, sent.ciphertext), refused('OWN_MESSAGE'));
    c = application(await carol.mls.process(c, sent.ciphertext)).next;

    await assert.rejects(bob.mls.removeMembers(b, [2]), refused('NOT_ALLOWED'));
    const removal = await alice.mls.removeMembers(a, [2]);
    assert.deepEqual(
      removal.removed.map(({ userId }) => userId),
      ['carol@red.example'],
    );
    const late = await carol.mls.encrypt(c, bytes('late'), none);
    a = acceptCommit(a, removal.pending).next;
    const atBob = commitOf(await bob.mls.process(b, removal.commit));
    assert.deepEqual(
      atBob.removed.map(({ userId }) => userId),
      ['carol@red.example'],
    );
    assert.equal(atBob.isSelfRemoved, false);
    b = atBob.next;
    const atCarol = commitOf(await carol.mls.process(c, removal.commit));
    assert.equal(atCarol.isSelfRemoved, true);
    assert.equal(atCarol.next.isActive, false);
    await assert.rejects(carol.mls.encrypt(atCarol.next, bytes('x'), none), refused('REMOVED'));
    assert.deepEqual(b.epochAuthenticator, a.epochAuthenticator);

    const lateSeen = application(await bob.mls.process(b, late.ciphertext));
    assert.deepEqual(lateSeen.plaintext, bytes('late'));
    assert.equal(lateSeen.sender.isMember, false, 'marked as sent by a former member');
    assert.equal(lateSeen.epoch, 1n);
  });
}
