/** Look-ups at a peer: answers and errors pass, and an unreachable peer is told fast. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import {
  hasReason,
  InternalError,
  NotFoundError,
  ResourceExhaustedError,
} from '@quicprochat/proto';
import type { ResolveUserResponse } from '@quicprochat/proto/messages';
import { makePair, type Pair } from './pair.ts';

const requester = new Uint8Array(16);

/** Asks red for a user of blue; the outcome and how long it took (simulated ms). */
async function resolve(
  { red, clock }: Pair,
  userId = 'bob@blue.example',
): Promise<{ answer: ResolveUserResponse | undefined; error: unknown; tookMs: number }> {
  const beganMs = clock.monotonic();
  let outcome: { answer: ResolveUserResponse | undefined; error: unknown } | undefined;
  const domain = userId.slice(userId.indexOf('@') + 1);
  const asked = red.federation.proxy.resolveUser(domain, { userId }, { requester }).then(
    (answer) => (outcome = { answer, error: undefined }),
    (error: unknown) => (outcome = { answer: undefined, error }),
  );
  await clock.runUntil(() => outcome !== undefined, 60_000);
  const tookMs = clock.monotonic() - beganMs;
  return { ...(await asked), tookMs };
}

test('a user of the peer is resolved over the link', async () => {
  await using pair = await makePair();
  const { answer } = await resolve(pair);
  assert.equal(answer?.manifest?.signature.length, 64);
});

test('a dropped link is dialed for a look-up', async () => {
  await using pair = await makePair();
  pair.network.breakConnections('red.example', 'blue.example');
  await pair.clock.advance(2_000);
  assert.ok((await resolve(pair)).answer);
});

test('typed errors of the peer pass as they are, its internal ones do not', async () => {
  const faults = [
    new NotFoundError('UNKNOWN_USER', 'no such user'),
    new ResourceExhaustedError('RATE_LIMITED', 'slow', { retryAfterMs: 700 }),
    new InternalError('stack trace'),
  ];
  await using pair = await makePair({
    intercept: (method) => {
      const fault = method === 'proxyResolveUser' ? faults.shift() : undefined;
      if (fault !== undefined) throw fault;
    },
  });
  assert.ok(hasReason((await resolve(pair)).error, 'UNKNOWN_USER'));
  const limited = (await resolve(pair)).error;
  assert.ok(hasReason(limited, 'RATE_LIMITED'));
  assert.equal(limited.retryAfterMs, 700);
  assert.ok(hasReason((await resolve(pair)).error, 'PEER_UNREACHABLE'));
});

test('a domain that is no peer is refused at once', async () => {
  await using pair = await makePair();
  const { error, tookMs } = await resolve(pair, 'eve@green.example');
  assert.ok(hasReason(error, 'PEER_DENIED'));
  assert.equal(tookMs, 0);
});

test('a peer in back-off gets one dial, and the answer comes within 5 seconds', async () => {
  await using pair = await makePair({}, { isStarted: false });
  const { red, blue, clock, network } = pair;
  await red.start([blue.asPeer]);
  await red.send(blue, 'row');
  await clock.advance(30 * 60_000);
  const dials = (): number => red.events('peer unreachable').length;
  const nextDial = (): number => red.federation.status()[0]?.nextDialInMs ?? 0;
  // It waits for minutes, and may be about to dial just now.
  while (nextDial() <= 20_000) await clock.advance(60_000);
  const before = dials();
  const nextDialInMs = nextDial();
  const refused = await resolve(pair);
  assert.ok(hasReason(refused.error, 'PEER_UNREACHABLE'));
  assert.ok(refused.tookMs < 1_000, `took ${refused.tookMs} ms`);
  const second = await resolve(pair);
  assert.ok(hasReason(second.error, 'PEER_UNREACHABLE'));
  assert.equal(second.tookMs, 0, 'a dial that just failed speaks for the next second');
  assert.equal(dials(), before + 1);
  const [status] = red.federation.status();
  assert.ok(Math.abs((status?.nextDialInMs ?? 0) + refused.tookMs - nextDialInMs) < 5);

  // Packets vanish: no refusal comes back, only time passes.
  network.cut('red.example', 'blue.example');
  await clock.advance(2_000);
  const silent = await resolve(pair);
  assert.ok(hasReason(silent.error, 'PEER_UNREACHABLE'));
  assert.ok(silent.tookMs <= 5_000, `took ${silent.tookMs} ms`);
});

test('a peer that answers nothing on a live link is told within 10 seconds', async () => {
  await using pair = await makePair();
  pair.network.cut('red.example', 'blue.example');
  const { error, tookMs } = await resolve(pair);
  assert.ok(hasReason(error, 'PEER_UNREACHABLE'));
  assert.ok(tookMs <= 10_000, `took ${tookMs} ms`);
});

test('a look-up whose asker is gone ends at once', async () => {
  await using pair = await makePair();
  pair.network.cut('red.example', 'blue.example');
  const gone = new AbortController();
  const asked = pair.red.federation.proxy
    .resolveUser('blue.example', { userId: 'bob@blue.example' }, { requester, signal: gone.signal })
    .catch((error: unknown) => error);
  await pair.clock.advance(10);
  gone.abort();
  await pair.clock.settle();
  assert.ok(hasReason(await asked, 'PEER_UNREACHABLE'));
});
