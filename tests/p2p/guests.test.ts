/**
 * A node's relay and its users' addresses: 801 tells who has a delivery token and nobody else, and
 * devices of peers' users get a place at the relay by a credential of the log that this node audits.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { wrapCredential } from '@quicprochat/kt-log';
import { makeSwarmKey, signEndpointRecord } from '@quicprochat/p2p';
import {
  call,
  deliveryTokenHash,
  hasReason,
  maxKtHeardLogs,
  methods,
  signingKeyFromSeed,
  systemClock,
  systemRandom,
  type SigningKey,
} from '@quicprochat/proto';
import { makeIdentity, memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { freePort } from '../cluster/free-port.ts';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const kt =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\nreasonable_monitoring_window_ms = 50\nmax_behind_ms = 600\n';

function endpointOf(device: SigningKey, swarmKey = makeSwarmKey(systemRandom)) {
  const nowMs = systemClock.now();
  const facts = { swarmKey: swarmKey.publicKey, addresses: [], relays: [], mailboxes: [] };
  const times = { seq: nowMs, issuedMs: nowMs, expiresMs: nowMs + 3_600_000 };
  return signEndpointRecord({ ...facts, ...times }, device);
}

/** With a credential that is final and whose checkpoint red has cosigned: a moment after registering. */
async function eventuallyPublished(
  { connection, identityKey }: TestDevice,
  publish: (
    device: SigningKey,
    credential: Uint8Array,
  ) => Promise<{ readonly relays: readonly string[] }>,
) {
  const deadlineMs = performance.now() + 20_000;
  for (;;) {
    const request = { case: 'own', value: {} } as const;
    const made = await call(connection, methods.ktCredential, { request });
    const { credential: response, checkpoint, entry, inclusion } = made;
    const credential = wrapCredential({ response, checkpoint, entry, inclusion });
    try {
      return { credential, ...(await publish(identityKey, credential)) };
    } catch (error) {
      if (!hasReason(error, 'BLOCKED') || performance.now() > deadlineMs) throw error;
      await systemClock.sleep(100);
    }
  }
}

describe('endpoints at a node', () => {
  let red: LocalNode;
  let blue: LocalNode;
  let anybody: Connection;

  before(async () => {
    const network = memoryNetwork(testRuntime);
    const place = `127.0.0.1:${await freePort()}`;
    const p2p = `[p2p]\nlisten = "${place}"\nadvertise = ["${place}"]\nguests = 1\n`;
    red = await LocalNode.create(network, 'red.example', p2p + kt);
    blue = await LocalNode.create(network, 'blue.example', kt);
    await red.start([blue]);
    await blue.start([red]);
    anybody = await red.dial(await makeIdentity(systemRandom), 'somewhere');
  });
  after(async () => {
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  test('801 tells who has a delivery token, if the device wants that', async () => {
    await using alice = await TestDevice.register(red, 'alice@red.example');
    const { rid } = alice;
    const token = systemRandom.bytes(16);
    const ask = (one = token, of = rid) =>
      call(anybody, methods.resolveEndpoint, { rid: of, token: one });
    await refused(ask(), 'BLOCKED');
    await call(alice.connection, methods.setDeliveryTokens, { hashes: [deliveryTokenHash(token)] });
    await refused(ask(), 'UNKNOWN_DEVICE');
    const endpoint = endpointOf(alice.identityKey);
    await call(alice.connection, methods.publishEndpoint, { endpoint });
    await refused(ask(), 'UNKNOWN_DEVICE');
    await call(alice.connection, methods.publishEndpoint, { endpoint, isShared: true });
    assert.deepEqual((await ask()).endpoint?.record, endpoint.record);
    await refused(ask(systemRandom.bytes(16)), 'BLOCKED');
    await refused(ask(token, systemRandom.bytes(32)), 'BLOCKED');
    await refused(ask(systemRandom.bytes(15)), 'BAD_FIELD');
    await call(alice.connection, methods.setDeliveryTokens, { hashes: [] });
    await refused(ask(), 'BLOCKED');
    const another = endpointOf(signingKeyFromSeed(systemRandom.bytes(32)));
    const foreign = call(alice.connection, methods.publishEndpoint, { endpoint: another });
    await refused(foreign, 'BAD_CREDENTIAL');
    const elsewhere = await blue.dial(await makeIdentity(systemRandom), 'somewhere');
    await refused(call(elsewhere, methods.publishEndpoint, { endpoint }), 'FEATURE_OFF');
    await refused(call(elsewhere, methods.resolveEndpoint, { rid, token }), 'FEATURE_OFF');
  });

  test('a guest has a place at the relay by the credential of its user, and nothing else opens one', async () => {
    await using bob = await TestDevice.register(blue, 'bob@blue.example');
    const publish = (device: SigningKey, credential: Uint8Array) =>
      call(anybody, methods.publishEndpoint, { endpoint: endpointOf(device), credential });
    const stranger = signingKeyFromSeed(systemRandom.bytes(32));
    await refused(publish(stranger, new Uint8Array(0)), 'BAD_FIELD');
    await refused(publish(stranger, systemRandom.bytes(3_000)), 'BLOCKED');
    const { credential, relays } = await eventuallyPublished(bob, publish);
    assert(relays.length > 0);
    // Somebody else's credential says nothing of this device.
    await refused(publish(stranger, credential), 'BLOCKED');
    const damaged = Uint8Array.from(credential, (byte, i) => (i === 200 ? byte ^ 1 : byte));
    await refused(publish(bob.identityKey, damaged), 'BLOCKED');
    // There is one place, and it is taken, but not to who has it.
    await publish(bob.identityKey, credential);
    await using eve = await TestDevice.register(blue, 'eve@blue.example');
    await assert.rejects(eventuallyPublished(eve, publish), { reason: 'QUOTA' });
  });

  test('536 and 537 answer about known logs, and refuse what is beyond their bounds', async () => {
    const known = { origin: 'red.example/kt', size: 1n };
    const { logs } = await call(anybody, methods.ktHeard, {
      logs: [known, { origin: 'nobody.example/kt', size: 0n }],
    });
    assert.deepEqual(
      logs.map(({ origin, head, evidence }) => [origin, head?.size, evidence.length]),
      [['red.example/kt', 1n, 0]],
    );
    assert((logs[0]?.checkpoint.length ?? 0) > 0);
    const many = Array.from({ length: maxKtHeardLogs + 1 }, () => known);
    await refused(call(anybody, methods.ktHeard, { logs: many }), 'BAD_FIELD');
    await refused(call(anybody, methods.ktHeard, { logs: [] }), 'BAD_FIELD');
    const hash = systemRandom.bytes(32);
    await refused(call(anybody, methods.ktEvidence, { hash }), 'UNKNOWN_EVIDENCE');
    await refused(call(anybody, methods.ktEvidence, { hash: hash.slice(1) }), 'BAD_FIELD');
    await refused(call(anybody, methods.ktEvidence, { hash, offset: 2n ** 60n }), 'BAD_FIELD');
  });
});
