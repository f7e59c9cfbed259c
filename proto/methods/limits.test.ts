/** Every field of every request has a bound, and the rule of the row holds it: for the methods that will come, too. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ScalarType, type DescField, type DescMessage } from '@bufbuild/protobuf';
import type { FieldRule } from '../field-rules.ts';
import { methods } from '../methods.ts';

/** Fields whose values are all good, or whose handler parses them; the size of the request bounds them. */
const free: Readonly<Record<string, readonly string[]>> = {
  Hello: ['versionMin', 'versionMax'],
  FedHello: ['versionMin', 'versionMax'],
  Subscribe: ['subscription'],
  KtMonitor: ['contact', 'ownerInit', 'ownerMonitor'],
};

/** More than any rule may take; undefined: the field has no such value. */
function tooMuch(field: DescField): unknown {
  if (field.fieldKind === 'list') return Array.from({ length: 100_000 });
  if (field.fieldKind === 'enum') return 99;
  if (field.fieldKind !== 'scalar') return undefined;
  switch (field.scalar) {
    case ScalarType.BYTES:
      return new Uint8Array(5 * 1024 ** 2);
    case ScalarType.STRING:
      return 'a'.repeat(5_000);
    case ScalarType.UINT64:
      return 2n ** 64n - 1n;
    case ScalarType.UINT32:
      return 2 ** 32 - 1;
    default:
      return undefined;
  }
}

for (const { id, name, request, rules } of Object.values(methods)) {
  test(`${id} ${name} bounds its fields`, () => {
    const byField: Readonly<Record<string, FieldRule | undefined>> = rules;
    const { fields }: DescMessage = request;
    for (const field of fields) {
      const value = tooMuch(field);
      if (value === undefined || free[name]?.includes(field.localName) === true) continue;
      const rule = byField[field.localName];
      assert.ok(rule !== undefined, `${field.localName} has no rule`);
      assert.equal(typeof rule(value), 'string', `${field.localName} takes too much`);
    }
  });
}
