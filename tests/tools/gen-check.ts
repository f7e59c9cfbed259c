/**
 * Checks that proto/gen is what the schemas generate: runs the generator into an empty directory
 * and compares every file byte for byte. Fails too when nothing was generated.
 * `npm run gen:check` runs this file; `npm run gen` writes proto/gen.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Relative paths of the files below `directory`, sorted; empty when it does not exist. */
function filesBelow(directory: string): string[] {
  if (statSync(directory, { throwIfNoEntry: false }) === undefined) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort();
}

/** What differs between two trees: one line per file, empty when they are the same. */
export function differences(wanted: string, present: string): string[] {
  const fresh = filesBelow(wanted);
  const committed = filesBelow(present);
  if (fresh.length === 0) return ['the schemas generated nothing'];
  return [
    ...fresh.filter((file) => !committed.includes(file)).map((file) => `${file}: missing`),
    ...committed
      .filter((file) => !fresh.includes(file))
      .map((file) => `${file}: no schema makes it`),
    ...fresh
      .filter((file) => committed.includes(file))
      .filter((file) => !readFileSync(join(wanted, file)).equals(readFileSync(join(present, file))))
      .map((file) => `${file}: differs`),
  ];
}

if (import.meta.main) {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-gen-'));
  try {
    const run = spawnSync(
      'buf',
      ['generate', 'proto', '--template', 'proto/buf.gen.yaml', '--output', directory],
      { cwd: root, stdio: 'inherit' },
    );
    const found =
      run.status === 0
        ? differences(join(directory, 'gen'), join(root, 'proto/gen'))
        : [`buf generate failed: ${run.error?.message ?? `exit code ${run.status}`}`];
    for (const line of found) console.error(`gen:check: ${line}`);
    if (found.length > 0) {
      console.error('gen:check: run `npm run gen` and commit proto/gen');
      process.exitCode = 1;
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
