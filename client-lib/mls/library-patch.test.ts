/** Every row of our ts-mls patch: green on the installed copy, red on the published one. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { patchedLibrary, publishedLibrary } from './patch-harness.ts';
import { commitRows } from './patch-rows-commit.ts';
import { validationRows } from './patch-rows-validation.ts';

const patchRows = [...commitRows, ...validationRows];
const patched = await patchedLibrary();
const published = await publishedLibrary();
after(() => published[Symbol.dispose]());

for (const patchRow of patchRows) {
  const { row, title } = patchRow;
  test(`patch row ${row}: ${title}`, () => patchRow.run(patched));
  if (patchRow.hangsUnpatched === true) continue;
  test(`patch row ${row} is needed: ${title}`, async () => {
    await assert.rejects(
      patchRow.run(published),
      'the published library passes: is the row still needed?',
    );
  });
}

test('every row from 1 to 14 has a test', () => {
  assert.deepEqual(
    [...new Set(patchRows.map(({ row }) => row))],
    Array.from({ length: 14 }, (_, i) => i + 1),
  );
});

test('an unpatched copy fails at load and says what to run', () => {
  cpSync(join(import.meta.dirname, 'library.ts'), join(published.directory, 'library.ts'));
  const run = spawnSync(process.execPath, ['library.ts'], {
    cwd: published.directory,
    encoding: 'utf8',
  });
  assert.notEqual(run.status, 0);
  assert.match(run.stderr, /ts-mls is not patched: run `npm run patch`/);
});
