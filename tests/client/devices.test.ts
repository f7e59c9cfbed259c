/**
 * The devices and keys of an account through the public interface, on real nodes: added by the
 * password, revoked, replaced, deleted; each seen in the log by the account's other device and by a
 * contact at another node (docs/developer/verification.md). And keys that somebody else had logged.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { QpcClient, type ClientEvent, type Contact } from '@quicprochat/client-lib';
import { openStore } from '@quicprochat/client-lib/store';
import {
  call,
  hasReason,
  manifestOfValue,
  manifestValue,
  methods,
  nextManifest,
  signingKeyFromSeed,
  systemRandom,
} from '@quicprochat/proto';
import { encode, updateRequest } from '@quicprochat/kt-log/verify';
import { CloseCode, loadIdentity } from '@quicprochat/proto/transport';
import { testRuntime } from '../cluster/local-node.ts';
import { inTime, Rig, type RigClient } from './rig.ts';

const password = new TextEncoder().encode('correct horse battery');
const refused = (reason: string) => (error: unknown) => hasReason(error, reason);

/** A second device of a client's account: another store, the same password. */
async function secondDevice(first: RigClient): Promise<QpcClient> {
  const { userId, node } = first;
  const client = await QpcClient.open({
    storePath: ':memory:',
    storeKey: systemRandom.bytes(32),
    runtime: testRuntime,
    transport: node.network.transport(`${userId} again`),
  });
  await client.addDevice({ userId, password, nodeAddress: node.address });
  return client;
}

async function textsOf(client: QpcClient, count: number): Promise<readonly string[]> {
  const texts: string[] = [];
  for await (const { text } of client.messages()) {
    texts.push(text);
    if (texts.length === count) break;
  }
  return texts;
}

/** Looks up until the log shows it: it may answer from a head that auditors have cosigned already. */
async function shown(
  client: RigClient,
  userId: string,
  matches: (contact: Contact) => boolean,
): Promise<Contact> {
  for (;;) {
    const contact = await client.client.lookUp(userId);
    if (matches(contact)) return contact;
    await testRuntime.clock.sleep(50);
  }
}

describe('an account', { timeout: 120_000 }, () => {
  test('gets a device by its password, and loses it; everybody sees it in the log', async () => {
    await using rig = await Rig.make();
    const alice = await rig.client('alice@red.example');
    const bob = await rig.client('bob@blue.example');
    assert.equal((await bob.client.lookUp(alice.userId)).devices.length, 1);
    const members = [bob.userId];
    const older = await alice.client.createConversation({ name: 'older', members });
    await using second = await secondDevice(alice);
    const { deviceId } = second.whoami();
    assert.deepEqual(second.whoami().accountKey, alice.client.whoami().accountKey);
    const added = await alice.events.first(({ type }) => type === 'deviceChange', 'the new device');
    assert(added.type === 'deviceChange');
    assert.deepEqual([added.version, added.change, added.added], [1, 'devices', [deviceId]]);
    const seen = await shown(bob, alice.userId, ({ version }) => version === 1);
    assert.deepEqual(
      seen.devices.map((device) => device.deviceId),
      [alice.client.whoami().deviceId, deviceId],
    );
    const own = await alice.client.devices();
    assert.deepEqual(
      own.map((device) => [device.deviceId, device.isThisDevice, device.sessionExpiresMs > 0]),
      [
        [alice.client.whoami().deviceId, true, true],
        [deviceId, false, true],
      ],
    );

    // It is in what the account begins from now on, and comes into what was there when it is added.
    second.start();
    const newer = await alice.client.createConversation({ name: 'newer', members });
    await alice.client.addMembers(older, [alice.userId]);
    const mine = [alice.client.whoami().deviceId, deviceId].toSorted();
    for (const id of [newer, older]) {
      const [me] = await alice.client.listMembers(id);
      assert.deepEqual(me?.deviceIds.toSorted(), mine);
      const { messageId } = await alice.client.send(id, 'to myself, too');
      const isIt = (event: ClientEvent): boolean =>
        event.type === 'accepted' && event.messageId === messageId;
      await alice.events.first(isIt, 'word of this message');
    }
    const texts = inTime(textsOf(second, 2), 'two texts at the second device');
    assert.deepEqual(await texts, ['to myself, too', 'to myself, too']);
    // Nothing is left to add.
    await alice.client.addMembers(older, [alice.userId]);

    await assert.rejects(
      alice.client.revokeDevice(alice.client.whoami().deviceId),
      refused('BAD_FIELD'),
    );
    await assert.rejects(alice.client.revokeDevice('aaaaaaaaaaaaaaaa'), refused('UNKNOWN_DEVICE'));
    await alice.client.revokeDevice(deviceId, 'lost');
    await shown(bob, alice.userId, ({ devices }) => devices.length === 1);
    await assert.rejects(
      second.login({ userId: alice.userId, password }),
      refused('UNKNOWN_DEVICE'),
    );
    assert.deepEqual(
      (await bob.client.keyHistory(alice.userId)).map(({ version, kind }) => [version, kind]),
      [
        [0, 'first'],
        [1, 'devices'],
        [2, 'devices'],
      ],
    );
    // What this device did itself is no news to it.
    assert.equal(alice.events.all().filter(({ type }) => type === 'deviceChange').length, 1);
    assert.equal(alice.events.all().filter(({ type }) => type === 'unexpectedKey').length, 0);
  });

  test('replaces its key, which a later device gets, and is deleted for good', async () => {
    await using rig = await Rig.make();
    const alice = await rig.client('alice@red.example');
    const bob = await rig.client('bob@blue.example');
    await bob.client.lookUp(alice.userId);
    const before = alice.client.whoami().accountKey;
    assert(before !== undefined);
    bob.client.verify(alice.userId, before);
    await alice.client.rotateAccountKey({ password });
    const after = alice.client.whoami().accountKey;
    assert.notDeepEqual(after, before);
    const contact = await shown(bob, alice.userId, ({ version }) => version === 1);
    assert.deepEqual([contact.accountKey, contact.verification], [after, 'compared']);
    const wrong = new TextEncoder().encode('wrong');
    await assert.rejects(
      alice.client.rotateAccountKey({ password: wrong }),
      refused('AUTH_FAILED'),
    );
    await using second = await secondDevice(alice);
    assert.deepEqual(second.whoami().accountKey, after);

    await alice.client.deleteAccount();
    const gone = await shown(bob, alice.userId, ({ isClosed }) => isClosed);
    assert.deepEqual([gone.isClosed, gone.devices], [true, []]);
    await assert.rejects(
      bob.client.createConversation({ name: '', members: [alice.userId] }),
      refused('UNKNOWN_USER'),
    );
    await alice.close();
    const { userId, node } = alice;
    await using again = await QpcClient.open({
      storePath: ':memory:',
      storeKey: systemRandom.bytes(32),
      runtime: testRuntime,
      transport: node.network.transport('again'),
    });
    await assert.rejects(
      again.register({ userId, password, nodeAddress: node.address }),
      refused('NAME_TAKEN'),
    );
  });

  test('is told when somebody with a device but not the account key replaces that key', async () => {
    await using rig = await Rig.make();
    const alice = await rig.client('alice@red.example');
    const bob = await rig.client('bob@blue.example');
    await bob.client.lookUp(alice.userId);
    const accountKey = alice.client.whoami().accountKey;
    assert(accountKey !== undefined);
    bob.client.verify(alice.userId, accountKey);
    const id = await bob.client.createConversation({ name: 'x', members: [alice.userId] });
    await alice.close();
    await stealAccount(alice);

    await alice.open();
    await alice.start();
    const event = await alice.events.first(({ type }) => type === 'unexpectedKey', 'the theft');
    assert(event.type === 'unexpectedKey');
    assert.equal(event.reason, 'UNEXPECTED_KEY');
    assert.equal(alice.client.contact(alice.userId)?.version, 0);
    await assert.rejects(
      inTime(
        shown(bob, alice.userId, () => false),
        'the refusal',
      ),
      refused('IDENTITY_RESET'),
    );
    await assert.rejects(bob.client.send(id, 'secret'), refused('IDENTITY_RESET'));
    const told = await bob.events.first(({ type }) => type === 'identityReset', 'the reset');
    assert(told.type === 'identityReset' && told.isBlocked);
    await bob.client.acceptIdentityReset(alice.userId);
    await bob.client.send(id, 'after all');
  });
});

/** Logs a manifest with another account key, with the session of the closed client's device. */
async function stealAccount({ storePath, storeKey, node, userId }: RigClient): Promise<void> {
  using store = openStore(storePath, storeKey);
  const account = store.account.get();
  const own = store.contacts.get(userId);
  assert(account !== undefined && own !== undefined);
  const identity = loadIdentity(account.certificatePem, account.privateKeyPem);
  const connection = await node.dial(identity, 'thief');
  const stolen = nextManifest(
    manifestOfValue(own.value),
    {},
    {
      accountKey: signingKeyFromSeed(systemRandom.bytes(32)),
    },
  );
  const request = encode(updateRequest, {
    label: Buffer.from(userId),
    greatestVersion: own.version,
    values: [manifestValue(stolen)],
  });
  await inTime(call(connection, methods.ktUpdate, { request }), 'the theft');
  await connection.close(CloseCode.Normal, 'done');
}
