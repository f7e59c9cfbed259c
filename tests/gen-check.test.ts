/**
 * Proves that `npm run gen:check` notices generated code that is stale, left over or absent, and a
 * generator that made nothing.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { differences } from './tools/gen-check.ts';

/** The differences between two trees that are given as path and text. */
function compare(
  wanted: Readonly<Record<string, string>>,
  present: Readonly<Record<string, string>>,
): string[] {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-gen-'));
  try {
    for (const [name, files] of Object.entries({ wanted, present })) {
      for (const [path, text] of Object.entries(files)) {
        const file = join(directory, name, path);
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, text);
      }
    }
    return differences(join(directory, 'wanted'), join(directory, 'present'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const tree = { 'v1/a.ts': 'a', 'v1/b.ts': 'b' };

test('equal trees have no differences', () => {
  assert.deepEqual(compare(tree, tree), []);
});

test('one changed byte, a missing file and a left-over file are each named', () => {
  assert.deepEqual(compare(tree, { ...tree, 'v1/b.ts': 'c' }), ['v1/b.ts: differs']);
  assert.deepEqual(compare(tree, { 'v1/a.ts': 'a' }), ['v1/b.ts: missing']);
  assert.deepEqual(compare(tree, { ...tree, 'c.ts': '' }), ['c.ts: no schema makes it']);
  assert.deepEqual(compare(tree, {}), ['v1/a.ts: missing', 'v1/b.ts: missing']);
});

test('a generator that made nothing is a failure, even when nothing is committed', () => {
  assert.deepEqual(compare({}, {}), ['the schemas generated nothing']);
});
