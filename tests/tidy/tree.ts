/**
 * The text files of a work tree, as the house rules see them: everything but what is installed,
 * built, generated or binary. Reads the disk once.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { blank } from './blank.ts';

/** One file: its path from the root, with slashes, and its text. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
  /** TypeScript without comments; the text itself for other files. */
  readonly uncommented: string;
  /** TypeScript without comments and literals; the text itself for other files. */
  readonly code: string;
}
export interface SourceTree {
  readonly files: readonly SourceFile[];
  /** True when the path (from the root) is a file or a folder. */
  has(path: string): boolean;
  file(path: string): SourceFile | undefined;
}

const skippedFolders = new Set(['node_modules', 'dist', 'coverage', '.git']);
const generated = /^proto\/gen\/|^package-lock\.json$|^LICENSE$/;
const textNames =
  /\.(?:ts|md|json|yaml|yml|proto|sql|toml|sh|service|patch)$|^\.ci\/|(?:^|\/)\.[a-z]+$/;

/** Reads the tree below `root`. */
export function readTree(root: string): SourceTree {
  const files: SourceFile[] = [];
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory() && !skippedFolders.has(entry.name)) visit(path);
      else if (entry.isFile() && textNames.test(path) && !generated.test(path)) {
        files.push(read(root, path));
      }
    }
  };
  visit('');
  const byPath = new Map(files.map((file) => [file.path, file]));
  return { files, has: (path) => existsSync(join(root, path)), file: (path) => byPath.get(path) };
}

function read(root: string, path: string): SourceFile {
  const text = readFileSync(join(root, path), 'utf8');
  const blanked = path.endsWith('.ts') ? blank(text) : { uncommented: text, code: text };
  return { path, text, ...blanked };
}
