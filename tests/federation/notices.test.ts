/** What a sending device hears of rows that another node refuses, or that cannot reach it. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { NoticeType } from '@quicprochat/proto/messages';
import { makePair } from './pair.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

test('what the peer refuses for good comes back to its sender once, over crashes of both', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  await red.send(blue.nobody, 'lost');
  await red.send(blue, 'found');
  await clock.advance(2_000);
  await red.kill();
  await red.start();
  await blue.kill();
  await blue.start();
  await clock.advance(10 * minuteMs);
  const told = await red.notices();
  assert.deepEqual(
    told.map(({ type, domain, reason }) => [type, domain, reason]),
    [[NoticeType.BOUNCE, 'blue.example', 'UNKNOWN_DEVICE']],
  );
  assert.deepEqual(told[0]?.rid, blue.nobody.rid);
  assert.deepEqual(await blue.received(), ['found']);
  assert.deepEqual(await blue.notices(), []);
});

test('a sender restored from an older copy bounces again only what it had forgotten', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.send(blue.nobody, 'lost');
  const copy = await red.snapshot();
  network.heal('red.example', 'blue.example');
  await clock.advance(5 * minuteMs);
  const mids = async (): Promise<Uint8Array[]> => (await red.inbox()).map(({ mid }) => mid);
  const before = await mids();
  assert.equal(before.length, 1);
  await red.restore(copy);
  await clock.advance(5 * minuteMs);
  assert.deepEqual(await mids(), before, 'the same notice, by which its device knows it');
});

test('a peer restored from an older copy: its senders are told once, and what they repeat arrives', async () => {
  await using pair = await makePair();
  const { red, blue, clock } = pair;
  await red.send(blue, 'before');
  await clock.advance(1_000);
  const copy = await blue.snapshot();
  await red.send(blue, 'lost');
  await red.send(blue, 'lost too', { kind: 2 });
  await clock.advance(60_000);
  assert.deepEqual(await red.notices(), []);
  await blue.restore(copy);
  await clock.advance(2 * minuteMs);
  assert.deepEqual(await blue.received(), ['before']);
  assert.deepEqual(
    (await red.notices()).map(({ type, domain }) => [type, domain]),
    [[NoticeType.RESTORED, 'blue.example']],
  );
  for (const text of ['before', 'lost']) await red.send(blue, text);
  await clock.advance(1_000);
  assert.deepEqual(await blue.received(), ['before', 'lost']);
});

test('a peer that is away delays after an hour, told once; after a week rows come back', async () => {
  await using pair = await makePair();
  const { red, blue, clock, network } = pair;
  network.cut('red.example', 'blue.example');
  await red.send(blue, 'patient', { ttlMs: 30 * dayMs });
  await red.send(blue, 'brief', { ttlMs: 2 * hourMs });
  await clock.advance(59 * minuteMs);
  assert.deepEqual(await red.notices(), []);
  await clock.advance(5 * minuteMs);
  await red.kill();
  await red.start();
  await clock.advance(20 * minuteMs);
  const [delayed, ...others] = await red.notices();
  assert.deepEqual(others, []);
  assert.deepEqual(
    [delayed?.type, delayed?.domain, delayed?.mids.length],
    [NoticeType.DELAYED, 'blue.example', 2],
  );
  await clock.advance(hourMs);
  assert.deepEqual(
    (await red.notices()).map(({ type }) => type),
    [NoticeType.DELAYED, NoticeType.EXPIRED],
  );
  clock.stepWall(7 * dayMs);
  await clock.advance(minuteMs);
  assert.deepEqual(
    (await red.notices()).slice(2).map(({ type, reason }) => [type, reason]),
    [[NoticeType.BOUNCE, 'PEER_UNREACHABLE']],
  );
  assert.deepEqual(await red.held('blue.example'), []);
  network.heal('red.example', 'blue.example');
  await clock.advance(10 * minuteMs);
  assert.deepEqual(await blue.received(), []);
});
