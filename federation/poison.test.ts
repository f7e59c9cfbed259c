/** Bisection: how a bad row is found, and that a broken peer does not empty the queue. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  DataLossError,
  InternalError,
  InvalidArgumentError,
  PayloadTooLargeError,
  PermissionDeniedError,
  ResourceExhaustedError,
  systemClock,
  TransportError,
  UnavailableError,
  type Clock,
} from '@quicprochat/proto';
import { PoisonWatch, relayFault } from './poison.ts';

/** A clock that only stands at a time. */
function standing(): { readonly clock: Clock; at: number } {
  const time = { at: 0, clock: { ...systemClock, monotonic: (): number => time.at } };
  return time;
}

test('errors are told apart by what can mend them', () => {
  const faults = [
    new TransportError('closed', ''),
    new TransportError('timeout', ''),
    new TransportError('limit', ''),
    new ResourceExhaustedError('OVERLOADED', ''),
    new UnavailableError('STORE_FULL', ''),
    new DataLossError('STREAM_GAP', ''),
    new DataLossError('STORE_CHANGED', ''),
    new PermissionDeniedError('CALLER_CLASS', ''),
    new InvalidArgumentError('BAD_FIELD', ''),
    new PayloadTooLargeError(''),
    new InternalError(''),
    new Error('ours'),
  ].map(relayFault);
  assert.deepEqual(faults, [
    'link',
    'link',
    'pause',
    'pause',
    'pause',
    'gap',
    'link',
    'link',
    'refused',
    'tooLarge',
    'internal',
    'link',
  ]);
});

/** Runs the watch against a receiver that fails on one row of a batch; returns what was dropped. */
function bisect(items: number, badSeq: number): { dropped: number; tries: number } {
  const { clock } = standing();
  const watch = new PoisonWatch(clock);
  let cursor = 0;
  for (let tries = 1; tries < 1_000; tries += 1) {
    const size = Math.min(items - cursor, watch.itemsMax);
    if (badSeq > cursor && badSeq <= cursor + size) {
      if (watch.failed(cursor + 1, size, 'internal') === 'drop') return { dropped: badSeq, tries };
    } else {
      cursor += size;
      watch.succeeded(cursor);
    }
  }
  return { dropped: 0, tries: 1_000 };
}

test('the one bad row of a batch is found and no other, with few tries', () => {
  const sizes = fc.integer({ min: 1, max: 256 });
  fc.assert(
    fc.property(sizes, fc.nat(255), (items, offset) => {
      const badSeq = 1 + (offset % items);
      const { dropped, tries } = bisect(items, badSeq);
      return dropped === badSeq && tries <= 3 * 8 + 8 + 5;
    }),
  );
});

test('a batch is tried three times as it is before it is halved, a refusal is believed at once', () => {
  const watch = new PoisonWatch(standing().clock);
  watch.failed(1, 256, 'internal');
  watch.failed(1, 256, 'internal');
  assert.equal(watch.itemsMax, 256);
  watch.failed(1, 256, 'internal');
  assert.equal(watch.itemsMax, 128);
  watch.failed(1, 128, 'tooLarge');
  assert.equal(watch.itemsMax, 64);
  assert.ok(watch.isActive);
  watch.succeeded(64);
  assert.equal(watch.itemsMax, 64, 'the bad row is still ahead');
  watch.succeeded(256);
  assert.equal(watch.itemsMax, 256);
  assert.ok(!watch.isActive);
});

test('a peer that fails on everything costs one row, then one an hour', () => {
  const time = standing();
  const watch = new PoisonWatch(time.clock);
  const failOnce = (): string => watch.failed(1, 1, 'internal');
  const verdicts = Array.from({ length: 5 }, failOnce);
  assert.deepEqual(verdicts, ['retry', 'retry', 'retry', 'retry', 'drop']);
  watch.dropped();
  watch.renumbered();
  for (let tries = 0; tries < 20; tries += 1) assert.equal(failOnce(), 'retry');
  time.at += 3_600_000;
  assert.equal(failOnce(), 'drop');
  watch.dropped();
  watch.renumbered();
  watch.succeeded(1);
  assert.deepEqual(Array.from({ length: 5 }, failOnce).at(-1), 'drop', 'a success forgives');
});

test('a single row that is too large is given up at once', () => {
  const watch = new PoisonWatch(standing().clock);
  assert.equal(watch.failed(3, 1, 'tooLarge'), 'drop');
});
