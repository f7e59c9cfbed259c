/**
 * Changes of groups by clients of two real nodes: everybody may commit, one commit wins, and whatever dies in
 * between, each wish ends once and nobody forks (docs/protocol/group-log.md, "At a member").
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openStore, type ClientStore } from '@quicprochat/client-lib/store';
import { hex } from '@quicprochat/proto';
import { inTime, Rig, type RigClient } from './rig.ts';

/** Where the log stands for a client; all members agree on it once everything arrived. */
async function headOf(one: RigClient, id: Uint8Array): Promise<string> {
  await one.close();
  using store = openStore(one.storePath, one.storeKey);
  const { hash, epoch } = store.groupLog.head(id) ?? {};
  return `${epoch} ${hash === undefined ? 'none' : hex(hash)}`;
}

async function reopen(one: RigClient): Promise<void> {
  await one.open();
  await one.start();
}

/** Everybody reads what each of them says: they are one group. */
async function assertTogether(id: Uint8Array, members: readonly RigClient[]): Promise<void> {
  for (const one of members) await one.client.send(id, `of ${one.userId}`);
  for (const one of members) {
    const texts = await one.texts(members.length - 1);
    const expected = members.filter((other) => other !== one).map(({ userId }) => `of ${userId}`);
    assert.deepEqual([...texts].sort(), expected.sort());
    assert.deepEqual(one.client.undecryptable(), []);
  }
}

const ended = (one: RigClient, kind: string, from = 0) =>
  one.events.first(
    (event) => event.type === 'groupChange' && event.kind === kind,
    `${one.userId}: ${kind}`,
    from,
  );

const isIn = (one: RigClient, id: Uint8Array, userId: string): Promise<unknown> =>
  one.events.first(
    (event) =>
      event.type === 'membersChanged' &&
      Buffer.compare(event.conversationId, id) === 0 &&
      event.members.includes(userId),
    `${one.userId} to see ${userId}`,
  );

describe('a group of clients at two nodes', () => {
  let rig: Rig;
  let alice: RigClient;
  let bob: RigClient;
  let carol: RigClient;
  let dave: RigClient;
  let id: Uint8Array;

  before(async () => {
    rig = await Rig.make();
    alice = await rig.client('alice@red.example');
    bob = await rig.client('bob@blue.example');
    carol = await rig.client('carol@red.example');
    dave = await rig.client('dave@blue.example');
    id = await alice.client.createConversation({ name: 'all', members: [bob.userId] });
    await bob.joined();
    await alice.client.setRole(id, bob.userId, 'owner');
    await bob.events.first(({ type }) => type === 'roleChanged', 'bob to be an owner');
  });
  after(async () => {
    await rig[Symbol.asyncDispose]();
  });

  test('changes from both sides at once: each wish is done, and all are one group', async () => {
    await inTime(
      Promise.all([
        alice.client.addMembers(id, [carol.userId]),
        bob.client.addMembers(id, [dave.userId]),
        alice.client.rotateKeys(id),
        bob.client.updateMetadata(id, { name: 'all of us' }),
        // Two who want the same: one of them finds it done.
        bob.client.addMembers(id, [carol.userId]),
      ]),
      'five changes at once',
    );
    await carol.joined();
    await dave.joined();
    const all = [alice, bob, carol, dave];
    for (const one of all) {
      for (const { userId } of all) {
        if (!(await one.client.members(id)).includes(userId)) await isIn(one, id, userId);
      }
    }
    await assertTogether(id, all);
    const heads = new Set<string>();
    for (const one of all) heads.add(await headOf(one, id));
    assert.equal(heads.size, 1, [...heads].join(', '));
    for (const one of all) await reopen(one);
  });

  test('waits with a change while its hub is away, also over a restart of the client', async () => {
    await rig.red.node?.stop();
    const wish = bob.client.rotateKeys(id);
    wish.catch(() => undefined);
    const rename = bob.client.updateMetadata(id, { name: 'later' });
    rename.catch(() => undefined);
    await bob.logged.first(
      ({ event }) => event === 'a change of a group waits',
      'the hub to be missed',
    );
    const { count } = bob.events;
    await bob.close();
    await assert.rejects(wish, { reason: 'CLOSED' });
    await reopen(bob);
    await rig.red.start([rig.blue]);
    await ended(bob, 'rekey', count);
    await ended(bob, 'update', count);
    const { name } = bob.client.conversations()[0] ?? {};
    assert.equal(name, 'later');
    await alice.events.first(
      (event) => event.type === 'renamed' && event.name === 'later',
      'alice to hear it',
    );
    await assertTogether(id, [alice, bob, carol, dave]);
  });

  test('finds its own commit accepted when it died before it heard so', async () => {
    const before = await headOf(bob, id);
    let isDead = false;
    await bob.open({
      // From the commit's row on, nothing is written any more: the hub's answer comes to a dead client.
      openStore: (path, key) => {
        const store = openStore(path, key);
        const dying: ClientStore = {
          ...store,
          transaction(work) {
            if (isDead) throw new Error('the client is dead');
            const result = store.transaction(work);
            isDead = store.groupLog.pendings(id).length > 0;
            return result;
          },
        };
        return dying;
      },
    });
    await bob.start();
    const { count } = alice.events;
    bob.client.rotateKeys(id).catch(() => undefined);
    await alice.client.rotateKeys(id);
    await bob.logged.first(
      ({ event, fields }) =>
        event === 'a change of a group waits' && String(fields['error']).includes('dead'),
      'the answer to come too late',
    );
    await bob.close();
    assert.equal(isDead, true);
    const from = bob.events.count;
    await reopen(bob);
    await ended(bob, 'rekey', from);
    assert.ok(alice.events.count > count);
    await assertTogether(id, [alice, bob, carol, dave]);
    const heads = [await headOf(alice, id), await headOf(bob, id)];
    assert.equal(heads[0], heads[1]);
    assert.notEqual(heads[0], before);
    for (const one of [alice, bob]) await reopen(one);
  });

  test('is closed to who was removed, until somebody invites again', async () => {
    const before = new Map([bob, carol].map((one) => [one, one.events.count]));
    await alice.client.removeMembers(id, [dave.userId]);
    await dave.events.first(({ type }) => type === 'removed', 'dave to be removed');
    const known = dave.client.history(id).length;
    // What they say before they see it, dave reads.
    for (const [one, from] of before) {
      await one.events.first(
        (event) => event.type === 'membersChanged' && !event.members.includes(dave.userId),
        `${one.userId} to see it`,
        from,
      );
    }
    await assertTogether(id, [alice, bob, carol]);
    assert.equal(dave.client.conversations()[0]?.ended, 'REMOVED');
    await assert.rejects(dave.client.send(id, 'let me in'), { reason: 'CONVERSATION_ENDED' });
    await assert.rejects(dave.client.rotateKeys(id), { reason: 'CONVERSATION_ENDED' });
    assert.equal(dave.client.history(id).length, known);
    const { count } = dave.events;
    await bob.client.addMembers(id, [dave.userId]);
    await dave.events.first(({ type }) => type === 'joined', 'dave to join again', count);
    assert.equal(dave.client.conversations()[0]?.ended, undefined);
    for (const one of [alice, carol]) await isIn(one, id, dave.userId);
    await assertTogether(id, [alice, bob, carol, dave]);
  });

  test('lets go who wants to leave, and never its last owner', async () => {
    await inTime(dave.client.leave(id), 'dave to leave');
    assert.equal(dave.client.conversations()[0]?.ended, 'LEFT');
    await alice.client.setRole(id, bob.userId, 'member');
    await assert.rejects(alice.client.leave(id), { reason: 'LAST_OWNER' });
    await assert.rejects(bob.client.removeMembers(id, [carol.userId]), { reason: 'NOT_ALLOWED' });
    await assertTogether(id, [alice, bob, carol]);
  });
});
