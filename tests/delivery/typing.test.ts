/** Typing (209): over the ephemeral lane, to who listens now, and never to a disk. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { call, methods, PushEvent, systemRandom, type PushFrame } from '@quicprochat/proto';
import { fromBinary, StreamStartEventSchema, TypingEventSchema } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { Rig } from '../client/rig.ts';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';
import { filesBelow, findMarks } from '../crash/secret-search.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

/** The streams that a device gets, with what came on each. */
class Streams {
  readonly all: PushFrame[][] = [];
  #wake = (): void => undefined;

  constructor(device: TestDevice) {
    device.connection.onPushStream(async (frames) => {
      const stream: PushFrame[] = [];
      this.all.push(stream);
      for await (const frame of frames) {
        stream.push(frame);
        this.#wake();
      }
    });
  }

  /** Waits until a stream matches. */
  async stream(matches: (frames: readonly PushFrame[]) => boolean): Promise<readonly PushFrame[]> {
    for (;;) {
      const found = this.all.find(matches);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

suite('SendEphemeral', () => {
  const network = memoryNetwork(testRuntime);
  let red: LocalNode;
  let alice: TestDevice;
  let bob: TestDevice;

  before(async () => {
    const config = '[rates]\nephemeral = { per_second = 0.01, burst = 60 }\n';
    red = await LocalNode.create(network, 'red.example', config);
    await red.start();
    alice = await TestDevice.register(red, 'alice@red.example');
    bob = await TestDevice.register(red, 'bob@red.example');
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    await bob[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
  });

  const send = (payload: Uint8Array, targets = [{ rid: alice.rid, domain: 'red.example' }]) =>
    call(bob.connection, methods.sendEphemeral, { targets, payload });
  const typed = (frames: readonly PushFrame[]): Uint8Array[] =>
    frames
      .filter(({ eventType }) => eventType === PushEvent.Typing)
      .map(({ payload }) => fromBinary(TypingEventSchema, payload).payload);

  test('arrives on a stream of its own, which begins with the number of the subscription', async () => {
    const streams = new Streams(alice);
    const cursors = [{ log: {}, after: 0n }];
    const request = { cursors, ephemeralLane: true, subscription: 7 };
    await call(alice.connection, methods.subscribe, request);
    const payload = bytes(100);
    await send(payload);
    const lane = await streams.stream((frames) => typed(frames).length > 0);
    assert.deepEqual(typed(lane), [payload]);
    const durable = await streams.stream((frames) => frames.length > 0 && frames !== lane);
    for (const [stream, isEphemeral] of [
      [lane, true],
      [durable, false],
    ] as const) {
      assert.equal(stream[0]?.eventType, PushEvent.StreamStart);
      const start = fromBinary(StreamStartEventSchema, stream[0].payload);
      assert.deepEqual([start.subscription, start.isEphemeral], [7, isEphemeral]);
    }
    // No row, and nothing on the disk.
    const { rows, head } = await call(alice.connection, methods.fetch, { log: {} });
    assert.deepEqual([rows.length, head], [0, 0n]);
    assert.deepEqual(
      findMarks(filesBelow(red.directory), [{ name: 'typing', bytes: payload }]),
      [],
    );
  });

  test('without a lane it comes between the rows; nobody who does not listen gets it later', async () => {
    await using carol = await TestDevice.register(red, 'carol@red.example');
    const target = [{ rid: carol.rid, domain: 'red.example' }];
    await send(bytes(50), target);
    const streams = new Streams(carol);
    await call(carol.connection, methods.subscribe, { cursors: [{ log: {}, after: 0n }] });
    const payload = bytes(50);
    await send(payload, target);
    const stream = await streams.stream((frames) => typed(frames).length > 0);
    assert.deepEqual(typed(stream), [payload]);
    assert.equal(streams.all.length, 1);
  });

  test('says nothing of devices, and is bounded', async () => {
    assert.deepEqual(
      Object.keys(await send(bytes(9), [{ rid: bytes(32), domain: 'red.example' }])),
      ['$typeName'],
    );
    await send(bytes(9), [{ rid: bytes(32), domain: 'green.example' }]);
    await refused(send(bytes(0)), 'BAD_FIELD');
    await refused(send(bytes(513)), 'BAD_FIELD');
    await refused(send(bytes(9), []), 'BAD_FIELD');
    const many = Array.from({ length: 65 }, () => ({ rid: bytes(32), domain: 'red.example' }));
    await refused(send(bytes(9), many), 'BAD_FIELD');
    await refused(send(bytes(9), [{ rid: bytes(31), domain: 'red.example' }]), 'BAD_FIELD');
    await using stranger = await TestDevice.dial(red, 'nobody@red.example');
    const request = { targets: many.slice(0, 1), payload: bytes(9) };
    await refused(call(stranger.connection, methods.sendEphemeral, request), 'NOT_LOGGED_IN');
    const results = await Promise.allSettled(Array.from({ length: 60 }, () => send(bytes(9))));
    assert.ok(results.some(({ status }) => status === 'rejected'));
    const error = await refused(send(bytes(9)), 'RATE_LIMITED');
    assert.ok((error.retryAfterMs ?? 0) > 0);
  });
});

test('who types is seen at once by the others who are online, here and at a peer', async () => {
  await using rig = await Rig.make();
  const [alice, bob, carol] = [
    await rig.client('alice@red.example'),
    await rig.client('bob@blue.example'),
    await rig.client('carol@red.example'),
  ];
  const members = [bob.userId, carol.userId];
  const id = await alice.client.createConversation({ name: 'three', members });
  await alice.client.flush();
  await Promise.all([bob.joined(), carol.joined()]);
  assert.equal(await alice.client.typing(id), true);
  assert.equal(await alice.client.typing(id), false);
  for (const other of [bob, carol]) {
    const event = await other.events.first(({ type }) => type === 'typing', 'typing');
    assert.ok(event.type === 'typing');
    assert.deepEqual([event.conversationId, event.userId], [id, alice.userId]);
  }
  assert.equal(await bob.client.typing(id), true);
  const seen = await alice.events.first(({ type }) => type === 'typing', 'typing of bob');
  assert.equal(seen.type === 'typing' && seen.userId, bob.userId);
  // It moved no ratchet and left no number: messages go on as if it had not been.
  await alice.client.send(id, 'hello');
  assert.deepEqual(await bob.texts(1), ['hello']);
  await carol.close();
  await carol.open();
  assert.equal(await carol.client.typing(id), false);
});
