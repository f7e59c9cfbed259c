/** Bound of what typing a peer brings. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '@quicprochat/proto';
import { peerTypingRate, typingOfPeers } from './peer-typing.ts';

test('a peer that floods typing spends its own copies and nobody else’s', () => {
  let nowMs = 0;
  const clock = { ...systemClock, monotonic: () => nowMs };
  let delivered = 0;
  const typing = typingOfPeers(clock, () => {
    delivered += 1;
  });
  const call = Array.from({ length: 256 }, () => ({
    rids: Array.from({ length: 64 }, () => new Uint8Array(32)),
    payload: new Uint8Array(9),
  }));
  for (let calls = 0; calls < 10; calls += 1) typing('red.example', call);
  assert.equal(delivered, peerTypingRate.burst);
  typing('blue.example', call.slice(0, 1));
  assert.equal(delivered, peerTypingRate.burst + 64);
  nowMs += 1_000;
  typing('red.example', call);
  const perSecond = Math.floor(peerTypingRate.perSecond / 64) * 64;
  assert.equal(delivered, peerTypingRate.burst + 64 + perSecond);
});
