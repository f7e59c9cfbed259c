/**
 * Reads and completes package-lock.json: npm leaves out optional packages of platforms that the
 * registry at hand does not carry, and `npm ci` then refuses the lockfile. Adds what is missing;
 * never changes or removes an entry, and knows no integrity for what it adds.
 * `npm run lock:complete` runs this file.
 */
import { readFileSync, writeFileSync } from 'node:fs';
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
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
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
    const { os, cpu, libc } = platformOf(name);
    // npm writes the keys in this order.
    added[path] = {
      version,
      ...(cpu === undefined ? {} : { cpu: [cpu] }),
      ...(lock.packages[parent]?.dev === true ? { dev: true } : {}),
      ...(libc === undefined ? {} : { libc: [libc] }),
      optional: true,
      os: [os],
    };
  }
  if (Object.keys(added).length === 0) return lock;
  const packages = Object.fromEntries(
    Object.entries({ ...lock.packages, ...added }).sort(([a], [b]) => a.localeCompare(b, 'en')),
  );
  return { ...lock, packages };
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
function platformOf(name: string): {
  readonly os: string;
  readonly cpu: string | undefined;
  readonly libc: string | undefined;
} {
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
  return { os, cpu, libc: os === 'linux' ? libc : undefined };
}

if (import.meta.main) {
  const path = fileURLToPath(new URL('../../package-lock.json', import.meta.url));
  const before = parseLockfile(readFileSync(path, 'utf8'));
  const after = completeLockfile(before);
  const count = Object.keys(after.packages).length - Object.keys(before.packages).length;
  if (count > 0) writeFileSync(path, formatLockfile(after));
  console.log(`package-lock.json: ${count} entries added`);
}
