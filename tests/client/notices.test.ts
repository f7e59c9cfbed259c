/** A client hears what became of a message after its own node had taken it: on two real nodes. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Rig, type RigClient } from './rig.ts';

describe('notices', () => {
  let rig: Rig;
  let alice: RigClient;
  let bob: RigClient;
  let id: Uint8Array;

  before(async () => {
    rig = await Rig.make();
    alice = await rig.client('alice@red.example');
    bob = await rig.client('bob@blue.example');
    id = await alice.client.createConversation({ name: 'notices', members: [bob.userId] });
    await bob.joined();
  });
  after(async () => {
    await rig[Symbol.asyncDispose]();
  });

  const messageOf = (text: string) => alice.client.history(id).find((one) => one.text === text);

  test('a message to a device that is gone comes back as an event and in the history', async () => {
    await bob.client.deleteAccount();
    await alice.client.send(id, 'too late');
    const { identityPub: rid } = bob.client.whoami();
    const event = await alice.events.first(({ type }) => type === 'bounced', 'the bounce');
    assert.deepEqual(event, {
      type: 'bounced',
      messageId: messageOf('too late')?.id,
      rid,
      reason: 'UNKNOWN_DEVICE',
    });
    assert.equal(messageOf('too late')?.sendState, 'bounced');
    assert.deepEqual(alice.client.undecryptable(), []);
  });

  test('also when the client is away while it happens, and it is not told again', async () => {
    await alice.client.send(id, 'unheard');
    await alice.client.flush();
    await alice.close();
    const from = alice.events.count;
    await alice.open();
    await alice.start();
    await alice.events.first(
      (event) => event.type === 'bounced' && event.messageId === messageOf('unheard')?.id,
      'the bounce',
    );
    assert.equal(messageOf('unheard')?.sendState, 'bounced');
    const { store } = rig.red;
    assert(store !== undefined);
    const { identityPub } = alice.client.whoami();
    const { head } = await store.fetch(identityPub, 0, 1, 1);
    await alice.close();
    await alice.open();
    await alice.start();
    assert.equal((await store.fetch(identityPub, 0, 1, 1)).head, head);
    assert.equal(messageOf('unheard')?.sendState, 'bounced');
    const again = alice.events
      .all()
      .slice(from)
      .filter(({ type }) => type === 'bounced');
    assert.equal(again.length, 1);
  });
});
