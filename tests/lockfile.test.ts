/**
 * What may be installed: package-lock.json is complete for every platform, pins content by hash,
 * names no server, runs no unreviewed script, and brings no native code and no direct dependency
 * that docs/security does not list. Tests the tool that completes it too.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
  completeLockfile,
  formatLockfile,
  impliedBuilds,
  inOrder,
  missingEntries,
  parseLockfile,
  withoutBuilds,
  type LockEntry,
  type Lockfile,
} from './tools/lockfile.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const text = read('package-lock.json');
const lock = parseLockfile(text);

interface Manifest {
  readonly workspaces?: readonly string[];
  readonly allowScripts?: Readonly<Record<string, boolean>>;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly bin?: Readonly<Record<string, string>>;
}
const manifest = (folder: string): Manifest =>
  JSON.parse(read(join(folder, 'package.json'))) as Manifest;
const workspaces = manifest('.').workspaces ?? [];

/** Entries that come from outside: neither the root nor a workspace nor the link to one. */
const foreign = Object.entries(lock.packages).filter(
  ([path, entry]) => path.includes('node_modules/') && entry.link !== true,
);
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 13);

/** Names in the code spans of the tables of a page; `*` stands for the rest of a name. */
function listed(page: string): (name: string) => boolean {
  const names = [...read(page).matchAll(/^\|\s*`([^`]+)`/gm)].map(([, name = '']) => name);
  assert.ok(names.length > 5, `${page}: no table of packages`);
  return (name) =>
    names.some((known) =>
      known.endsWith('*') ? name.startsWith(known.slice(0, -1)) : name === known,
    );
}

/** The C library of this machine, as npm names it; undefined where there is one only. */
function libcHere(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const report: unknown = process.report.getReport();
  const header =
    typeof report === 'object' && report !== null && 'header' in report ? report.header : undefined;
  return typeof header === 'object' && header !== null && 'glibcVersionRuntime' in header
    ? 'glibc'
    : 'musl';
}
const here = { os: process.platform, cpu: process.arch, libc: libcHere() };

/** True when npm would install the entry on this machine. */
function installsHere(entry: LockEntry): boolean {
  const fits = (wanted: readonly string[] | undefined, have: string | undefined): boolean =>
    wanted === undefined || (have !== undefined && wanted.includes(have));
  return fits(entry.os, here.os) && fits(entry.cpu, here.cpu) && fits(entry.libc, here.libc);
}

test('the lockfile has every optional package of every platform, in the format of npm', () => {
  assert.deepEqual(missingEntries(lock), [], 'run `npm run lock:complete`');
  assert.equal(formatLockfile(lock), text);
});

test('the lockfile names no server, no git repository and no folder outside', () => {
  assert.ok(foreign.length > 100, `${foreign.length} entries: the lockfile was not read`);
  for (const [path, entry] of Object.entries(lock.packages)) {
    if (entry.link === true) {
      assert.ok(workspaces.includes(entry.resolved ?? ''), `${path}: links to no workspace`);
    } else {
      assert.equal(entry.resolved, undefined, path);
    }
  }
  for (const [path, { version }] of foreign) {
    assert.match(version ?? '', /^\d+\.\d+\.\d+(?:[-+][\w.+-]+)?$/, path);
  }
});

test('every package that is installed here is pinned by a SHA-512', () => {
  const installed = foreign.filter(([, entry]) => installsHere(entry));
  assert.ok(installed.length > 100, `${installed.length} entries for this platform`);
  for (const [path, entry] of installed) {
    assert.match(entry.integrity ?? '', /^sha512-[A-Za-z0-9+/]{86}==$/, path);
  }
  for (const [path, entry] of foreign) {
    if (entry.integrity === undefined) assert.equal(entry.optional, true, path);
  }
});

test('only the two reviewed packages run code at installation', () => {
  const reviewed = ['@bufbuild/buf', 'node'];
  const scripted = foreign.filter(([, entry]) => entry.hasInstallScript === true);
  assert.deepEqual(scripted.map(([path]) => nameOf(path)).sort(), reviewed);
  assert.ok(
    scripted.every(([, entry]) => entry.dev === true),
    'production runs no script',
  );
  const allowed = Object.entries(manifest('.').allowScripts ?? {}).filter(([, yes]) => yes);
  assert.deepEqual(allowed.map(([name]) => name).sort(), reviewed);
});

test('npm compiles nothing at installation', () => {
  assert.deepEqual(impliedBuilds(lock, root), [], 'run `npm run lock:complete`');
  const built = foreign.filter(([path]) => existsSync(join(root, path, 'binding.gyp')));
  assert.ok(built.length > 0, 'no package with a binding.gyp: the check looked at nothing');
  for (const [path, entry] of built) {
    assert.equal(entry.gypfile, false, `${path} would be compiled`);
    // npm 11 asks the list first, whatever the lockfile says.
    assert.equal(manifest('.').allowScripts?.[nameOf(path)], false, nameOf(path));
  }
});

test('the lockfile knows the dependencies and commands of every package of ours', () => {
  for (const folder of workspaces) {
    const { dependencies, bin } = manifest(folder);
    const entry = lock.packages[folder];
    assert.deepEqual(entry?.dependencies ?? {}, dependencies ?? {}, `${folder}: run npm install`);
    assert.deepEqual(
      Object.values(entry?.bin ?? {}),
      Object.values(bin ?? {}).map((path) => path.replace(/^\.\//, '')),
      `${folder}: run npm install`,
    );
  }
});

test('every direct dependency has its reason and its way out in deps.md', () => {
  const isListed = listed('docs/security/deps.md');
  let count = 0;
  for (const folder of ['.', ...workspaces]) {
    const { dependencies, devDependencies, optionalDependencies } = manifest(folder);
    for (const name of Object.keys({
      ...dependencies,
      ...devDependencies,
      ...optionalDependencies,
    })) {
      if (name.startsWith('@quicprochat/')) continue;
      count += 1;
      assert.ok(isListed(name), `${folder}: ${name} is not in docs/security/deps.md`);
    }
  }
  assert.ok(count > 20, `${count} dependencies`);
});

test('every package with native code is in natives.md, and what runs in production by hash', () => {
  const page = read('docs/security/natives.md');
  const isListed = listed('docs/security/natives.md');
  for (const [path, entry] of foreign) {
    if (entry.os === undefined && entry.cpu === undefined) continue;
    assert.ok(isListed(nameOf(path)), `${nameOf(path)} is not in docs/security/natives.md`);
  }
  let hashed = 0;
  for (const [path, entry] of foreign) {
    const folder = join(root, path);
    if (!existsSync(folder)) continue;
    for (const file of nativeFiles(folder)) {
      assert.ok(isListed(nameOf(path)), `${nameOf(path)}: ${basename(file)} is native code`);
      if (entry.dev === true) continue;
      const hash = createHash('sha256').update(readFileSync(file)).digest('hex');
      assert.ok(page.includes(`\`${basename(file)}\` \`${hash}\``), `${file}: ${hash}`);
      hashed += 1;
    }
  }
  assert.ok(hashed >= 2, `${hashed} native files hashed`);
});

/** Addons and WebAssembly of one installed package, without those of packages inside it. */
function nativeFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : nativeFiles(path);
    return /\.(?:node|wasm)$/.test(entry.name) ? [path] : [];
  });
}

const parent = 'node_modules/@a/engine';
const sparse = (optionalDependencies: Record<string, string>, dev = false): Lockfile => ({
  lockfileVersion: 3,
  packages: {
    '': { version: '1.0.0' },
    [parent]: { version: '2.0.9', optionalDependencies, ...(dev ? { dev } : {}) },
    'node_modules/@a/engine-linux-x64': { version: '2.0.9', optional: true },
    'node_modules/zed': { version: '1.0.0' },
  },
});

test('completing adds what is missing, in order, changes nothing else, and only once', () => {
  const before = sparse({
    '@a/engine-linux-x64': '2.0.9',
    '@a/engine-linux-arm64-musl': '2.0.9',
    '@a/engine-darwin-universal': '2.0.9',
    '@a/engine-win32-x64-msvc': '2.0.9',
  });
  const after = completeLockfile(before);
  assert.deepEqual(Object.keys(after.packages), [
    '',
    parent,
    'node_modules/@a/engine-darwin-universal',
    'node_modules/@a/engine-linux-arm64-musl',
    'node_modules/@a/engine-linux-x64',
    'node_modules/@a/engine-win32-x64-msvc',
    'node_modules/zed',
  ]);
  assert.equal(
    JSON.stringify(after.packages['node_modules/@a/engine-linux-arm64-musl']),
    '{"version":"2.0.9","cpu":["arm64"],"libc":["musl"],"optional":true,"os":["linux"]}',
  );
  assert.equal(
    JSON.stringify(after.packages['node_modules/@a/engine-darwin-universal']),
    '{"version":"2.0.9","optional":true,"os":["darwin"]}',
  );
  assert.equal(completeLockfile(after), after);
});

test('completing follows the parent: development only, and beside it when the place is taken', () => {
  const { packages } = completeLockfile(sparse({ '@a/engine-linux-x64': '3.0.0' }, true));
  assert.deepEqual(packages[`${parent}/node_modules/@a/engine-linux-x64`], {
    version: '3.0.0',
    cpu: ['x64'],
    dev: true,
    optional: true,
    os: ['linux'],
  });
});

test('completing refuses to guess', () => {
  assert.throws(() => completeLockfile(sparse({ '@a/engine-linux-s390': '1.0.0' })), TypeError);
  assert.throws(() => completeLockfile(sparse({ 'fast-path': '1.0.0' })), TypeError);
  assert.throws(() => completeLockfile(sparse({ '@a/engine-win32-x64': '^1.0.0' })), TypeError);
  assert.throws(() => parseLockfile('{ "lockfileVersion": 2, "packages": {} }'), TypeError);
});

test('the keys of an entry stand in the order of npm', () => {
  for (const [path, entry] of foreign) {
    assert.equal(JSON.stringify(inOrder(entry)), JSON.stringify(entry), path);
  }
});

test('a refusal to compile that npm dropped is noticed and repaired', () => {
  const path = 'node_modules/better-sqlite3-multiple-ciphers';
  const { gypfile, ...entry } = lock.packages[path] ?? {};
  assert.equal(gypfile, false);
  const broken: Lockfile = { ...lock, packages: { ...lock.packages, [path]: entry } };
  assert.deepEqual(impliedBuilds(broken, root), [path]);
  assert.equal(formatLockfile(withoutBuilds(broken, [path])), text);
});

test('removing one entry of this lockfile is noticed and repaired', () => {
  const path = 'node_modules/@matrixai/quic-win32-x64';
  const { [path]: removed, ...packages } = lock.packages;
  assert.ok(removed !== undefined);
  const broken: Lockfile = { ...lock, packages };
  assert.equal(missingEntries(broken).length, 1);
  assert.equal(formatLockfile(completeLockfile(broken)), text);
});
