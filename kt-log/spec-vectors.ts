/**
 * Test support: the KEYTRANS vector files that lie beside the repository, in `QPC_SPEC_DIR`
 * (default `../shared/spec`). Absent vectors skip a test with one line that says so, or fail it
 * where `QPC_REQUIRE_VECTORS=1`; the number of cases run is printed either way. Not library code.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test, type TestContext } from 'node:test';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const specDir = resolve(repository, process.env['QPC_SPEC_DIR'] ?? '../shared/spec');

const directory = join(specDir, 'keytrans-vectors');
/** Where the vector files are; undefined when they are not there and need not be. */
export const vectorsDir: string | undefined =
  existsSync(directory) || process.env['QPC_REQUIRE_VECTORS'] === '1' ? directory : undefined;

/** One case as the files write it; `T` is the shape that the file's notes promise. */
export type VectorCase<T> = T & { readonly name: string };

/** A test over all cases of one file; `run` returns how many of them it ran. */
export function vectorTest<T>(
  file: string,
  run: (cases: readonly VectorCase<T>[], context: TestContext) => Promise<number> | number,
): void {
  const path = join(directory, file);
  const name = `official vectors: ${file}`;
  if (!existsSync(path) && process.env['QPC_REQUIRE_VECTORS'] !== '1') {
    test(name, { skip: `vectors not found: ${file} (set QPC_SPEC_DIR); 0 cases run` }, () => {});
    return;
  }
  test(name, async (context) => {
    const { cases } = JSON.parse(readFileSync(path, 'utf8')) as { cases: VectorCase<T>[] };
    const ran = await run(cases, context);
    context.diagnostic(`${file}: ${ran} of ${cases.length} cases run`);
    if (ran === 0) throw new Error(`${file}: no case was run`);
  });
}

/** The text of a file of the specification folder, or undefined when it is not there. */
export function specText(file: string): string | undefined {
  const path = join(specDir, file);
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

export function hex(digits: string): Uint8Array {
  return Uint8Array.from(Buffer.from(digits, 'hex'));
}
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
/** Packed hashes, one hexadecimal string each. */
export function hexList(packed: Uint8Array): string[] {
  const out: string[] = [];
  for (let i = 0; i < packed.length; i += 32) out.push(toHex(packed.subarray(i, i + 32)));
  return out;
}
export function packHex(list: readonly string[]): Uint8Array {
  return hex(list.join(''));
}
