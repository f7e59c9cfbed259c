/**
 * What every statement of the stores has to keep. SQLite plans a statement anew at each run whose LIMIT
 * is a bare parameter (its value guides the plan), which costs five times the read itself: the limit is
 * written as `(? + 0)`.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

test('no statement of a store has a bare parameter as its limit', () => {
  const files = globSync('{nodes,client-lib}/store/**/*.ts', {
    cwd: new URL('..', import.meta.url).pathname,
  }).filter((file) => !file.endsWith('.test.ts'));
  const limits = files.flatMap((file) =>
    readFileSync(new URL(`../${file}`, import.meta.url), 'utf8')
      .split('\n')
      .flatMap((line, index) =>
        /\bLIMIT\b(?! ?[-(\d$])/.test(line) && !/^ *(\*|\/\/)/.test(line)
          ? [`${file}:${index + 1}:${line}`]
          : [],
      ),
  );
  assert.deepEqual(limits, []);
  assert(files.length > 40, 'the stores were found');
});
