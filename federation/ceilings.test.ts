/** Ceilings of one peer, and the share of the writer that all of them get, on a clock by hand. */
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { systemClock, type Clock } from '@quicprochat/proto';
import { defaultCeilings, PeerCeiling, WriterShare, type Ceilings } from './ceilings.ts';

const minuteMs = 60_000;

function standing(): { readonly clock: Clock; at: number } {
  const time = { at: 0, clock: { ...systemClock, monotonic: (): number => time.at } };
  return time;
}

const rid = (number: number): Uint8Array => {
  const bytes = new Uint8Array(32);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
};

function ceilingOf(ceilings: Partial<Ceilings> = {}) {
  const time = standing();
  const ceiling = new PeerCeiling(time.clock, { ...defaultCeilings, ...ceilings });
  return { time, ceiling };
}

test('items and bytes: a second may be used at once, then the rate decides', () => {
  for (const bound of [{ itemsPerSecond: 100 }, { bytesPerSecond: 100 }]) {
    const { time, ceiling } = ceilingOf(bound);
    const take = (count: number): void => {
      ceiling.charge(
        'itemsPerSecond' in bound ? count : 0,
        'bytesPerSecond' in bound ? count : 0,
        [],
      );
    };
    take(99);
    assert.equal(ceiling.waitMs(false), 0);
    // A batch that is more than what is left is taken as a whole, and owed.
    take(101);
    const waitMs = ceiling.waitMs(false);
    assert.ok(waitMs >= 1_000 && waitMs < 1_100, `${waitMs} ms`);
    time.at += waitMs;
    assert.equal(ceiling.waitMs(false), 0);
    time.at += minuteMs;
    take(100);
    assert.ok(ceiling.waitMs(false) > 0, 'a quiet minute saves no more than a second');
  }
});

test('the control lane has a quarter of a second more, and no more than that', () => {
  const { ceiling } = ceilingOf({ itemsPerSecond: 100 });
  ceiling.charge(110, 0, []);
  assert.ok(ceiling.waitMs(false) > 0);
  assert.equal(ceiling.waitMs(true), 0);
  ceiling.charge(20, 0, []);
  assert.ok(ceiling.waitMs(true) > 0);
});

test('recipients are counted once a minute, and too many of them make it longer', () => {
  const { time, ceiling } = ceilingOf({ recipientsPerMinute: 10, itemsPerSecond: 1e9 });
  const charge = (from: number, to: number): void => {
    const rids = Array.from({ length: to - from }, (_, index) => rid(from + index));
    ceiling.charge(1, 0, rids);
  };
  for (let again = 0; again < 100; again += 1) charge(0, 9);
  assert.equal(ceiling.waitMs(false), 0);
  charge(9, 30);
  assert.equal(ceiling.waitMs(false), 3 * minuteMs);
  time.at += 3 * minuteMs - 1;
  assert.equal(ceiling.waitMs(false), 1);
  time.at += 1;
  assert.equal(ceiling.waitMs(false), 0);
  charge(0, 5);
  assert.equal(ceiling.waitMs(false), 0, 'the new minute began empty');
});

test('one percent of permanent rejects halves the credit, each minute, and it comes back', () => {
  const { time, ceiling } = ceilingOf({ itemsPerSecond: 1e9 });
  assert.equal(ceiling.judged(10_000, 100), false, 'one percent is allowed');
  assert.equal(ceiling.creditOf(1_024), 1_024);
  assert.equal(ceiling.judged(100, 100), true);
  assert.equal(ceiling.creditOf(1_024), 512);
  assert.equal(ceiling.judged(100, 100), false, 'once a minute');
  for (let minute = 0; minute < 30; minute += 1) {
    time.at += minuteMs;
    ceiling.judged(100, 100);
  }
  assert.equal(ceiling.creditOf(1_024), 1, 'never 0: nothing could get better then');
  for (let minute = 0; minute < 25; minute += 1) {
    time.at += minuteMs;
    ceiling.judged(100, 0);
  }
  assert.equal(ceiling.creditOf(1_024), 1_024, 'ten minutes remember, then it doubles');
});

test('a few rejects of little traffic prove nothing', () => {
  const { ceiling } = ceilingOf();
  assert.equal(ceiling.judged(9, 9), false);
  assert.equal(ceiling.judged(1, 1), true);
});

test('peers get half of what the writer was seen to do, measured on large batches only', async () => {
  const time = standing();
  const share = new WriterShare(time.clock, 0.5);
  const write = (items: number, ms: number): Promise<void> => {
    share.charge(items);
    return share.run(items, async () => void (time.at += ms));
  };
  await write(1, 50);
  assert.equal(share.perSecond, Number.POSITIVE_INFINITY, 'one row is one sync');
  await write(100, 100);
  assert.equal(share.perSecond, 500);
  // The batch that was measured is owed for from now on.
  await write(1_000, 1_000);
  const waitMs = share.waitMs();
  assert.ok(waitMs >= 900 && waitMs <= 1_100, `${waitMs} ms`);
  time.at += waitMs;
  assert.equal(share.waitMs(), 0);
});

test('a writer that stood still for a minute does not stop the peers for an hour', async () => {
  const time = standing();
  const share = new WriterShare(time.clock, 0.5);
  await share.run(256, async () => void (time.at += minuteMs));
  share.charge(256);
  await share.run(256, async () => undefined);
  assert.ok(share.waitMs() < 5_000, `${share.waitMs()} ms`);
});

test('a cold start and a pause of the disk are forgotten within a few batches', async () => {
  const time = standing();
  const share = new WriterShare(time.clock, 0.5);
  const write = (ms: number): Promise<void> => share.run(256, async () => void (time.at += ms));
  await write(640);
  for (let batch = 0; batch < 6; batch += 1) await write(25.6);
  assert.ok(share.perSecond > 3_000, `${share.perSecond} after a cold start, of 5 000`);
  await write(256);
  assert.ok(share.perSecond > 1_500, `${share.perSecond} after a pause`);
});

test('batches that the writer takes together are measured together, also when one fails', async () => {
  const time = standing();
  const share = new WriterShare(time.clock, 0.5);
  const first = Promise.withResolvers<void>();
  const runs = [
    share.run(100, () => first.promise),
    share.run(100, () => Promise.reject(new Error('the disk'))),
  ];
  await assert.rejects(runs[1] ?? Promise.resolve());
  time.at += 200;
  first.resolve();
  await runs[0];
  assert.equal(share.perSecond, 500);
});

test('a clock that stands, as in a simulation, holds nothing back', async () => {
  const share = new WriterShare(standing().clock, 0.5);
  for (let batch = 0; batch < 100; batch += 1) {
    share.charge(256);
    await share.run(256, async () => undefined);
  }
  assert.equal(share.waitMs(), 0);
});
