/** Each deliberate bug still has its place in the code: one that does not is hunted by nobody. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { allMutants } from './mutants.ts';

const root = join(import.meta.dirname, '../..');

test('each edit of each deliberate bug is of a text that stands once in its file', () => {
  const names = allMutants.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const { name, edits } of allMutants) {
    // One after the other, as they are made.
    const texts = new Map<string, string>();
    for (const { file, from, to } of edits) {
      const text = texts.get(file) ?? readFileSync(join(root, file), 'utf8');
      assert.equal(text.split(from).length - 1, 1, `${name}: ${file}: ${from}`);
      texts.set(
        file,
        text.replace(from, () => to),
      );
    }
  }
});

test('each file of tests that hunts a deliberate bug is there', () => {
  const files = new Set(
    allMutants.flatMap(({ mixes }) => mixes).filter((mix) => mix.endsWith('.ts')),
  );
  assert.ok(files.size > 0);
  for (const file of files) assert.ok(existsSync(join(root, file)), file);
});
