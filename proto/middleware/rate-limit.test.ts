/** Who shares a bucket of the rate limit: nobody gets more by having many addresses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { methods } from '../methods.ts';
import { systemClock } from '../runtime.ts';
import type { Call } from '../server.ts';
import { hasReason } from '../status.ts';
import { rateLimit, type Rates } from './rate-limit.ts';

test('strangers are limited by address, of IPv6 by /64', () => {
  const once = { perSecond: 0.001, burst: 1 };
  const rates = { [methods.health.rate]: once } as Rates;
  const limited = rateLimit(systemClock, rates);
  const ask = (host: string): void => {
    const connection = { peer: { host } };
    const call: unknown = { caller: { class: 'anyone' }, method: methods.health, connection };
    void limited(call as Call, () => Promise.resolve(new Uint8Array() as never));
  };
  const isLimited = (error: unknown): boolean => hasReason(error, 'RATE_LIMITED');
  ask('2001:db8::1');
  assert.throws(() => ask('2001:db8::ffff:2'), isLimited);
  ask('2001:db8:0:1::1');
  ask('192.0.2.1');
  ask('192.0.2.2');
  assert.throws(() => ask('::ffff:192.0.2.1'), isLimited);
});
