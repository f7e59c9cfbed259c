/** Commitments (protocol section 11.6) against the official vectors and the platform's HMAC. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { commitmentValue, DeploymentMode } from './codec.ts';
import { commitmentOf, portableSha256 } from './hash.ts';
import { nativeSha256 } from './native-hash.ts';
import { decode, encode } from './presentation.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';

interface Case {
  readonly input: {
    readonly label: string;
    readonly opening: string;
    readonly update: { readonly value: string };
    readonly version: number;
    readonly commitment?: string;
  };
  readonly expect: {
    readonly commitment?: string;
    readonly commitment_value?: string;
    readonly error?: boolean;
  };
}
const structure = commitmentValue(DeploymentMode.contactMonitoring);

vectorTest<Case>('commitment.json', (cases) => {
  for (const { name, input, expect } of cases) {
    const bytes = encode(structure, {
      opening: hex(input.opening),
      label: hex(input.label),
      version: input.version,
      update: { value: hex(input.update.value) },
    });
    const commitment = toHex(commitmentOf(nativeSha256, bytes));
    if (expect.error === true) {
      assert.notEqual(commitment, input.commitment, name);
      continue;
    }
    assert.equal(toHex(bytes), expect.commitment_value, name);
    assert.equal(commitment, expect.commitment, name);
    assert.deepEqual(encode(structure, decode(structure, bytes)), bytes, name);
  }
  return cases.length;
});

test('both SHA-256 give the HMAC that the platform gives', () => {
  const key = Buffer.from('d821f8790d97709796b4d7903357c3f5', 'hex');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (message) => {
      const expected = createHmac('sha256', key).update(message).digest('hex');
      assert.equal(toHex(commitmentOf(nativeSha256, message)), expected);
      assert.equal(toHex(commitmentOf(portableSha256, message)), expected);
    }),
  );
});
