/** Quotas of senders by the hour and the minute. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, systemRandom, type Clock } from '@quicprochat/proto';
import { SendQuota } from './send-quota.ts';

const limits = {
  messages: { perSecond: 1, burst: 10 },
  recipientsPerHour: 2,
  bytesPerMinute: 6_000,
};

function quotaAt(): { readonly quota: SendQuota; readonly wait: (ms: number) => void } {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, monotonic: () => nowMs };
  return { quota: new SendQuota(clock, limits), wait: (ms) => void (nowMs += ms) };
}

test('recipients are counted once each, for an hour, of every sender alone', () => {
  const { quota, wait } = quotaAt();
  const rids = Array.from({ length: 3 }, () => systemRandom.bytes(32));
  const [first = systemRandom.bytes(32), second = first, third = first] = rids;
  assert.equal(quota.recipient('a', first), 0);
  assert.equal(quota.recipient('a', first), 0);
  assert.equal(quota.recipient('a', second), 0);
  wait(1_000_000);
  assert.equal(quota.recipient('a', third), 2_600_000);
  assert.equal(quota.recipient('a', first), 0);
  assert.equal(quota.recipient('b', third), 0);
  wait(2_600_000);
  assert.equal(quota.recipient('a', third), 0);
});

test('bytes come back by the minute, messages of batches by their rate', () => {
  const { quota, wait } = quotaAt();
  quota.take('a', 0, 6_000);
  assert.throws(() => quota.take('a', 0, 1_000), { reason: 'RATE_LIMITED', retryAfterMs: 10_000 });
  quota.take('b', 0, 6_000);
  wait(10_000);
  quota.take('a', 0, 1_000);
  quota.take('c', 10, 0);
  assert.throws(() => quota.take('c', 4, 0), { reason: 'RATE_LIMITED', retryAfterMs: 4_000 });
  // A call that is larger than a whole burst has to wait for a full one, not for ever.
  wait(60_000);
  quota.take('c', 63, 9_000);
});
