/** Delivery tokens (208): who has one gets past the quota of strangers, here and over a peer. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { call, deliveryTokenHash, methods, systemRandom } from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import type { ClientEvent } from '@quicprochat/client-lib';
import { Rig, type RigClient } from '../client/rig.ts';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const config = (strangerRows: number): string =>
  `[limits]\ninbox_stranger_rows = ${strangerRows}\n[rates.auth]\nper_second = 1000\nburst = 1000\n`;

suite('delivery tokens at a node', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let blue: LocalNode;
  let bob: TestDevice;
  let carol: TestDevice;
  let count = 0;

  before(async () => {
    red = await LocalNode.create(network, 'red.example', config(3));
    blue = await LocalNode.create(network, 'blue.example', config(3));
    await red.start([blue]);
    await blue.start([red]);
    bob = await TestDevice.register(red, 'bob@red.example');
    carol = await TestDevice.register(blue, 'carol@blue.example');
  });
  after(async () => {
    for (const device of [bob, carol]) await device[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  const newcomer = (): Promise<TestDevice> =>
    TestDevice.register(red, `alice${(count += 1)}@red.example`);
  const send = (from: TestDevice, to: TestDevice, token: Uint8Array = bytes(0)) =>
    call(from.connection, methods.enqueue, {
      rid: to.rid,
      domain: 'red.example',
      mid: bytes(16),
      payload: bytes(20),
      token,
    });
  const setTokens = (device: TestDevice, ...tokens: Uint8Array[]) =>
    call(device.connection, methods.setDeliveryTokens, { hashes: tokens.map(deliveryTokenHash) });
  const ackAll = async (device: TestDevice): Promise<void> => {
    const { head, storeId } = await call(device.connection, methods.fetch, { log: {} });
    await call(device.connection, methods.ack, { log: {}, storeId, upTo: head });
  };

  test('strangers have a quota of their own, and no time to come back; a new set is in force at once', async () => {
    await using alice = await newcomer();
    const tokens = Array.from({ length: 8 }, () => bytes(16));
    const [first = bytes(16), second = bytes(16)] = tokens;
    await setTokens(alice, ...tokens);
    for (const wrong of [bytes(0), bytes(16), bytes(0)]) await send(bob, alice, wrong);
    for (const wrong of [bytes(0), bytes(16)]) {
      const error = await refused(send(bob, alice, wrong), 'QUEUE_FULL');
      assert.equal(error.retryAfterMs, undefined);
    }
    for (const token of tokens) {
      assert.equal((await send(bob, alice, token)).outcome, Outcome.STORED);
    }
    await setTokens(alice, second);
    await refused(send(bob, alice, first), 'QUEUE_FULL');
    await send(bob, alice, second);
    await setTokens(alice);
    await refused(send(bob, alice, second), 'QUEUE_FULL');

    await refused(setTokens(alice, ...tokens, bytes(16)), 'BAD_FIELD');
    const short = call(alice.connection, methods.setDeliveryTokens, { hashes: [bytes(31)] });
    await refused(short, 'BAD_FIELD');
    await refused(send(bob, alice, bytes(15)), 'BAD_FIELD');
    await using stranger = await TestDevice.dial(red, 'nobody@red.example');
    await refused(setTokens(stranger, first), 'NOT_LOGGED_IN');
    // The refused calls changed nothing.
    await refused(send(bob, alice, first), 'QUEUE_FULL');
    await ackAll(alice);
    await send(bob, alice);
  });

  test('a token travels with the row to the peer; without one the row bounces there', async () => {
    await using alice = await newcomer();
    const token = bytes(16);
    await setTokens(alice, token);
    const payloads = Array.from({ length: 7 }, () => ({ mid: bytes(16), payload: bytes(20) }));
    const targets = payloads.map((_, payload) => ({
      payload,
      rid: alice.rid,
      domain: 'red.example',
      token: payload % 2 === 0 ? token : new Uint8Array(0),
    }));
    for (let sent = 0; sent < 2; sent += 1) await send(bob, alice);
    await call(carol.connection, methods.batchEnqueue, { payloads, targets });
    const bounced = await waitForNotice(carol);
    assert.equal(bounced, 2);
    const { rows } = await call(alice.connection, methods.fetch, { log: {} });
    assert.equal(rows.length, 2 + 4 + 1);
  });

  /** How many rows came back, once two did. */
  async function waitForNotice(device: TestDevice): Promise<number> {
    for (;;) {
      const { rows, head, storeId } = await call(device.connection, methods.fetch, { log: {} });
      if (rows.length >= 2) return rows.length;
      const cursor = { log: {}, after: head, storeId };
      await call(device.connection, methods.fetchWait, { cursors: [cursor], waitMs: 5_000 });
    }
  }
});

test('members hand tokens to each other, an inviter passes them on, and blocking takes them back', async () => {
  await using rig = await Rig.make(config(2));
  const [alice, bob, carol] = [
    await rig.client('alice@red.example'),
    await rig.client('bob@blue.example'),
    await rig.client('carol@red.example'),
  ];
  const tokensOf = (client: typeof alice): Promise<unknown> =>
    client.logged.first(({ event }) => event === 'delivery token told', 'a token at the node');
  for (const client of [alice, bob, carol]) await tokensOf(client);
  const id = await alice.client.createConversation({ name: 'three', members: [bob.userId] });
  await bob.joined();
  // Bob's token reaches Alice, who passes it on to Carol.
  await alice.logged.first(({ event }) => event === 'delivery token taken', 'a token of bob');
  await alice.client.addMembers(id, [carol.userId]);
  await alice.client.flush();
  await carol.joined();
  await bob.events.first(
    (event) => event.type === 'membersChanged' && event.members.length === 3,
    'bob to see carol',
  );
  await bob.close();
  for (let sent = 0; sent < 6; sent += 1) await carol.client.send(id, `from carol ${sent}`);
  for (let sent = 0; sent < 6; sent += 1) await alice.client.send(id, `from alice ${sent}`);
  await carol.client.flush();
  await alice.client.flush();
  await bob.open();
  await bob.start();
  assert.equal((await bob.texts(6)).length, 6);

  await bob.client.block(carol.userId);
  assert.deepEqual(bob.client.blocked(), [carol.userId]);
  await bob.close();
  // What goes with the token of before the block is a stranger's.
  const isBack = ({ type }: ClientEvent): boolean => type === 'waitsForToken' || type === 'bounced';
  const backOf = async ({ events }: RigClient, from: number): Promise<string> =>
    (await events.first(isBack, 'a copy that came back', from)).type;
  const from = carol.events.count;
  for (let sent = 0; sent < 6; sent += 1) await carol.client.send(id, `${carol.userId} ${sent}`);
  await carol.client.flush();
  assert.equal(await backOf(carol, from), 'waitsForToken');
  for (const { events } of [alice, carol]) {
    assert.ok(!events.all().some(({ type }) => type === 'bounced' || type === 'sendFailed'));
  }
});

test('who blocks somebody hands the new token to the others of a common conversation, and to them when it is over', async () => {
  await using rig = await Rig.make(config(2));
  const [alice, bob, carol] = [
    await rig.client('alice@red.example'),
    await rig.client('bob@blue.example'),
    await rig.client('carol@red.example'),
  ];
  for (const { logged } of [alice, bob, carol])
    await logged.first(({ event }) => event === 'delivery token told', 'a token at the node');
  const members = [bob.userId, carol.userId];
  const id = await alice.client.createConversation({ name: 'three', members });
  await bob.joined();
  await carol.joined();
  const taken = ({ event }: { readonly event: string }): boolean =>
    event === 'delivery token taken';
  const tokensTo = (one: RigClient, count: number): Promise<unknown> =>
    one.logged.first(() => one.logged.all().filter(taken).length >= count, `${count} tokens`);
  await tokensTo(alice, 2);
  await bob.client.block(carol.userId);
  await tokensTo(alice, 3);
  await bob.close();
  for (const sender of [alice, carol]) {
    for (let sent = 0; sent < 6; sent += 1)
      await sender.client.send(id, `${sender.userId} ${sent}`);
    await sender.client.flush();
  }
  await carol.events.first(({ type }) => type === 'waitsForToken', 'a copy that came back');
  await bob.open();
  await bob.start();
  const texts = await bob.texts(6);
  assert.deepEqual(
    [...texts].sort(),
    Array.from({ length: 6 }, (_, n) => `${alice.userId} ${n}`),
  );
  assert.ok(!alice.events.all().some(({ type }) => type === 'waitsForToken'));
  bob.client.unblock(carol.userId);
  assert.equal((await bob.texts(6)).length, 6);
});
