/** The client's half of a channel at a real node: its signature is taken, and domains are named once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { channelWriteKey, domainsOf, sendPost, signPost } from '@quicprochat/client-lib/channel';
import { createMls, mandatorySuite } from '@quicprochat/client-lib/mls';
import {
  call,
  channelId,
  deviceChannelSeed,
  deviceIdOf,
  methods,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import {
  Outcome,
  type EnqueueRequestSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

test('a member posts; the node hears the domains only when it asks for them', async () => {
  const network = memoryNetwork(testRuntime);
  await using red = await LocalNode.create(network, 'red.example');
  await red.start();
  await using alice = await TestDevice.register(red, 'alice@red.example');
  const { userId, rid, seed, connection } = alice;
  const mls = createMls({
    clock: systemClock,
    random: systemRandom,
    manifests: () => ({
      devices: [{ deviceId: deviceIdOf(rid), identityPub: rid }],
      revoked: [],
    }),
  });
  const group = await mls.createGroup({
    suite: mandatorySuite,
    identity: { userId, deviceId: deviceIdOf(rid) },
    signatureKey: { publicKey: rid, seed },
    name: 'many',
  });
  const nonce = systemRandom.bytes(32);
  const hubs = ['red.example'];
  const cid = channelId(deviceChannelSeed(rid, nonce), hubs);
  const { publicKey: writePub } = await channelWriteKey(mls, group, cid);
  const channel = { cid, hubs, epoch: group.epoch, writePub, nonce };
  await call(connection, methods.createChannel, channel);

  const sent: number[] = [];
  const session: Parameters<typeof sendPost>[0] = {
    call(method, request, options) {
      // Every call here is an Enqueue.
      const { channel } = request as MessageInitShape<typeof EnqueueRequestSchema>;
      sent.push(channel?.domains?.length ?? 0);
      return call(connection, method, request, options);
    },
  };
  const message = () => ({ mid: systemRandom.bytes(16), payload: systemRandom.bytes(60) });
  const domains = domainsOf(group);
  for (let index = 0; index < 2; index += 1) {
    const post = await signPost(mls, group, cid, message());
    assert.equal((await sendPost(session, post, domains)).outcome, Outcome.STORED);
    assert.equal((await sendPost(session, post, domains)).outcome, Outcome.DUPLICATE);
  }
  assert.deepEqual(sent, [0, 1, 0, 0, 0]);
  const forged = { ...(await signPost(mls, group, cid, message())), payload: new Uint8Array(9) };
  await refused(sendPost(session, forged, domains), 'BAD_SIGNATURE');
  const { rows } = await call(connection, methods.fetch, { log: { cid } });
  assert.equal(rows.length, 2);
});
