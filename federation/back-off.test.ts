/** The waits between tries: bounds, caps by age, and that the whole range is used. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Random } from '@quicprochat/proto';
import { retryCapMs, retryDelayMs } from './back-off.ts';

const always = (byte: number): Random => ({ bytes: (length) => new Uint8Array(length).fill(byte) });
const minuteMs = 60_000;

test('the cap grows with the age of the failure, up to 30 minutes', () => {
  assert.equal(retryCapMs(0), minuteMs);
  assert.equal(retryCapMs(10 * minuteMs - 1), minuteMs);
  assert.equal(retryCapMs(10 * minuteMs), 10 * minuteMs);
  assert.equal(retryCapMs(24 * 60 * minuteMs - 1), 10 * minuteMs);
  assert.equal(retryCapMs(24 * 60 * minuteMs), 30 * minuteMs);
  assert.equal(retryCapMs(Number.MAX_SAFE_INTEGER), 30 * minuteMs);
});

test('the wait is jittered over the whole range below a doubling bound', () => {
  assert.equal(retryDelayMs(0, minuteMs, always(0)), 0);
  assert.equal(retryDelayMs(0, minuteMs, always(0xff)), 1_000);
  assert.equal(retryDelayMs(3, minuteMs, always(0xff)), 8_000);
  assert.equal(retryDelayMs(6, minuteMs, always(0xff)), minuteMs);
});

test('no try and no random bytes leave the bounds', () => {
  const capMs = fc.constantFrom(minuteMs, 10 * minuteMs, 30 * minuteMs);
  fc.assert(
    fc.property(fc.nat(10_000), capMs, fc.nat(255), (tries, cap, byte) => {
      const waitMs = retryDelayMs(tries, cap, always(byte));
      return Number.isInteger(waitMs) && waitMs >= 0 && waitMs <= Math.min(cap, 1000 * 2 ** tries);
    }),
  );
});
