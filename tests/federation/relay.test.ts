/** Rows from one node's outbox to another node's inbox: order, lanes, refusals, rejects. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import {
  create,
  FedHelloRequestSchema,
  FedRelayRequestSchema,
  Lane,
  StreamStateSchema,
  fromBinary,
  type FedRelayRequest,
} from '@quicprochat/proto/messages';
import { hasReason, InternalError, ResourceExhaustedError } from '@quicprochat/proto';
import { TestGroup } from '@quicprochat/nodes/store/channel-group';
import { makePair } from './pair.ts';

const names = (count: number, prefix = 'm'): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${index}`);

/** Texts of the items of a relay request; empty for any other. */
function textsOf(method: string, request: unknown): string[] {
  if (!method.startsWith('fedRelay')) return [];
  // The dispatch decoded it by the row of this method.
  const { items } = request as FedRelayRequest;
  return items.map(({ payload }) => new TextDecoder().decode(payload));
}

test('rows arrive in order, in both lanes and both directions, and leave the outbox', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  for (const text of names(300)) await red.send(blue, text);
  for (const text of names(5, 'c')) await red.send(blue, text, { kind: 2 });
  await blue.send(red, 'back');
  await clock.advance(2_000);
  const received = await blue.received();
  assert.deepEqual(
    received.filter((text) => text.startsWith('m')),
    names(300),
  );
  assert.deepEqual(
    received.filter((text) => text.startsWith('c')),
    names(5, 'c'),
  );
  assert.deepEqual(await red.received(), ['back']);
  assert.deepEqual(await red.held('blue.example'), []);
  const [status] = red.federation.status();
  assert.equal(status?.state, 'active');
  assert.ok(status.lanes.every((lane) => lane.isIdle));
});

test('a control row passes a backlog of bulk rows', async () => {
  const seen: string[] = [];
  await using pair = await makePair({
    intercept: (method, request) => void seen.push(...textsOf(method, request)),
  });
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  for (const text of names(2_000)) await red.send(blue, text);
  await red.send(blue, 'control', { kind: 2 });
  network.heal('red.example', 'blue.example');
  await clock.advance(10_000);
  assert.equal((await blue.received()).length, 2_001);
  assert.ok(seen.indexOf('control') < 300, `came as number ${seen.indexOf('control')}`);
});

test('batches are bounded by the credit of a new peer and grow with it', async () => {
  const sizes: number[] = [];
  await using pair = await makePair({
    intercept: (method, request) => {
      if (method.startsWith('fedRelay')) sizes.push(textsOf(method, request).length);
    },
  });
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  // The first one waits in flight; the others gather behind it.
  for (const text of names(2_000)) await red.send(blue, text);
  network.heal('red.example', 'blue.example');
  await clock.advance(10_000);
  assert.equal((await blue.received()).length, 2_000);
  assert.ok((sizes[1] ?? 0) <= 128, `second batch: ${sizes[1]}`);
  assert.equal(Math.max(...sizes), 256);
});

test('a device that the peer does not have costs a dead letter, not the stream', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  await red.send(blue, 'before');
  await red.send(blue.nobody, 'lost');
  await red.send(blue, 'behind');
  await clock.advance(1_000);
  assert.deepEqual(await blue.received(), ['before', 'behind']);
  assert.deepEqual(await red.held('blue.example'), []);
});

test('a row of a kind that the peer does not know comes back later, under a new seq', async () => {
  const seen: string[] = [];
  await using pair = await makePair({
    intercept: (method, request) => void seen.push(...textsOf(method, request)),
  });
  const { red, blue, clock } = pair;
  await red.send(blue, 'new kind', { kind: 3 });
  await red.send(blue, 'control', { kind: 2 });
  await clock.advance(1_000);
  assert.deepEqual(await blue.received(), ['control'], 'the stream went on');
  assert.deepEqual(await red.held('blue.example'), [], 'deferred rows are in no stream');
  await clock.advance(120_000);
  assert.ok(seen.filter((text) => text === 'new kind').length >= 2, 'it was tried again');
});

test('a post that overtook the update of its channel is there seconds after that', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  const group = new TestGroup();
  await red.store.createChannel(red.rid, group.asNew());
  const post = group.post({ peers: [blue.domain], sender: red.rid });
  await red.store.postToChannel(post);
  red.federation.notify(blue.domain);
  const heard = async (): Promise<number> => {
    const { rows } = await blue.store.fetchChannel(
      blue.rid,
      { cid: group.cid, after: 0 },
      9,
      9_999,
    );
    return rows.length;
  };
  await clock.advance(5_000);
  await assert.rejects(heard(), { reason: 'UNKNOWN_CHANNEL' });
  await blue.store.createChannel(blue.rid, group.asNew());
  await clock.advance(7_000);
  assert.equal(await heard(), 1);
  assert.deepEqual(await red.notices(), []);
});

test('a verdict whose reply was lost is not', async () => {
  const seen: string[] = [];
  await using pair = await makePair({
    intercept: (method, request) => void seen.push(...textsOf(method, request)),
  });
  const { red, blue, clock, network } = pair;
  network.cut('blue.example', 'red.example');
  await red.send(blue, 'new kind', { kind: 3 });
  await clock.advance(1_000);
  assert.deepEqual(seen, ['new kind'], 'blue has judged it, red does not know');
  network.breakConnections('red.example', 'blue.example');
  network.heal('blue.example', 'red.example');
  await clock.advance(10_000);
  assert.deepEqual(await red.held('blue.example'), [], 'settled after the new hello');
  const before = seen.length;
  await clock.advance(120_000);
  assert.ok(seen.length > before, 'it was deferred, not dropped as delivered');
});

test('the one row on which the peer always fails becomes a dead letter, alone', async () => {
  await using pair = await makePair({
    intercept: (method, request) => {
      if (textsOf(method, request).includes('m77')) throw new InternalError('cannot take it');
    },
  });
  const { red, blue, clock } = pair;
  for (const text of names(200)) await red.send(blue, text);
  await clock.advance(300_000);
  assert.deepEqual(
    await blue.received(),
    names(200).filter((text) => text !== 'm77'),
  );
  assert.deepEqual(await red.held('blue.example'), []);
  assert.equal(red.events('outbox row dead').length, 1);
});

test('a peer that fails on every row keeps nearly all of them in the outbox', async () => {
  let isBroken = true;
  await using pair = await makePair({
    intercept: (method) => {
      if (isBroken && method.startsWith('fedRelay')) throw new InternalError('disk on fire');
    },
  });
  const { red, blue, clock } = pair;
  for (const text of names(100)) await red.send(blue, text);
  await clock.advance(30 * 60_000);
  assert.equal((await red.held('blue.example')).length, 99);
  isBroken = false;
  await clock.advance(11 * 60_000);
  assert.equal((await blue.received()).length, 99);
});

test('an overloaded peer is left alone as long as it asks, and that is no failure', async () => {
  let refusals = 0;
  await using pair = await makePair({
    intercept: (method) => {
      if (!method.startsWith('fedRelay') || refusals > 0) return;
      refusals += 1;
      throw new ResourceExhaustedError('OVERLOADED', 'busy', { retryAfterMs: 20_000 });
    },
  });
  const { red, blue, clock } = pair;
  await red.send(blue, 'patient');
  await clock.advance(19_000);
  const [status] = red.federation.status();
  assert.equal(status?.state, 'active');
  assert.equal(status.failures, 0);
  assert.deepEqual(await blue.received(), []);
  await clock.advance(2_000);
  assert.deepEqual(await blue.received(), ['patient']);
});

test('a full inbox defers the row until there is room', async () => {
  await using pair = await makePair({ inboxRows: 2 });
  const { red, blue, clock } = pair;
  for (const text of names(3)) await red.send(blue, text);
  await clock.advance(1_000);
  assert.deepEqual(await blue.received(), ['m0', 'm1']);
  await blue.store.ack(blue.rid, 2);
  await clock.advance(120_000);
  assert.deepEqual(await blue.received(), ['m2']);
});

test('a hello is believed only with the pinned key, and needs a common version', async () => {
  await using pair = await makePair();
  const { red, blue } = pair;
  const hello = (domain: string, versionMin = 1) =>
    create(FedHelloRequestSchema, { domain, versionMin, versionMax: 3 });
  const { spkiSha256 } = red.identity;
  const answer = await blue.federation.acceptHello(spkiSha256, hello('red.example'));
  assert.equal(answer.domain, 'blue.example');
  assert.equal(answer.version, 1);
  assert.equal(answer.creditItems, 64);
  const refused: [Uint8Array, string, number, string][] = [
    [new Uint8Array(32), 'red.example', 1, 'PEER_DENIED'],
    [spkiSha256, 'green.example', 1, 'PEER_DENIED'],
    [spkiSha256, 'blue.example', 1, 'PEER_DENIED'],
    [spkiSha256, 'red.example', 2, 'VERSION'],
  ];
  for (const [spki, domain, version, reason] of refused) {
    await assert.rejects(blue.federation.acceptHello(spki, hello(domain, version)), (error) =>
      hasReason(error, reason),
    );
  }
});

test('a hello is answered although the own streams cannot be read just now', async () => {
  await using pair = await makePair();
  const { red, blue } = pair;
  const hello = create(FedHelloRequestSchema, {
    domain: 'red.example',
    versionMin: 1,
    versionMax: 1,
  });
  const { spkiSha256 } = red.identity;
  const failing = (): Promise<never> => Promise.reject(new InternalError('the disk is gone'));
  Object.assign(blue.store, { outboundStream: failing });
  for (const isRepeated of [true, false]) {
    const answer = await blue.federation.acceptHello(spkiSha256, hello, { isRepeated });
    assert.equal(answer.domain, 'blue.example');
  }
});

test('a batch whose predecessor never comes gets STREAM_GAP with the cursor, after a while', async () => {
  await using pair = await makePair();
  const { blue, clock } = pair;
  const item = { kind: 1, mid: new Uint8Array(16), payload: new Uint8Array(1), rids: [blue.rid] };
  const batch = (firstSeq: bigint): FedRelayRequest =>
    create(FedRelayRequestSchema, {
      lane: Lane.BULK,
      streamId: new Uint8Array(16).fill(5),
      firstSeq,
      items: [{ ...item, ttlS: 60 }],
    });
  const first = blue.federation.relay('red.example', batch(1n));
  await clock.advance(0);
  assert.equal((await first).cursor, 1n);
  const third = blue.federation.relay('red.example', batch(3n));
  const outcome = third.then(
    () => 'applied',
    (error: unknown) => error,
  );
  await clock.advance(2_900);
  const second = blue.federation.relay('red.example', batch(2n));
  await clock.advance(0);
  assert.equal((await second).cursor, 2n);
  assert.equal(await outcome, 'applied', 'the batch that had overtaken the other one');

  const fifth = blue.federation.relay('red.example', batch(5n)).catch((error: unknown) => error);
  await clock.advance(3_000);
  const error = await fifth;
  assert.ok(hasReason(error, 'STREAM_GAP') && error.details !== undefined);
  assert.equal(fromBinary(StreamStateSchema, error.details).cursor, 3n);
});

test('no more than a few batches wait in memory', async () => {
  await using pair = await makePair();
  const { blue, clock } = pair;
  const item = { kind: 1, mid: new Uint8Array(16), payload: new Uint8Array(1), rids: [blue.rid] };
  const outcomes = Array.from({ length: 6 }, (_, index) =>
    blue.federation
      .relay(
        'red.example',
        create(FedRelayRequestSchema, {
          lane: Lane.BULK,
          streamId: new Uint8Array(16).fill(5),
          firstSeq: BigInt(index + 10),
          items: [{ ...item, ttlS: 60 }],
        }),
      )
      .catch((error: unknown) => error),
  );
  await clock.advance(3_000);
  const reasons = (await Promise.all(outcomes)).map((error) =>
    hasReason(error, 'OVERLOADED') ? 'OVERLOADED' : hasReason(error, 'STREAM_GAP') && 'STREAM_GAP',
  );
  assert.equal(reasons.filter((reason) => reason === 'STREAM_GAP').length, 4);
  assert.equal(reasons.filter((reason) => reason === 'OVERLOADED').length, 2);
});
