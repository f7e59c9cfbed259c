/** Test support: where the official vectors lie, and what happens to a test without them. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';

const repository = resolve(import.meta.dirname, '../..');
const specDir = resolve(repository, process.env['QPC_SPEC_DIR'] ?? '../shared/spec');

/**
 * A test over one JSON file of vectors below `QPC_SPEC_DIR` (default `../shared/spec`). Without
 * the file it is skipped with one line, or fails where `QPC_REQUIRE_VECTORS=1`.
 */
export function vectorTest(name: string, file: string, run: (json: unknown) => void): void {
  const path = resolve(specDir, file);
  if (!existsSync(path) && process.env['QPC_REQUIRE_VECTORS'] !== '1') {
    test(name, { skip: `vectors not found: ${file} (set QPC_SPEC_DIR)` }, () => {});
    return;
  }
  test(name, () => run(JSON.parse(readFileSync(path, 'utf8'))));
}
