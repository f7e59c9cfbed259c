/** What ends a back-off: any authenticated word of the peer, the operator, and this node's own start. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { call, methods, QpcError } from '@quicprochat/proto';
import { defaultLimits } from '@quicprochat/proto/transport';
import { makePair, type Pair } from './pair.ts';
import { port } from './sim-node.ts';

const minuteMs = 60_000;
/** Longer than a link that is in doubt gets to answer. */
const doubtMs = 2_100;
const dayMs = 24 * 60 * minuteMs;

const nextDialMs = ({ red }: Pair): number => red.federation.status()[0]?.nextDialInMs ?? 0;

/** Red's dials have failed for an hour; blue has been there all the time, and reaches red. */
async function inBackOff(pair: Pair): Promise<void> {
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.send(blue, 'row');
  await clock.advance(60 * minuteMs);
  network.heal('red.example', 'blue.example');
}

test('any call of the peer ends the back-off, not only its hello', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  // Blue's connection to red, made by hand so that nothing but this test speaks over it.
  const dialing = network.transport('blue.example').dial(
    { host: 'red.example', port },
    {
      identity: blue.identity,
      limits: defaultLimits,
      maxRequestBytes: () => 0,
      pins: [red.identity.spkiSha256],
    },
  );
  await clock.advance(1_000);
  const connection = await dialing;
  const speak = async (asked: Promise<unknown>): Promise<void> => {
    await clock.advance(200);
    await asked;
  };
  const hello = { domain: 'blue.example', versionMin: 1, versionMax: 1 };
  await speak(call(connection, methods.fedHello, hello));
  // Only what red sends is lost: a dial of red's fails, while a call of blue's arrives.
  network.cut('red.example', 'blue.example');
  await red.send(blue, 'row');
  await clock.advance(25_000);
  const [status] = red.federation.status();
  assert.equal(status?.state === 'backoff' || status?.state === 'connecting', true);
  network.heal('red.example', 'blue.example');
  const resolve = { userId: 'bob@red.example' };
  await speak(
    call(connection, methods.proxyResolveUser, { resolve, requester: new Uint8Array(16) }),
  );
  await clock.advance(2_000);
  assert.deepEqual(await blue.received(), ['row']);
  await connection.close(0, 'done');
});

test("the operator's word ends every back-off", async () => {
  await using pair = await makePair();
  await blueStops(pair);
  await inBackOff(pair);
  await pair.blue.start([]);
  assert.ok(nextDialMs(pair) > 5_000, `the next dial is in ${nextDialMs(pair)} ms`);
  await pair.blue.federation.reload({
    peers: [pair.red.asPeer],
    deniedDomains: [],
    deniedPins: [],
  });
  pair.red.federation.wakeAll();
  await pair.clock.advance(2_000);
  assert.deepEqual(await pair.blue.received(), ['row']);
});

async function blueStops({ blue, clock }: Pair): Promise<void> {
  await blue.stop();
  await clock.advance(1_000);
}

test('a start greets who was heard within thirty days, or waits for rows, and nobody else', async () => {
  const hellos: string[] = [];
  await using pair = await makePair({
    intercept: (method) => {
      if (method === 'fedHello') hellos.push(method);
    },
  });
  const { red, blue, clock } = pair;
  await clock.advance(1_000);
  const startsAfter = async (days: number, isRowWaiting = false): Promise<number> => {
    await red.stop();
    await blue.stop();
    await clock.advance(days * dayMs);
    const before = hellos.length;
    await blue.start();
    await red.start();
    if (isRowWaiting) await red.send(blue, 'row');
    await clock.advance(5_000);
    return hellos.length - before;
  };
  assert.equal(await startsAfter(29), 1);
  assert.equal(await startsAfter(31), 0, 'a peer that was not heard for a month');
  assert.equal(await startsAfter(31, true), 1, 'rows are a reason at any time');
});

test('a call to a hub that is said to be gone ends with its link, before its own deadline', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  await red.send(blue, 'row');
  await clock.advance(2_000);
  assert.equal(red.federation.status()[0]?.state, 'active');
  const { hubs } = red.federation;
  const ask = () => {
    const asked = { reason: '' };
    const answered = (): void => void (asked.reason = 'answered');
    hubs.log('blue.example', { group: new Uint8Array(32) }).then(answered, (error: unknown) => {
      asked.reason = error instanceof QpcError ? error.reason : String(error);
    });
    return asked;
  };
  // A peer that answers keeps its link.
  hubs.doubt('blue.example');
  await clock.advance(doubtMs);
  assert.equal(red.federation.status()[0]?.state, 'active');
  network.cut('red.example', 'blue.example');
  const lost = ask();
  await clock.advance(doubtMs);
  assert.equal(lost.reason, '', 'nobody doubts yet');
  hubs.doubt('blue.example');
  await clock.advance(doubtMs);
  assert.equal(lost.reason, 'PEER_UNREACHABLE');
});

test('a peer that is slow to answer a doubt, and answers others meanwhile, keeps its link', async () => {
  let isSlow = false;
  await using pair: Pair = await makePair({
    intercept: async (method) => {
      if (isSlow && method === 'fedHello') await pair.clock.sleep(3_000);
    },
  });
  const { red, blue, clock } = pair;
  await red.send(blue, 'row');
  await clock.advance(2_000);
  isSlow = true;
  // Any member of a group may say that a hub is gone, as often as it likes.
  red.federation.hubs.doubt('blue.example');
  await clock.advance(1_500);
  await red.send(blue, 'another');
  await clock.advance(1_000);
  const isLost = (): boolean => red.log.some(({ event }) => event === 'peer lost');
  assert.deepEqual([await blue.received(), isLost()], [['row', 'another'], false]);
  // One that says nothing at all does not.
  red.federation.hubs.doubt('blue.example');
  await clock.advance(doubtMs);
  assert.equal(isLost(), true);
});
