/** BatchEnqueue (205): the fan-out of messages in one request and one transaction. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  maxBatchTargets,
  messageTag,
  methods,
  systemRandom,
  verifyDeliveryProof,
} from '@quicprochat/proto';
import { Outcome, type TargetStatus } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const fresh = (size = 100) => ({ mid: bytes(16), payload: bytes(size) });

suite('BatchEnqueue', () => {
  const network = memoryNetwork(testRuntime);
  const quick = '[rates.auth]\nper_second = 1000\nburst = 1000\n';
  let red: LocalNode;
  let blue: LocalNode;
  let alice: TestDevice;
  let bob: TestDevice;
  let carol: TestDevice;
  let dave: TestDevice;

  before(async () => {
    red = await LocalNode.create(network, 'red.example', quick);
    blue = await LocalNode.create(network, 'blue.example', quick);
    await red.start([blue]);
    await blue.start([red]);
    alice = await TestDevice.register(red, 'alice@red.example');
    bob = await TestDevice.register(red, 'bob@red.example');
    carol = await TestDevice.register(blue, 'carol@blue.example');
    dave = await TestDevice.register(blue, 'dave@blue.example');
  });
  after(async () => {
    for (const device of [alice, bob, carol, dave]) await device[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  const atRed = (device: TestDevice, payload = 0) => ({
    payload,
    rid: device.rid,
    domain: 'red.example',
  });
  const atBlue = (device: TestDevice, payload = 0) => ({
    payload,
    rid: device.rid,
    domain: 'blue.example',
  });
  const send = (payloads: object[], targets: object[]) =>
    call(alice.connection, methods.batchEnqueue, { payloads, targets });
  /** The mids in an inbox, once there are so many. */
  async function midsOf(device: TestDevice, count: number): Promise<Uint8Array[]> {
    for (;;) {
      const { rows, head, storeId } = await call(device.connection, methods.fetch, { log: {} });
      if (rows.length >= count) {
        await call(device.connection, methods.ack, { log: {}, storeId, upTo: head });
        return rows.map(({ mid }) => mid);
      }
      const cursor = { log: {}, after: head, storeId };
      await call(device.connection, methods.fetchWait, { cursors: [cursor], waitMs: 5_000 });
    }
  }
  const outcomes = (statuses: readonly TargetStatus[]): Outcome[] =>
    statuses.map(({ outcome }) => outcome);

  test('one payload reaches devices here and at a peer, which gets it once, each with a proof', async () => {
    const { mid, payload } = fresh();
    const targets = [atRed(bob), atBlue(carol), atBlue(dave)];
    const { statuses } = await send([{ mid, payload }], targets);
    const signKeys = [red.secrets?.signing.publicKey ?? new Uint8Array(0)];
    for (const [index, { rid, domain }] of targets.entries()) {
      const status = statuses[index];
      assert.equal(status?.outcome, Outcome.STORED);
      const statement = {
        mid,
        tag: messageTag(mid, payload),
        target: { rid, domain },
        receivedMs: Number(status?.receivedMs),
      };
      assert.ok(verifyDeliveryProof(statement, status?.proof ?? bytes(64), signKeys));
    }
    for (const device of [bob, carol, dave]) assert.deepEqual(await midsOf(device, 1), [mid]);
    const again = await send([{ mid, payload }], [...targets, atRed(carol)]);
    assert.deepEqual(outcomes(again.statuses).slice(0, 3), [2, 2, 2]);
    assert.equal(again.statuses[3]?.reason, 'UNKNOWN_DEVICE');
    // The single Enqueue of a row that went by a batch is a repeat as well.
    const single = { rid: dave.rid, domain: 'blue.example', mid, payload };
    const repeated = await call(alice.connection, methods.enqueue, single);
    assert.equal(repeated.outcome, Outcome.DUPLICATE);
    const toCarol = await call(alice.connection, methods.relayStatus, {
      domain: 'blue.example',
      mids: [mid],
    });
    assert.equal(toCarol.statuses.length, 2);
  });

  test('a device gets its messages in the order of the list, whoever else gets them', async () => {
    const payloads = [fresh(), fresh(), fresh()];
    const mids = payloads.map(({ mid }) => mid);
    const orders = [
      [bob, [2, 0, 1]],
      [carol, [1, 0, 2]],
      [dave, [0, 2, 1, 0]],
    ] as const;
    const targets = [0, 1, 2, 3].flatMap((turn) =>
      orders.flatMap(([device, order]) => {
        const payload = order[turn];
        if (payload === undefined) return [];
        return [device === bob ? atRed(device, payload) : atBlue(device, payload)];
      }),
    );
    const { statuses } = await send(payloads, targets);
    assert.ok(statuses.every(({ outcome }) => outcome !== Outcome.UNSPECIFIED));
    for (const [device, order] of orders) {
      const expected = [...new Set(order)].map((index) => mids[index]);
      assert.deepEqual(await midsOf(device, 3), expected);
    }
  });

  test('what one target is refused for concerns nobody else', async () => {
    const { mid, payload } = fresh();
    const stranger = bytes(32);
    const { statuses } = await send(
      [{ mid, payload }],
      [
        { payload: 0, rid: stranger, domain: 'red.example' },
        { payload: 0, rid: carol.rid, domain: 'green.example' },
        atRed(bob),
      ],
    );
    assert.deepEqual(
      statuses.map(({ outcome, status, reason }) => ({ outcome, status, reason })),
      [
        { outcome: 0, status: 4, reason: 'UNKNOWN_DEVICE' },
        { outcome: 0, status: 3, reason: 'PEER_DENIED' },
        { outcome: 1, status: 0, reason: '' },
      ],
    );
    assert.deepEqual(await midsOf(bob, 1), [mid]);
  });

  test('as many targets as fit, and not one more of anything', async () => {
    const payload = fresh(10);
    const targets = Array.from({ length: maxBatchTargets - 1 }, () => ({
      payload: 0,
      rid: bytes(32),
      domain: 'blue.example',
    }));
    const { statuses } = await send([payload], [...targets, atRed(bob)]);
    assert.equal(statuses.length, maxBatchTargets);
    assert.ok(statuses.every(({ proof }) => proof.length === 64));
    assert.deepEqual(await midsOf(bob, 1), [payload.mid]);

    const one = [atRed(bob)];
    const many = Array.from({ length: 65 }, () => fresh(1));
    await refused(send([], one), 'BAD_FIELD');
    await refused(send([payload], []), 'BAD_FIELD');
    await refused(send(many, one), 'BAD_FIELD');
    await refused(send([payload], [...targets, ...one, ...one]), 'BAD_FIELD');
    await refused(send([payload], [atRed(bob, 1)]), 'BAD_FIELD');
    await refused(send([{ mid: bytes(15), payload: bytes(1) }], one), 'BAD_FIELD');
    await refused(send([{ mid: bytes(16), payload: bytes(0) }], one), 'BAD_FIELD');
    await refused(send([payload], [{ ...atRed(bob), token: bytes(15) }]), 'BAD_FIELD');
    await refused(send([payload], [{ ...atRed(bob), rid: bytes(31) }]), 'BAD_FIELD');
    await refused(send([payload], [{ ...atRed(bob), domain: 'Red' }]), 'BAD_FIELD');
    const large = Array.from({ length: 5 }, () => fresh(500 * 1024));
    await refused(send(large, one), 'TOO_LARGE');
    const { rows } = await call(bob.connection, methods.fetch, { log: {}, after: 0n });
    assert.equal(rows.length, 0);
  });
});
