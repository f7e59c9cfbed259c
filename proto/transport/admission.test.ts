/** Limits per address: what counts as one address, what a rate and a count let through. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../runtime.ts';
import { Admission, limitKey, plainAddress } from './admission.ts';
import { defaultLimits, type TransportLimits } from './transport.ts';

function admissionWith(limits: Partial<TransportLimits>) {
  let nowMs = 0;
  const clock = { ...systemClock, monotonic: () => nowMs };
  const admission = new Admission(clock, { ...defaultLimits, ...limits });
  return { admission, advance: (ms: number) => (nowMs += ms) };
}

test('IPv6 counts by /64, mapped IPv4 as IPv4', () => {
  assert.equal(plainAddress('::ffff:192.0.2.7'), '192.0.2.7');
  for (const [address, key] of [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::9', '2001:db8:1:2::/64'],
    ['2001:DB8:0001:2::9', '2001:db8:1:2::/64'],
    ['2001:db8::9', '2001:db8:0:0::/64'],
    ['2001:db8:1:3::9', '2001:db8:1:3::/64'],
    ['1::2:3:4:5:6:7', '1:0:2:3::/64'],
    ['::1', '0:0:0:0::/64'],
    ['::', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['red', 'red'],
  ] as const) {
    assert.equal(limitKey(address), key, address);
  }
});

test('handshakes come back with time, up to two seconds’ worth', () => {
  const { admission, advance } = admissionWith({ handshakesPerHostPerSecond: 10 });
  const burst = (): number => {
    let passed = 0;
    while (admission.handshake('192.0.2.1')) passed += 1;
    return passed;
  };
  assert.equal(burst(), 20);
  assert.equal(burst(), 0);
  advance(500);
  assert.equal(burst(), 5);
  advance(60_000);
  assert.equal(burst(), 20);
  assert.ok(admission.handshake('192.0.2.2'), 'another address has its own');
});

test('remembered addresses are bounded, and the idle ones make room', () => {
  const { admission, advance } = admissionWith({ handshakesPerHostPerSecond: 10 });
  const hosts = Array.from(
    { length: 65_536 },
    (_, n) => `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`,
  );
  for (const host of hosts) assert.ok(admission.handshake(host));
  assert.ok(!admission.handshake('192.0.2.1'));
  assert.ok(admission.handshake('10.0.0.0'), 'a remembered one still passes');
  advance(2000);
  assert.ok(admission.handshake('192.0.2.1'));
});

test('connections are counted per address and in all', () => {
  const { admission } = admissionWith({ connections: 3, connectionsPerHost: 2 });
  assert.ok(admission.enter('2001:db8::1'));
  assert.ok(admission.enter('2001:db8::2'));
  assert.ok(!admission.enter('2001:db8::3'));
  assert.ok(admission.enter('192.0.2.1'));
  assert.ok(!admission.enter('192.0.2.2'));
  admission.leave('2001:db8::1');
  assert.ok(admission.enter('192.0.2.2'));
  assert.ok(!admission.enter('2001:db8::3'));
});
