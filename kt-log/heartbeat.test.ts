/** The heartbeat's value: round trip, order, bounds, refusal of everything else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PinnedLog } from './heartbeat.ts';
import { heartbeat, heartbeatLimits } from './heartbeat.ts';
import { decode, encode } from './presentation.ts';

const pinned = (origin: string, size = 7): PinnedLog => ({
  origin,
  size,
  rfc6962Root: new Uint8Array(32).fill(size),
});
const refused = { name: 'VerificationError', reason: 'MALFORMED' };

test('what is written is read back, in order of origins', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.string({ minLength: 1, maxLength: 60 }), { maxLength: 64 }),
      fc.nat(2 ** 31 - 1),
      (origins, size) => {
        const wellFormed = origins.filter((origin) => origin.isWellFormed());
        const logs = wellFormed.map((origin) => pinned(origin, size));
        const { logs: read } = decode(heartbeat, encode(heartbeat, { logs }));
        const sorted = logs.toSorted((a, b) => (a.origin < b.origin ? -1 : 1));
        assert.deepEqual(read, sorted);
      },
    ),
  );
});

test('sixty-four logs fit, one more does not', () => {
  const many = Array.from({ length: 65 }, (_, i) => pinned(`log-${String(i).padStart(3, '0')}`));
  const full = encode(heartbeat, { logs: many.slice(0, heartbeatLimits.logsMax) });
  assert.ok(full.length < 8192, `${full.length} bytes fit a value of the log`);
  assert.throws(() => encode(heartbeat, { logs: many }), { name: 'InvalidArgumentError' });
  const claims = full.slice();
  claims[1] = 65;
  assert.throws(() => decode(heartbeat, claims), refused);
});

test('every truncation, extension, disorder and bad text is refused', () => {
  const whole = encode(heartbeat, { logs: [pinned('blue.example'), pinned('green.example')] });
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => decode(heartbeat, whole.subarray(0, length)), refused);
  }
  assert.throws(() => decode(heartbeat, new Uint8Array([...whole, 0])), refused);
  const one = encode(heartbeat, { logs: [pinned('blue.example')] });
  const twice = new Uint8Array([...one, ...one.subarray(2)]);
  twice[1] = 2;
  assert.throws(() => decode(heartbeat, twice), refused);
  const garbled = one.slice();
  garbled[3] = 0xff;
  assert.throws(() => decode(heartbeat, garbled), refused);
  assert.throws(() => decode(heartbeat, whole.with(0, 2)), refused);
});
