/**
 * The module graph of a browser program, read from the sources that the node itself runs: types are
 * stripped, imports point to URLs of the door. No bundler, no second copy of the verifier. What
 * touches a Node built-in cannot be in it.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire, stripTypeScriptTypes } from 'node:module';
import { basename, dirname, resolve } from 'node:path';

/** A graph beyond these bounds has swallowed something that does not belong into a browser. */
export const browserModuleLimits = { files: 256, bytes: 4 * 1024 * 1024 } as const;

export interface BrowserModules {
  /** URL path of the program. */
  readonly entry: string;
  /** Source of each module, by URL path. The paths change whenever one of the sources does. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}

/** Static imports and re-exports; the specifier is what lies between the quotes. */
const imports = /^([ \t]*(?:import|export)\s(?:[\w$*{},\s]*?\sfrom\s*)?)(['"])([^'"\n]+)\2/gm;

/**
 * Reads `entryFile` and all that it imports; the URLs lie below `base`, which ends in a slash.
 * Throws TypeError for an import of a Node built-in or a graph beyond the limits.
 */
export function browserModules(entryFile: string, base: string): BrowserModules {
  const names = new Map<string, string>();
  const sources = new Map<string, string>();
  const waiting: string[] = [];
  const nameOf = (file: string): string => {
    const known = names.get(file);
    if (known !== undefined) return known;
    const name = `${names.size}-${basename(file).replace(/\.[jt]s$/, '')}.js`;
    names.set(file, name);
    waiting.push(file);
    return name;
  };
  const entry = nameOf(entryFile);
  let bytes = 0;
  for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
    const source = readModule(file);
    bytes += source.length;
    if (names.size > browserModuleLimits.files || bytes > browserModuleLimits.bytes) {
      throw new TypeError(`${entryFile}: its module graph is too large for a browser`);
    }
    const from = file;
    sources.set(
      file,
      source.replaceAll(
        imports,
        (_, head: string, quote: string, specifier: string) =>
          `${head}${quote}./${nameOf(resolveImport(from, specifier))}${quote}`,
      ),
    );
  }
  const hash = createHash('sha256');
  for (const [file, source] of sources) hash.update(`${nameOf(file)}\0${source}\0`);
  const version = hash.digest('hex').slice(0, 16);
  const files = new Map<string, Uint8Array>();
  for (const [file, source] of sources) {
    files.set(`${base}${version}/${nameOf(file)}`, new TextEncoder().encode(source));
  }
  return { entry: `${base}${version}/${entry}`, files };
}

function readModule(file: string): string {
  const text = readFileSync(file, 'utf8');
  return file.endsWith('.ts') ? stripTypeScriptTypes(text) : text;
}

function resolveImport(from: string, specifier: string): string {
  if (specifier.startsWith('.')) return resolve(dirname(from), specifier);
  const file = createRequire(from).resolve(specifier);
  if (file === specifier) throw new TypeError(`${from}: imports ${specifier}, no browser has that`);
  return file;
}
