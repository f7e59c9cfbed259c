/** RelayStatus and notices through the wire: two federated nodes, and devices below the client. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { call, methods, PushEvent, systemClock, systemRandom } from '@quicprochat/proto';
import {
  fromBinary,
  MessageEventSchema,
  NoticeSchema,
  RelayState,
  type RelayStatusResponse,
} from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

suite('what became of a message', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let blue: LocalNode;
  let alice: TestDevice;
  let carol: TestDevice;
  let bob: TestDevice;

  before(async () => {
    red = await LocalNode.create(network, 'red.example');
    blue = await LocalNode.create(network, 'blue.example');
    await red.start([blue]);
    await blue.start([red]);
    alice = await TestDevice.register(red, 'alice@red.example');
    carol = await TestDevice.register(red, 'carol@red.example');
    bob = await TestDevice.register(blue, 'bob@blue.example');
  });
  after(async () => {
    for (const device of [alice, carol, bob]) await device[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  const status = (device: TestDevice, mids: Uint8Array[], domain = 'blue.example') =>
    call(device.connection, methods.relayStatus, { domain, mids });
  async function send(rid: Uint8Array): Promise<Uint8Array> {
    const mid = bytes(16);
    const request = { rid, domain: blue.domain, mid, payload: bytes(100) };
    await call(alice.connection, methods.enqueue, request);
    return mid;
  }
  /** Asks until the message's state is no longer the given one. */
  async function settled(mid: Uint8Array): Promise<RelayStatusResponse['statuses']> {
    for (;;) {
      const { statuses } = await status(alice, [mid]);
      if (statuses[0]?.state !== RelayState.QUEUED) return statuses;
      await systemClock.sleep(10);
    }
  }

  test('a message that arrived is relayed, and only its sender is told', async () => {
    const mid = await send(bob.rid);
    const [told] = await settled(mid);
    assert.deepEqual([told?.state, told?.mid, told?.rid], [RelayState.RELAYED, mid, bob.rid]);
    const { statuses } = await status(carol, [mid]);
    assert.deepEqual(
      statuses.map(({ state, rid }) => [state, rid.length]),
      [[RelayState.UNSPECIFIED, 0]],
    );
  });

  test('one for a device that is not there bounces, and is pushed as event 3', async () => {
    const pushed = Promise.withResolvers<{ eventType: number; payload: Uint8Array }>();
    alice.connection.onPushStream(async (frames) => {
      for await (const frame of frames) pushed.resolve(frame);
    });
    await call(alice.connection, methods.subscribe, { cursors: [{ log: {}, after: 0n }] });
    const rid = bytes(32);
    const mid = await send(rid);
    const { eventType, payload } = await pushed.promise;
    assert.equal(eventType, PushEvent.Bounce);
    const { row } = fromBinary(MessageEventSchema, payload);
    assert.equal(row?.kind, 4);
    const notice = fromBinary(NoticeSchema, row?.payload ?? new Uint8Array(0));
    assert.deepEqual([notice.mids, notice.rid, notice.reason], [[mid], rid, 'UNKNOWN_DEVICE']);
    const [told] = await settled(mid);
    assert.deepEqual([told?.state, told?.reason], [RelayState.BOUNCED, 'UNKNOWN_DEVICE']);
  });

  test('the fields of the question are checked, and what nobody knows is unknown', async () => {
    await refused(
      status(
        alice,
        Array.from({ length: 257 }, () => bytes(16)),
      ),
      'BAD_FIELD',
    );
    await refused(status(alice, [bytes(15)]), 'BAD_FIELD');
    await refused(status(alice, [], 'Not A Domain'), 'BAD_FIELD');
    for (const domain of [red.domain, 'nowhere.example']) {
      const { statuses, awaySinceMs } = await status(alice, [bytes(16)], domain);
      assert.deepEqual(
        [statuses.map(({ state }) => state), awaySinceMs],
        [[RelayState.UNSPECIFIED], 0n],
      );
    }
  });

  test('while the peer is away messages are queued, and it is said since when', async () => {
    const beforeMs = systemClock.now();
    await blue.node?.stop();
    blue.node = undefined;
    const mid = await send(bob.rid);
    for (;;) {
      const { statuses, awaySinceMs } = await status(alice, [mid]);
      assert.equal(statuses[0]?.state, RelayState.QUEUED);
      if (awaySinceMs > 0n) {
        assert.ok(Number(awaySinceMs) >= beforeMs);
        return;
      }
      await systemClock.sleep(10);
    }
  });
});
