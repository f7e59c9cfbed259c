/** The link of two nodes: dials, back-off, wake, probe, suspension, stop; on simulated time. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { ResourceExhaustedError } from '@quicprochat/proto';
import type { PeerStatus } from '@quicprochat/federation';
import { makePair } from './pair.ts';
import type { SimNode } from './sim-node.ts';

const minuteMs = 60_000;

function linkOf(node: SimNode): PeerStatus {
  const [status] = node.federation.status();
  assert.ok(status);
  return status;
}

test('a peer that is down is dialed with growing waits, below one minute at first', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await red.start([blue.asPeer]);
  await red.send(blue, 'hello');
  await clock.advance(10 * minuteMs);
  const waits = red.events('peer unreachable').map(({ retryInMs }) => Number(retryInMs));
  // 1 + 2 + 4 + 8 + 16 + 32 s, then 60 s each, halved by the jitter: some 24; far from a busy loop.
  assert.ok(waits.length >= 10 && waits.length <= 60, `${waits.length} dials`);
  assert.ok(waits.every((waitMs, tries) => waitMs <= Math.min(minuteMs, 1_000 * 2 ** tries)));
  assert.ok(Math.max(...waits) > 30_000);
  const { state, failingSinceMs } = linkOf(red);
  assert.equal(state, 'backoff');
  assert.ok(clock.now() - failingSinceMs >= 9 * minuteMs);
});

test('a peer that is down for days is dialed at least every half hour', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await red.start([blue.asPeer]);
  await red.send(blue, 'hello');
  await clock.advance(3 * 24 * 60 * minuteMs);
  const waits = red.events('peer unreachable').map(({ retryInMs }) => Number(retryInMs));
  assert.ok(waits.every((waitMs) => waitMs <= 30 * minuteMs));
  assert.ok(Math.max(...waits) > 20 * minuteMs);
  assert.ok(waits.length < 1_000, `${waits.length} dials`);
});

test('the first hello of a peer that is back ends the back-off', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await red.start([blue.asPeer]);
  await red.send(blue, 'hello');
  await clock.advance(8 * 60 * minuteMs);
  // It waits half an hour at most, and may be about to dial just now.
  while (linkOf(red).nextDialInMs <= minuteMs) await clock.advance(minuteMs);
  await blue.start([red.asPeer]);
  await clock.advance(1_000);
  assert.deepEqual(await blue.received(), ['hello']);
  const { failures, failingSinceMs } = linkOf(red);
  assert.deepEqual([failures, failingSinceMs], [0, 0]);
});

test('the back-off survives a restart of this node, but the start itself dials', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await red.start([blue.asPeer]);
  await red.send(blue, 'hello');
  await clock.advance(60 * minuteMs);
  const { failures, failingSinceMs } = linkOf(red);
  await red.kill();
  await red.start();
  const dials = red.events('peer unreachable').length;
  await clock.advance(100);
  assert.equal(red.events('peer unreachable').length, dials + 1);
  const after = linkOf(red);
  assert.equal(after.failingSinceMs, failingSinceMs);
  assert.ok(after.failures > failures, 'the exponent goes on where it was');
});

test('a peer that died silently and is back gets its rows within seconds', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  assert.equal(linkOf(red).state, 'active');
  await blue.kill();
  await red.send(blue, 'into the void');
  await clock.advance(500);
  assert.equal(linkOf(red).state, 'active', 'nothing tells red yet');
  await blue.start();
  // Its hello makes red probe the old connection (2 s), then dial.
  await clock.advance(3_000);
  assert.deepEqual(await blue.received(), ['into the void']);
});

test('a dial that began before the peer was back is replaced by a fresh one', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.start([blue.asPeer]);
  await red.send(blue, 'hello');
  await clock.advance(3_000);
  const failures = (): number => red.events('peer unreachable').length;
  assert.equal(failures(), 0, 'the first dial knows nothing yet');
  red.federation.wake('blue.example');
  await clock.advance(10);
  assert.equal(failures(), 1);
  assert.equal(linkOf(red).state, 'connecting');
});

test('without a word of the peer a dead link is given up after 15 seconds', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  await blue.kill();
  await red.send(blue, 'into the void');
  await clock.advance(15_100);
  assert.notEqual(linkOf(red).state, 'active');
});

test('an idle link that drops stays down until there are rows', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  const connects = (): number => red.events('peer connected').length;
  assert.equal(connects(), 1);
  assert.equal(network.breakConnections('red.example', 'blue.example'), 2);
  await clock.advance(60 * minuteMs);
  assert.equal(linkOf(red).state, 'idle');
  assert.equal(connects(), 1, 'nothing to do, nothing dialed');
  await red.send(blue, 'now');
  await clock.advance(1_000);
  assert.equal(connects(), 2);
  assert.deepEqual(await blue.received(), ['now']);
});

test('a link that drops under rows comes back by itself', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.send(blue, 'one');
  await clock.advance(100);
  network.breakConnections('red.example', 'blue.example');
  network.heal('red.example', 'blue.example');
  await clock.advance(2_000);
  assert.deepEqual(await blue.received(), ['one']);
});

test('rows cross after a partition, one-way or both ways', async () => {
  for (const isOneWay of [true, false]) {
    await using pair = await makePair();
    const { red, blue, clock, network } = pair;
    network.cut('red.example', 'blue.example');
    if (!isOneWay) network.cut('blue.example', 'red.example');
    await red.send(blue, 'across');
    await clock.advance(10 * minuteMs);
    assert.deepEqual(await blue.received(), []);
    network.heal('red.example', 'blue.example');
    network.heal('blue.example', 'red.example');
    await clock.advance(1.2 * minuteMs);
    assert.deepEqual(await blue.received(), ['across']);
    assert.deepEqual(await red.held('blue.example'), []);
  }
});

test('a peer that reaches us while we cannot reach it does not make us dial without end', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await red.start([{ ...blue.asPeer, endpoints: [{ host: 'nowhere.example', port: 1 }] }]);
  await blue.start([red.asPeer]);
  await red.send(blue, 'stuck');
  await clock.advance(1_000);
  const dials = red.events('peer unreachable').length;
  for (let second = 0; second < 600; second += 1) {
    await blue.send(red, `m${second}`);
    red.federation.wake('blue.example');
    await clock.advance(1_000);
  }
  const more = red.events('peer unreachable').length - dials;
  assert.ok(more <= 50, `${more} dials in 10 minutes`);
  assert.equal((await red.received()).length, 600, 'the other direction works all the while');
});

test('a peer that refuses this node is left alone until it speaks up', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  const stranger = { domain: 'green.example', pins: [new Uint8Array(32)], endpoints: [] };
  await blue.start([stranger]);
  await red.start([blue.asPeer]);
  await red.send(blue, 'let me in');
  await clock.advance(9 * minuteMs);
  assert.equal(linkOf(red).state, 'suspended');
  assert.equal(linkOf(red).lastError, 'PEER_DENIED');
  assert.equal(red.events('peer suspended').length, 1);
  await blue.stop();
  await blue.start([red.asPeer]);
  await clock.advance(2_000);
  assert.deepEqual(await blue.received(), ['let me in']);
});

test('a node with another key than the pinned one gets nothing', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await blue.start([red.asPeer]);
  await red.start([{ ...blue.asPeer, pins: [new Uint8Array(32).fill(9)] }]);
  await red.send(blue, 'secret');
  await clock.advance(5 * minuteMs);
  assert.equal(linkOf(red).state, 'suspended');
  assert.deepEqual(await blue.received(), []);
  assert.equal(blue.events('hello refused').length, 0, 'it was not even greeted');
});

test('the second address of a peer is tried when the first is dead', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await blue.start([red.asPeer]);
  const { endpoints } = blue.asPeer;
  const dead = { host: 'nowhere.example', port: 1 };
  await red.start([{ ...blue.asPeer, endpoints: [dead, ...endpoints] }]);
  await red.send(blue, 'by the side door');
  await clock.advance(1_000);
  assert.deepEqual(await blue.received(), ['by the side door']);
});

test('a busy peer is asked again when it said', async () => {
  let hellos = 0;
  await using pair = await makePair(
    {
      intercept: (method) => {
        if (method !== 'fedHello') return;
        hellos += 1;
        if (hellos === 1) {
          throw new ResourceExhaustedError('RATE_LIMITED', 'slow', { retryAfterMs: 30_000 });
        }
      },
    },
    { isStarted: false },
  );
  const { red, blue, clock } = pair;
  await blue.start([]);
  await red.start([blue.asPeer]);
  await clock.advance(29_000);
  assert.equal(hellos, 1);
  await clock.advance(2_000);
  assert.equal(hellos, 2);
});

test('a wall clock that steps does not delay anything', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock } = pair;
  await red.start([blue.asPeer]);
  await red.send(blue, 'hello', { ttlMs: 30 * 24 * 60 * minuteMs });
  await clock.advance(minuteMs);
  await red.kill();
  clock.stepWall(-5 * 365 * 24 * 60 * minuteMs);
  await blue.start([]);
  await red.start();
  await clock.advance(2 * minuteMs);
  assert.equal(linkOf(red).state, 'suspended', 'blue was reached, and does not know red');
});

test('stop ends calls in flight without waiting for the peer', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.send(blue, 'stuck');
  await clock.advance(100);
  const before = clock.monotonic();
  let isStopped = false;
  const stopped = red.federation.stop().then(() => (isStopped = true));
  assert.ok(await clock.runUntil(() => isStopped, 5_000), 'stop must not wait for the deadline');
  await stopped;
  assert.ok(clock.monotonic() - before < 5_000);
});

test('a node that looks whether its link is alive does not make its peer look back', async () => {
  let hellos = 0;
  const intercept = (method: string): void => {
    if (method === 'fedHello') hellos += 1;
  };
  await using pair = await makePair({ intercept }, { redOptions: { intercept } });
  const { red, blue, clock } = pair;
  await red.send(blue, 'there');
  await blue.send(red, 'back');
  await clock.advance(1_000);
  assert.deepEqual([linkOf(red).state, linkOf(blue).state], ['active', 'active']);
  hellos = 0;
  red.federation.wake('blue.example');
  await clock.advance(minuteMs);
  assert.equal(hellos, 1);
});
