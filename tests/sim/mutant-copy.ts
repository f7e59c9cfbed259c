/** Copies of the repository with deliberate bugs in them: what shows that a simulator finds bugs. */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

export interface Edit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const root = join(import.meta.dirname, '../..');
const packages = ['proto', 'kt-log', 'federation', 'p2p', 'nodes', 'client-lib'];

/** A copy of the sources, with the packages of this repository in it and all others from here. */
export function copyRepository(): string {
  const copy = mkdtempSync(join(tmpdir(), 'qpc-mutant-'));
  const skipped = new Set(['node_modules', '.git', 'docs', 'deploy']);
  for (const name of readdirSync(root)) {
    if (skipped.has(name)) continue;
    cpSync(join(root, name), join(copy, name), {
      recursive: true,
      filter: (path) => !skipped.has(relative(root, path).split('/').at(-1) ?? ''),
    });
  }
  const modules = join(copy, 'node_modules');
  mkdirSync(join(modules, '@quicprochat'), { recursive: true });
  for (const name of readdirSync(join(root, 'node_modules'))) {
    if (name !== '@quicprochat') symlinkSync(join(root, 'node_modules', name), join(modules, name));
  }
  for (const name of packages) symlinkSync(join(copy, name), join(modules, '@quicprochat', name));
  return copy;
}

/** Throws unless the text stands in the file exactly once. */
export function applyEdit(copy: string, { file, from, to }: Edit): void {
  const path = join(copy, file);
  const text = readFileSync(path, 'utf8');
  const places = text.split(from).length - 1;
  if (places !== 1) throw new Error(`${file}: ${places} places for ${JSON.stringify(from)}`);
  writeFileSync(
    path,
    text.replace(from, () => to),
  );
}
