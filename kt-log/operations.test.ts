/** Encodings of requests and their parts (protocol sections 11.5, 13) against the official vectors. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configuration, DeploymentMode, updateTbs } from './codec.ts';
import * as operations from './operations.ts';
import type { Structure } from './presentation.ts';
import { decode, encode } from './presentation.ts';
import { hex, toHex, vectorTest } from './spec-vectors.ts';
import { VerificationError } from './verification-error.ts';

interface Case {
  readonly input: {
    readonly kind: string;
    readonly label?: string;
    readonly last?: number;
    readonly version?: number;
    readonly commitment?: string;
    readonly proof?: string;
    readonly position?: number;
    readonly entries?: readonly operations.MonitorMapEntry[];
    readonly start?: number;
    readonly greatest_version?: number;
    readonly value?: string;
    readonly values?: readonly string[];
    readonly opening?: string;
    readonly configuration?: string;
  };
  readonly expect: { readonly encoding: string };
}

/** The encoding that our codec gives, after it decoded the vector's bytes to the same value. */
function roundTrip<T>(structure: Structure<T>, value: T, encoding: string): string {
  assert.deepEqual(decode(structure, hex(encoding)), value);
  for (let length = 0; length < encoding.length / 2; length++) {
    assert.throws(() => decode(structure, hex(encoding).subarray(0, length)), VerificationError);
  }
  assert.throws(() => decode(structure, hex(`${encoding}00`)), { reason: 'MALFORMED' });
  return toHex(encode(structure, value));
}

function encodeCase({ input, expect }: Case): string {
  const label = hex(input.label ?? '');
  const { last, version } = input;
  const entries = input.entries ?? [];
  const greatestVersion = input.greatest_version;
  const bytes = expect.encoding;
  switch (input.kind) {
    case 'search-request':
      return roundTrip(operations.searchRequest, { last, label, version }, bytes);
    case 'binary-ladder-step': {
      const commitment = input.commitment === undefined ? undefined : hex(input.commitment);
      const step = { proof: hex(input.proof ?? ''), commitment };
      return roundTrip(operations.binaryLadderStep, step, bytes);
    }
    case 'contact-monitor-request':
      return roundTrip(operations.contactMonitorRequest, { last, label, entries }, bytes);
    case 'owner-init-request':
      return roundTrip(
        operations.ownerInitRequest,
        { last, label, start: input.start ?? -1 },
        bytes,
      );
    case 'owner-monitor-request': {
      const request = { last, label, entries, start: input.start ?? -1, greatestVersion };
      return roundTrip(operations.ownerMonitorRequest, request, bytes);
    }
    case 'label-value':
      return roundTrip(operations.labelValue, hex(input.value ?? ''), bytes);
    case 'update-info': {
      const info = { opening: hex(input.opening ?? ''), suffix: undefined };
      return roundTrip(operations.updateInfo(DeploymentMode.contactMonitoring), info, bytes);
    }
    case 'update-request': {
      const values = (input.values ?? []).map(hex);
      return roundTrip(operations.updateRequest, { last, label, greatestVersion, values }, bytes);
    }
    case 'update-tbs': {
      const config = decode(configuration, hex(input.configuration ?? ''));
      return toHex(updateTbs(config, label, version ?? -1, hex(input.value ?? '')));
    }
    default:
      throw new Error(`unknown kind ${input.kind}`);
  }
}

/** Position 0x0102030405060708 is beyond 2^52: our positions are numbers, see the test below. */
const beyondNumbers = 'monitor-map-entry';

vectorTest<Case>('requests.json', (cases) => {
  let ran = 0;
  for (const vector of cases) {
    if (vector.name === beyondNumbers) {
      const read = (): unknown => decode(operations.monitorMapEntry, hex(vector.expect.encoding));
      assert.throws(read, { name: 'VerificationError', reason: 'MALFORMED' });
    } else {
      assert.equal(encodeCase(vector), vector.expect.encoding, vector.name);
    }
    ran++;
  }
  return ran;
});

test('a position of 2^52 or more is refused on both sides', () => {
  const atLimit = { position: 2 ** 52 - 1, version: 9 };
  const bytes = encode(operations.monitorMapEntry, atLimit);
  assert.equal(toHex(bytes), '000fffffffffffff00000009');
  assert.deepEqual(decode(operations.monitorMapEntry, bytes), atLimit);
  assert.throws(() => decode(operations.monitorMapEntry, hex('001000000000000000000009')), {
    reason: 'MALFORMED',
  });
  const unsafe = { position: 2 ** 53, version: 9 };
  assert.throws(() => encode(operations.monitorMapEntry, unsafe), { name: 'InvalidArgumentError' });
});

test('a count that cannot fit in the bytes left is refused before anything is read', () => {
  const response = operations.ownerInitResponse(DeploymentMode.contactMonitoring);
  // same head, no greatest versions, 65 535 ladder steps of at least 81 bytes, then nothing.
  assert.throws(() => decode(response, hex('0100ffff')), { reason: 'MALFORMED' });
  const request = operations.updateRequest;
  // One value that claims 4 GiB, then one above the cap that would fit its own claim.
  assert.throws(() => decode(request, hex('00000001ffffffff')), { reason: 'MALFORMED' });
});

test('a presence octet other than 0 or 1 is refused', () => {
  assert.throws(() => decode(operations.searchRequest, hex('020000')), { reason: 'MALFORMED' });
});
