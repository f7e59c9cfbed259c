/**
 * Completes package-lock.json after `npm install`, which leaves two things out: optional packages
 * of platforms that the registry at hand does not carry (`npm ci` then refuses the lockfile), and
 * `gypfile: false` (`npm ci` then runs node-gyp, which needs Python, for packages that bring their
 * binary). Removes nothing and knows no integrity for what it adds. `npm run lock:complete`.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** One entry of `packages`, with the fields that are looked at here. */
export interface LockEntry {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly hasInstallScript?: boolean;
  /** False: a binding.gyp in the package is no reason to compile at installation. */
  readonly gypfile?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly bin?: Readonly<Record<string, string>>;
}
/** package-lock.json of lockfileVersion 3; fields that are not named here are kept as they are. */
export interface Lockfile {
  readonly lockfileVersion: 3;
  readonly packages: Readonly<Record<string, LockEntry>>;
}
/** An optional dependency without an entry: who asks for it and which version. */
export interface MissingEntry {
  readonly name: string;
  readonly version: string;
  readonly parent: string;
}

/** Parses a lockfile; throws TypeError when it is not one of version 3. */
export function parseLockfile(text: string): Lockfile {
  const lock: unknown = JSON.parse(text);
  if (
    typeof lock !== 'object' ||
    lock === null ||
    !('lockfileVersion' in lock) ||
    lock.lockfileVersion !== 3 ||
    !('packages' in lock) ||
    typeof lock.packages !== 'object' ||
    lock.packages === null
  ) {
    throw new TypeError('package-lock.json: need lockfileVersion 3 with packages');
  }
  return lock as Lockfile;
}

/** Optional dependencies that Node's look-up would not find at the wanted version. */
export function missingEntries(lock: Lockfile): MissingEntry[] {
  const missing: MissingEntry[] = [];
  for (const [parent, entry] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      const found = lookUp(lock, parent, name);
      // A range is npm's to judge; an exact version must be that one.
      if (found === undefined || (isExact(version) && found.version !== version)) {
        missing.push({ name, version, parent });
      }
    }
  }
  return missing;
}

/**
 * The lockfile with an entry for each missing optional dependency, in npm's order of keys.
 * Returns the same object when nothing is missing. Throws TypeError for a name whose platform
 * cannot be told, or a version that is a range: such an entry would be a guess.
 */
export function completeLockfile(lock: Lockfile): Lockfile {
  const added: Record<string, LockEntry> = {};
  for (const { name, version, parent } of missingEntries(lock)) {
    if (!isExact(version)) {
      throw new TypeError(`${name}: ${parent} asks for the range ${version}, need a version`);
    }
    const top = `node_modules/${name}`;
    const taken = lock.packages[top] ?? added[top];
    const path = taken === undefined || taken.version === version ? top : `${parent}/${top}`;
    added[path] = inOrder({
      version,
      ...platformOf(name),
      ...(lock.packages[parent]?.dev === true ? { dev: true } : {}),
      optional: true,
    });
  }
  if (Object.keys(added).length === 0) return lock;
  const packages = Object.fromEntries(
    Object.entries({ ...lock.packages, ...added }).sort(([a], [b]) => a.localeCompare(b, 'en')),
  );
  return { ...lock, packages };
}

/**
 * Paths of entries that npm would compile although the package says it need not: it has a
 * binding.gyp and `gypfile: false` in its package.json, which a lockfile does not carry by itself.
 * Looks at what is installed below `root`.
 */
export function impliedBuilds(lock: Lockfile, root: string): string[] {
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path.includes('node_modules/') && entry.gypfile !== false)
    .map(([path]) => path)
    .filter((path) => existsSync(join(root, path, 'binding.gyp')) && refusesGyp(join(root, path)));
}

function refusesGyp(folder: string): boolean {
  const manifest: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  return (
    typeof manifest === 'object' &&
    manifest !== null &&
    'gypfile' in manifest &&
    manifest.gypfile === false
  );
}

/** The lockfile with `gypfile: false` on the entries at `paths`; the same object without any. */
export function withoutBuilds(lock: Lockfile, paths: readonly string[]): Lockfile {
  if (paths.length === 0) return lock;
  const packages = Object.entries(lock.packages).map(([path, entry]): [string, LockEntry] =>
    paths.includes(path) ? [path, inOrder({ ...entry, gypfile: false })] : [path, entry],
  );
  return { ...lock, packages: Object.fromEntries(packages) };
}

/** The entry with its keys as npm orders them: plain values before objects, five names first. */
export function inOrder(entry: LockEntry): LockEntry {
  const first = ['name', 'version', 'resolved', 'integrity', 'dependencies'];
  const rank = ([key, value]: [string, unknown]): number => {
    const place = first.includes(key) ? first.indexOf(key) : first.length;
    return typeof value === 'object' && !Array.isArray(value) ? 10 + place : place;
  };
  return Object.fromEntries(
    Object.entries(entry).sort((a, b) => rank(a) - rank(b) || a[0].localeCompare(b[0], 'en')),
  );
}

/** The lockfile's text as npm writes it. */
export function formatLockfile(lock: Lockfile): string {
  return `${JSON.stringify(lock, undefined, 2)}\n`;
}

/** The entry that `require(name)` from the package at `parent` would reach. */
function lookUp(lock: Lockfile, parent: string, name: string): LockEntry | undefined {
  let from = parent;
  for (;;) {
    const found =
      lock.packages[from === '' ? `node_modules/${name}` : `${from}/node_modules/${name}`];
    if (found !== undefined) return found;
    if (from === '') return undefined;
    // Up to the package that holds this one; from a workspace folder to the root.
    const at = from.lastIndexOf('node_modules/');
    from = at <= 0 ? '' : from.slice(0, at - 1);
  }
}

function isExact(version: string): boolean {
  return /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$/.test(version);
}

const systems = new Set([
  'darwin',
  'win32',
  'linux',
  'freebsd',
  'openbsd',
  'android',
  'openharmony',
]);
const processors = new Map([
  ['x64', 'x64'],
  ['arm64', 'arm64'],
  ['aarch64', 'arm64'],
  ['arm', 'arm'],
  ['armv7', 'arm'],
  ['ia32', 'ia32'],
  ['riscv64', 'riscv64'],
  ['ppc64', 'ppc64'],
  ['s390x', 's390x'],
]);

/** Platform from the last words of a package name such as `libp2p-quic-linux-arm64-musl`. */
function platformOf(name: string): Pick<LockEntry, 'os' | 'cpu' | 'libc'> {
  const words = name.split(/[/_-]/);
  const os = words.find((word) => systems.has(word));
  if (os === undefined) throw new TypeError(`${name}: no operating system in the name`);
  // A universal binary serves every processor of its system and names none.
  const cpu = words.map((word) => processors.get(word)).find((word) => word !== undefined);
  if (cpu === undefined && !words.includes('universal')) {
    throw new TypeError(`${name}: no processor in the name`);
  }
  const libc = words.some((word) => word.startsWith('musl'))
    ? 'musl'
    : words.some((word) => word.startsWith('gnu'))
      ? 'glibc'
      : undefined;
  return {
    os: [os],
    ...(cpu === undefined ? {} : { cpu: [cpu] }),
    ...(libc === undefined || os !== 'linux' ? {} : { libc: [libc] }),
  };
}

if (import.meta.main) {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const path = join(root, 'package-lock.json');
  const before = parseLockfile(readFileSync(path, 'utf8'));
  const missing = missingEntries(before);
  const builds = impliedBuilds(before, root);
  const after = withoutBuilds(completeLockfile(before), builds);
  if (after !== before) writeFileSync(path, formatLockfile(after));
  console.log(
    `package-lock.json: ${missing.length} packages added, ${builds.length} builds refused`,
  );
}
