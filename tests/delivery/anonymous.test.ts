/** Enqueue without a login: a delivery token speaks for the sender, whom nobody knows. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  deliveryTokenHash,
  maxAnonymousBatchBytes,
  maxRenewalsBytes,
  messageTag,
  methods,
  renewalBytes,
  systemRandom,
  verifyDeliveryProof,
} from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

suite('an anonymous Enqueue', () => {
  const network = memoryNetwork(testRuntime);
  const config = '[rates]\nsend_anonymous = { per_second = 0.01, burst = 20 }\n';
  const token = bytes(16);
  let red: LocalNode;
  let blue: LocalNode;
  let bob: TestDevice;
  let stranger: TestDevice;

  before(async () => {
    red = await LocalNode.create(network, 'red.example', config);
    blue = await LocalNode.create(network, 'blue.example');
    await red.start([blue]);
    await blue.start([red]);
    bob = await TestDevice.register(red, 'bob@red.example');
    await call(bob.connection, methods.setDeliveryTokens, { hashes: [deliveryTokenHash(token)] });
    stranger = await TestDevice.dial(red, 'nobody@red.example');
  });
  after(async () => {
    await bob[Symbol.asyncDispose]();
    await stranger[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  const request = () => ({
    rid: bob.rid,
    domain: 'red.example',
    mid: bytes(16),
    payload: bytes(40),
    token,
  });

  test('is taken with a valid token, once, and proven', async () => {
    const row = request();
    const { mid, payload, rid, domain } = row;
    for (const outcome of [Outcome.STORED, Outcome.DUPLICATE]) {
      const answer = await call(stranger.connection, methods.enqueue, row);
      assert.equal(answer.outcome, outcome);
      const receivedMs = Number(answer.receivedMs);
      const tag = messageTag(mid, payload);
      const statement = { mid, tag, target: { rid, domain }, receivedMs };
      const keys = [red.secrets?.signing.publicKey ?? bytes(32)];
      assert.ok(verifyDeliveryProof(statement, answer.proof, keys));
    }
    const { rows } = await call(bob.connection, methods.fetch, { log: {} });
    assert.deepEqual(rows.at(-1)?.mid, mid);
  });

  test('tells nothing about devices: no token, a wrong one and no such device are one answer', async () => {
    const messages = new Set<string>();
    for (const wrong of [
      { token: bytes(16) },
      { token: new Uint8Array(0) },
      { rid: bytes(32) },
      { rid: bytes(32), token: new Uint8Array(0) },
    ]) {
      const sent = call(stranger.connection, methods.enqueue, { ...request(), ...wrong });
      messages.add((await refused(sent, 'BLOCKED')).message);
    }
    assert.equal(messages.size, 1);
  });

  test('goes to no other node, and to a channel by its write key alone', async () => {
    const remote = { ...request(), domain: 'blue.example' };
    await refused(call(stranger.connection, methods.enqueue, remote), 'CALLER_CLASS');
    const unknown = { ...request(), domain: 'green.example' };
    await refused(call(stranger.connection, methods.enqueue, unknown), 'CALLER_CLASS');
    // What is taken: tests/channels.
    const channel = { cid: bytes(32), epoch: 1n, signature: bytes(64), domainsHash: bytes(16) };
    const post = { mid: bytes(16), payload: bytes(40), channel };
    await refused(call(stranger.connection, methods.enqueue, post), 'DOMAINS_STALE');
  });

  test('may be a batch: each target is judged by its own token', async () => {
    const { mid, payload, ...target } = request();
    const answer = await call(stranger.connection, methods.batchEnqueue, {
      payloads: [{ mid, payload }],
      targets: [
        { payload: 0, ...target },
        { payload: 0, ...target, token: bytes(16) },
        { payload: 0, ...target, domain: 'blue.example' },
      ],
    });
    assert.deepEqual(
      answer.statuses.map(({ outcome, reason }) => [outcome, reason]),
      [
        [1, ''],
        [0, 'BLOCKED'],
        [0, 'CALLER_CLASS'],
      ],
    );
  });

  test('may ask with a token of before for what its device left; the answer is one for all who have none', async () => {
    await using carol = await TestDevice.register(red, 'carol@red.example');
    const [old, next] = [bytes(16), bytes(16)];
    const renewals = bytes(64 * renewalBytes);
    const tell = (one: Uint8Array, left: Uint8Array = bytes(0)) =>
      call(carol.connection, methods.setDeliveryTokens, {
        hashes: [deliveryTokenHash(one)],
        renewals: left,
      });
    const ask = (rid: Uint8Array, token: Uint8Array) =>
      call(stranger.connection, methods.readTokenRenewals, { rid, token });
    assert.equal((await tell(old)).wantsRenewals, false);
    assert.equal((await tell(next)).wantsRenewals, true);
    const messages = new Set<string>();
    const refusedAll = async (...asked: [Uint8Array, Uint8Array][]): Promise<void> => {
      for (const one of asked) messages.add((await refused(ask(...one), 'BLOCKED')).message);
    };
    await refusedAll([carol.rid, old]);
    assert.equal((await tell(next, renewals)).wantsRenewals, false);
    await refusedAll([carol.rid, next], [carol.rid, bytes(16)], [bytes(32), old], [bob.rid, old]);
    assert.equal(messages.size, 1);
    const found = await ask(carol.rid, old);
    assert.deepEqual([found.hash, found.renewals], [deliveryTokenHash(next), renewals]);
    for (const [rid, token] of [
      [bytes(31), old],
      [carol.rid, bytes(0)],
    ] as const) {
      await refused(ask(rid, token), 'BAD_FIELD');
    }
    await refused(tell(old, bytes(renewalBytes + 1)), 'BAD_FIELD');
    await refused(tell(old, bytes(maxRenewalsBytes + renewalBytes)), 'BAD_FIELD');
    assert.deepEqual((await ask(carol.rid, old)).renewals, renewals, 'and nothing was set');
  });

  test('is bounded in bytes before it is decoded, and by address', async () => {
    const large = { methodId: 205, requestId: 1, payload: bytes(maxAnonymousBatchBytes + 1) };
    const response = await stranger.connection.call(large, {
      deadlineMs: 5_000,
      maxResponseBytes: 1024,
    });
    assert.equal(response.status, 7);
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, () => call(stranger.connection, methods.enqueue, request())),
    );
    const limited = results.filter(({ status }) => status === 'rejected');
    assert.ok(limited.length >= 10);
    // Another connection of the same address, with another key, has no more.
    await using again = await TestDevice.dial(red, 'nobody@red.example');
    const error = await refused(call(again.connection, methods.enqueue, request()), 'RATE_LIMITED');
    assert.ok((error.retryAfterMs ?? 0) > 0);
  });

  test('leaves no sender: nobody is told when the row expires', async () => {
    const db = red.store;
    assert.ok(db !== undefined);
    const outcomes = await db.enqueueBatch({
      payloads: [{ mid: bytes(16), payload: bytes(9) }],
      targets: [{ payload: 0, rid: bob.rid, token }],
      kind: 1,
      ttlMs: -1,
      needsTokens: true,
    });
    assert.equal(outcomes[0]?.outcome, 'stored');
    const { head } = await call(bob.connection, methods.fetch, { log: {} });
    await db.sweep();
    assert.equal((await call(bob.connection, methods.fetch, { log: {} })).head, head);
  });
});

suite('what one device may send', () => {
  const network = memoryNetwork(testRuntime);

  test('is bounded by distinct recipients in an hour, known ones go on', async () => {
    const config = '[limits]\nrecipients_per_sender_per_hour = 3\n';
    await using red = await LocalNode.create(network, 'red.example', config);
    await red.start();
    await using bob = await TestDevice.register(red, 'bob@red.example');
    const send = (rid: Uint8Array) =>
      call(bob.connection, methods.enqueue, {
        rid,
        domain: 'red.example',
        mid: bytes(16),
        payload: bytes(9),
      });
    await send(bob.rid);
    // Whether they exist or not: it is the asking that counts.
    for (let asked = 0; asked < 2; asked += 1) await refused(send(bytes(32)), 'UNKNOWN_DEVICE');
    const error = await refused(send(bytes(32)), 'QUOTA');
    assert.ok((error.retryAfterMs ?? 0) > 3_000_000);
    await send(bob.rid);
    const { statuses } = await call(bob.connection, methods.batchEnqueue, {
      payloads: [{ mid: bytes(16), payload: bytes(9) }],
      targets: [
        { payload: 0, rid: bytes(32), domain: 'red.example' },
        { payload: 0, rid: bob.rid, domain: 'red.example' },
      ],
    });
    assert.deepEqual(
      statuses.map(({ reason }) => reason),
      ['QUOTA', ''],
    );
    assert.ok((statuses[0]?.retryAfterMs ?? 0n) > 0n);
  });

  test('is bounded by bytes in a minute, and by messages of batches', async () => {
    const config =
      '[limits]\nmib_per_sender_per_minute = 3\n[rates]\nsend = { per_second = 0.1, burst = 50 }\n';
    await using red = await LocalNode.create(network, 'red.example', config);
    await red.start();
    await using bob = await TestDevice.register(red, 'bob@red.example');
    const target = { rid: bob.rid, domain: 'red.example' };
    const batch = (count: number, size: number) =>
      call(bob.connection, methods.batchEnqueue, {
        payloads: Array.from({ length: count }, () => ({ mid: bytes(16), payload: bytes(size) })),
        targets: Array.from({ length: count }, (_, payload) => ({ payload, ...target })),
      });
    await batch(4, 500 * 1024);
    const full = await refused(batch(4, 500 * 1024), 'RATE_LIMITED');
    assert.ok((full.retryAfterMs ?? 0) > 10_000);
    await batch(40, 10);
    await refused(batch(40, 10), 'RATE_LIMITED');
  });
});
