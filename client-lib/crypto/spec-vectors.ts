/**
 * Test support: official vectors that lie beside the repository, in `QPC_SPEC_DIR`
 * (default `../shared/spec`). Absent vectors skip a test with one line that says so, or fail
 * it where `QPC_REQUIRE_VECTORS=1`. Not for library code.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { hex } from './octets.ts';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const specDir = resolve(repository, process.env['QPC_SPEC_DIR'] ?? '../shared/spec');

/**
 * A test over one JSON file of vectors. `T` is the shape that the file's own description
 * promises; a file of another shape fails in the comparison, not silently.
 */
export function specTest<T>(
  name: string,
  file: string,
  run: (vectors: T) => Promise<void> | void,
): void {
  const path = join(specDir, file);
  const absent = !existsSync(path);
  if (absent && process.env['QPC_REQUIRE_VECTORS'] !== '1') {
    test(name, { skip: `vectors not found: ${file} (set QPC_SPEC_DIR)` }, () => {});
    return;
  }
  test(name, async () => {
    await run(JSON.parse(readFileSync(path, 'utf8')) as T);
  });
}

export { hex };

/** Hexadecimal of bytes, for comparisons whose failure a person can read. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
