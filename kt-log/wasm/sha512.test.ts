/** SHA-512 in WebAssembly against OpenSSL's. */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';
import { at, messageBytes } from './module.ts';
import { arithmetics } from './test-curve.ts';

const [{ curve } = assert.fail('no arithmetic')] = arithmetics;

test('messages of any length have the digest of OpenSSL, from however many parts', () => {
  const message = Uint8Array.from({ length: 2 * messageBytes + 200 }, (_, i) => (i * 151) & 0xff);
  for (let length = 0; length <= message.length; length++) {
    const whole = message.subarray(0, length);
    const [first, second] = [whole.subarray(0, length >> 1), whole.subarray(length >> 1)];
    curve.hash(at.strings, [first, second]);
    const digest = curve.memory.slice(at.strings, at.strings + 64);
    assert.equal(Buffer.from(digest).toString('hex'), hash('sha512', whole), `${length} bytes`);
  }
});
