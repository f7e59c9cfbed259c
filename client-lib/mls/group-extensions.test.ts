/** Codecs of qpc_group and qpc_hub: one encoding for each value, bounds on both sides. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  decodeQpcGroup,
  decodeQpcHub,
  encodeQpcGroup,
  encodeQpcHub,
  groupContextExtensions,
  groupContextOf,
  groupLimits,
} from './group-extensions.ts';
import type { QpcGroupInfo, RoleEntry } from './group-extensions.ts';
import { makeCustomExtension } from './library.ts';
import { encodesBack, refused } from './test-members.ts';

const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((value) => Uint8Array.from(value));
const label = fc.stringMatching(/^[a-z0-9]{1,12}$/);
const domain = fc.tuple(label, label).map((labels) => labels.join('.'));
const userId = fc.tuple(label, domain).map(([name, home]) => `${name}@${home}`);
const roles = fc
  .uniqueArray(userId, { minLength: 1, maxLength: groupLimits.roles })
  .chain((users) => {
    const sorted = users.sort();
    const one = fc.constantFrom('owner' as const, 'admin' as const);
    return fc
      .tuple(fc.nat({ max: sorted.length - 1 }), fc.array(one, { minLength: 32, maxLength: 32 }))
      .map(([owner, kinds]): RoleEntry[] =>
        sorted.map((user, i) => ({
          userId: user,
          role: i === owner ? 'owner' : (kinds[i] ?? 'admin'),
        })),
      );
  });
const groups: fc.Arbitrary<QpcGroupInfo> = fc.record(
  {
    conversationId: bytes(32),
    name: fc
      .string({ unit: 'grapheme', maxLength: 60 })
      .filter((name) => Buffer.byteLength(name) <= groupLimits.nameBytes && name.isWellFormed()),
    roles,
    expirySeconds: fc.integer({ min: 0, max: groupLimits.expirySeconds }),
    joinKeyHash: fc.option(bytes(32), { nil: undefined }),
    policyVersion: fc.integer({ min: 0, max: 0xffff }),
    directDevices: fc.constantFrom(1, groupLimits.directDevices, groupLimits.directDevicesMax),
    channelNonce: fc.option(bytes(32), { nil: undefined }),
  },
  { noNullPrototype: true },
);
const hubSets = fc
  .uniqueArray(domain, { minLength: 3, maxLength: 3 })
  .chain((three) => fc.constantFrom(three, three.slice(1, 2)));

/** One byte changed, one cut, or one more. */
function near(valid: Uint8Array): fc.Arbitrary<Uint8Array> {
  const at = fc.nat({ max: valid.length - 1 });
  return fc.oneof(
    fc.tuple(at, fc.nat({ max: 255 })).map(([i, byte]) => valid.with(i, byte)),
    at.map((end) => valid.slice(0, end)),
    fc.nat({ max: 255 }).map((byte) => Uint8Array.from([...valid, byte])),
  );
}

test('every group and hub set comes back from its encoding', () => {
  fc.assert(
    fc.property(groups, hubSets, (info, hubs) => {
      assert.deepEqual(decodeQpcGroup(encodeQpcGroup(info)), info);
      assert.deepEqual(decodeQpcHub(encodeQpcHub(hubs)), hubs);
      assert.deepEqual(groupContextOf(groupContextExtensions({ info, hubs })), { info, hubs });
    }),
  );
});

test('bytes next to an encoding and arbitrary ones encode back, or are MALFORMED', () => {
  const group = groups.chain((info) => near(encodeQpcGroup(info)));
  const hub = hubSets.chain((hubs) => near(encodeQpcHub(hubs)));
  fc.assert(
    fc.property(fc.oneof(group, fc.uint8Array()), (input) => {
      const value = Uint8Array.from(input);
      encodesBack(value, () => encodeQpcGroup(decodeQpcGroup(value)));
    }),
    { numRuns: 1500 },
  );
  fc.assert(
    fc.property(fc.oneof(hub, fc.uint8Array()), (input) => {
      const value = Uint8Array.from(input);
      encodesBack(value, () => encodeQpcHub(decodeQpcHub(value)));
    }),
    { numRuns: 1500 },
  );
});

const info: QpcGroupInfo = {
  conversationId: new Uint8Array(32),
  name: 'Grüße 🌊',
  roles: [{ userId: 'alice@red.example', role: 'owner' }],
  expirySeconds: 0,
  joinKeyHash: undefined,
  policyVersion: 1,
  directDevices: 32,
  channelNonce: undefined,
};
const numbered = (count: number): RoleEntry[] =>
  Array.from({ length: count }, (_, i) => ({
    userId: `${'a'.repeat(60)}${String(i).padStart(2, '0')}@${'b'.repeat(60)}.example`,
    role: 'owner' as const,
  }));

test('limits: the greatest values go in, one more does not', () => {
  const most: Partial<QpcGroupInfo> = {
    name: 'x'.repeat(256),
    roles: numbered(32),
    expirySeconds: groupLimits.expirySeconds,
  };
  assert.deepEqual(decodeQpcGroup(encodeQpcGroup({ ...info, ...most })), { ...info, ...most });
  const wrong: Partial<QpcGroupInfo>[] = [
    { name: 'x'.repeat(257) },
    { name: '\ud800' },
    { conversationId: new Uint8Array(31) },
    { expirySeconds: groupLimits.expirySeconds + 1 },
    { expirySeconds: 0.5 },
    { joinKeyHash: new Uint8Array(31) },
    { channelNonce: new Uint8Array(31) },
    { directDevices: 0 },
    { directDevices: groupLimits.directDevicesMax + 1 },
    { policyVersion: 0x1_0000 },
    { roles: [] },
    { roles: [{ userId: 'alice@red.example', role: 'admin' }] },
    { roles: [{ userId: 'Alice@red.example', role: 'owner' }] },
    { roles: numbered(33) },
    { roles: numbered(2).reverse() },
    { roles: [...numbered(1), ...numbered(1)] },
  ];
  for (const part of wrong) {
    assert.throws(() => encodeQpcGroup({ ...info, ...part }), refused('MALFORMED'));
  }
  for (const hubs of [[], ['a.example', 'b.example'], ['A.example'], ['a', 'b', 'a']]) {
    assert.throws(() => encodeQpcHub(hubs), refused('MALFORMED'));
  }
});

test('a group context without one of the extensions, or with one more, is none of ours', () => {
  const whole = groupContextExtensions({ info, hubs: ['red.example'] });
  const more = makeCustomExtension({ extensionType: 0xf0c2, extensionData: new Uint8Array(0) });
  assert.throws(() => groupContextOf([...whole, more]), refused('MALFORMED'));
  assert.throws(() => groupContextOf([...whole, ...whole.slice(2)]), refused('MALFORMED'));
  for (const one of whole) {
    assert.throws(
      () => groupContextOf(whole.filter((other) => other !== one)),
      refused('MALFORMED'),
    );
  }
});
