/** Clients through their public interface, on two real federated nodes. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { hasReason } from '@quicprochat/proto';
import { NoAccountError, QpcClient } from '@quicprochat/client-lib';
import { openStore, type AccountRecord } from '@quicprochat/client-lib/store';
import { loadIdentity } from '@quicprochat/proto/transport';
import { testRuntime } from '../cluster/local-node.ts';
import { Rig, type RigClient } from './rig.ts';

const suites = [0xf00d, 0x0001];

describe('clients of two nodes', () => {
  let rig: Rig;
  let alice: RigClient;
  let bob: RigClient;
  let carol: RigClient;
  let id: Uint8Array;

  before(async () => {
    rig = await Rig.make();
    alice = await rig.client('alice@red.example');
    bob = await rig.client('bob@blue.example');
    carol = await rig.client('carol@red.example');
    id = await alice.client.createConversation({
      name: 'over two nodes',
      members: [bob.userId, carol.userId],
    });
    await bob.joined();
    await carol.joined();
  });
  after(async () => {
    await rig[Symbol.asyncDispose]();
  });

  test('write to each other, and every message says who sent it and how sure that is', async () => {
    const { deviceId } = alice.client.whoami();
    await alice.client.send(id, 'from red');
    const [message] = await bob.read(1);
    assert(message !== undefined);
    assert.deepEqual(
      [
        message.text,
        message.senderUserId,
        message.senderDeviceId,
        message.verification === 'witnessed' || message.verification === 'logged',
      ],
      ['from red', alice.userId, deviceId, true],
    );
    assert.deepEqual(message.conversationId, id);
    assert(message.receivedMs >= message.sentMs);
    assert.deepEqual(await carol.texts(1), ['from red']);

    await bob.client.send(id, 'from blue');
    assert.deepEqual(await alice.texts(1), ['from blue']);
    assert.deepEqual(await carol.texts(1), ['from blue']);
    assert.deepEqual(
      alice.client.history(id).map(({ text, senderUser }) => [text, senderUser]),
      [
        ['from red', alice.userId],
        ['from blue', bob.userId],
      ],
    );
  });

  test('know when the own node has every copy', async () => {
    await alice.client.send(id, 'counted');
    await alice.client.flush();
    const own = alice.client.history(id).findLast(({ text }) => text === 'counted');
    assert.equal(own?.sendState, 'accepted');
    assert.notEqual(own?.acceptedMs, undefined);
    await alice.events.first(
      (event) => event.type === 'accepted' && event.messageId === own?.id,
      'accepted',
    );
    await bob.texts(1);
    await carol.texts(1);
  });

  test('lose no message between two iterators, nor over a restart', async () => {
    for (const text of ['1', '2', '3', '4']) await alice.client.send(id, text);
    await carol.texts(4);
    assert.deepEqual(await bob.texts(1), ['1']);
    assert.deepEqual(await bob.texts(1), ['2']);
    await bob.close();
    await alice.client.send(id, '5');
    await bob.open();
    await bob.start();
    assert.deepEqual(await bob.texts(3), ['3', '4', '5']);
    await carol.texts(1);
  });

  test('may send while they are offline: it leaves when the node is there again', async () => {
    await rig.red.node?.stop();
    await alice.client.send(id, 'sealed in the dark');
    const own = alice.client.history(id).at(-1);
    assert.equal(own?.sendState, 'sealed');
    await alice.close();
    await alice.open();
    await rig.red.start([rig.blue]);
    await alice.start();
    assert.deepEqual(await bob.texts(1), ['sealed in the dark']);
    assert.deepEqual(await carol.texts(1), ['sealed in the dark']);
    assert.deepEqual(bob.client.undecryptable(), []);
  });

  test('learn of members that the creator adds later', async () => {
    const dave = await rig.client('dave@blue.example');
    await alice.client.addMembers(id, [dave.userId]);
    await dave.joined();
    await alice.client.send(id, 'welcome');
    for (const client of [bob, carol, dave]) assert.deepEqual(await client.texts(1), ['welcome']);
    await dave.client.send(id, 'thanks');
    for (const client of [alice, bob, carol]) {
      assert.deepEqual(await client.texts(1), ['thanks']);
    }
    const members = [alice, bob, carol, dave].map(({ userId }) => userId).sort();
    for (const client of [alice, bob, carol, dave]) {
      assert.deepEqual(await client.client.members(id), members);
    }
  });

  test('publish 50 packages and a last resort per suite, and refill when they run low', async () => {
    const { identityPub, userId } = bob.client.whoami();
    const { store } = rig.blue;
    assert(store !== undefined);
    const counts = async (): Promise<number[]> =>
      (await store.keyPackageCounts(identityPub)).map(({ singleUse }) => singleUse);
    const before = await store.keyPackageCounts(identityPub);
    assert(before.every(({ hasLastResort, singleUse }) => hasLastResort && singleUse >= 20));
    assert.deepEqual(new Set(before.map(({ suite }) => suite)), new Set(suites));
    const published = bob.logged.count;
    // Claims of others, until 19 are left: the fetch that takes the last one makes the node tell bob.
    const claim = (n: number): ReturnType<typeof store.claimKeyPackages> =>
      store.claimKeyPackages({
        userId,
        claimId: new Uint8Array(16).fill(n),
        scope: 'local',
        requester: `test ${n}`,
        suites,
        singleUsePerRequesterPerHour: 100,
        singleUsePerTargetPerHour: 100,
      });
    // The preferred suite's: every claim takes one of those.
    const left = before.find(({ suite }) => suite === suites[0])?.singleUse ?? 0;
    for (let n = 0; n < left - 20; n += 1) await claim(n);
    await carol.client.createConversation({ name: 'one more', members: [userId] });
    await bob.logged.first(
      ({ event }) => event === 'key packages published',
      'a refill',
      published,
    );
    assert((await counts()).every((count) => count >= 45));
  });

  test('are told that their session ended, stop trying, and go on after a login', async () => {
    const spki = await transportSpki(carol);
    await rig.red.store?.endSession(spki);
    await rig.red.node?.stop();
    await rig.red.start([rig.blue]);
    await carol.events.first(
      (event) => event.type === 'link' && event.state === 'sessionExpired',
      'sessionExpired',
    );
    await assert.rejects(carol.client.online(), (error) => hasReason(error, 'NOT_LOGGED_IN'));
    await bob.client.send(id, 'while logged out');
    await carol.login();
    await carol.client.online();
    assert.deepEqual(await carol.texts(1), ['while logged out']);
  });
});

/** The transport key of a client, from its closed store; the client is running again after. */
async function transportSpki(client: RigClient): Promise<Uint8Array> {
  await client.close();
  let record: AccountRecord | undefined;
  {
    using store = openStore(client.storePath, client.storeKey);
    record = store.account.get();
  }
  await client.open();
  await client.start();
  assert(record !== undefined);
  return loadIdentity(record.certificatePem, record.privateKeyPem).spkiSha256;
}

describe('a client without an account', () => {
  test('says so, and knows the difference between a wrong password and no node', async () => {
    await using rig = await Rig.make();
    await using client = await QpcClient.open({
      storePath: ':memory:',
      storeKey: new Uint8Array(32),
      runtime: testRuntime,
      transport: rig.network.transport('somebody'),
    });
    assert.throws(() => client.start(), NoAccountError);
    assert.throws(() => client.whoami(), NoAccountError);
    await assert.rejects(client.send(new Uint8Array(32), 'x'), NoAccountError);
    await rig.client('erin@red.example');
    await assert.rejects(
      client.register({
        userId: 'erin@red.example',
        password: new TextEncoder().encode('another one'),
        nodeAddress: rig.red.address,
      }),
      (error) => hasReason(error, 'NAME_TAKEN'),
    );
    await rig.red.node?.stop();
    await assert.rejects(
      client.register({
        userId: 'frank@red.example',
        password: new TextEncoder().encode('another one'),
        nodeAddress: rig.red.address,
      }),
      (error) => hasReason(error, 'DISCONNECTED', 'TIMEOUT'),
    );
  });
});
