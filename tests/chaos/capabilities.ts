/**
 * Finds out what this machine lets a scenario do, by doing it. Debian packages that are missing are
 * installed, as root only.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Capability } from './scenario.ts';

/** Runs a command to its end; undefined when it failed or is not there. */
export function tryCommand(command: string, ...args: readonly string[]): string | undefined {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return result.status === 0 ? result.stdout : undefined;
}

/** Runs a command to its end. Throws with what it printed. */
export function need(command: string, ...args: readonly string[]): string {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  if (result.status === 0) return result.stdout;
  const why = result.error?.message ?? result.stderr.trim();
  throw new Error(`${command} ${args.join(' ')}: ${why}`);
}

const isRoot = (): boolean => process.getuid?.() === 0;
let isListFresh = false;

/** Whether a program is there, if need be after installing its Debian package. */
function hasProgram(program: string, debianPackage: string): boolean {
  const isThere = (): boolean => tryCommand('sh', '-c', `command -v ${program}`) !== undefined;
  if (isThere() || !isRoot() || tryCommand('sh', '-c', 'command -v apt-get') === undefined) {
    return isThere();
  }
  if (!isListFresh) tryCommand('apt-get', 'update');
  isListFresh = true;
  tryCommand('apt-get', 'install', '-y', '--no-install-recommends', debianPackage);
  return isThere();
}

/** A mount of a moment, or why not. */
function canMount(): boolean {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-chaos-mount-'));
  const isMounted =
    tryCommand('mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', directory) !== undefined;
  if (isMounted) tryCommand('umount', directory);
  rmdirSync(directory);
  return isMounted;
}

function canMakeNamespaces(): boolean {
  const name = `qpc${process.pid}-try`;
  if (!hasProgram('ip', 'iproute2') || tryCommand('ip', 'netns', 'add', name) === undefined) {
    return false;
  }
  const canLink = tryCommand('ip', '-n', name, 'link', 'add', 'try', 'type', 'bridge');
  tryCommand('ip', 'netns', 'del', name);
  return canLink !== undefined;
}

export const libfaketime = (): string | undefined =>
  ['x86_64-linux-gnu', 'aarch64-linux-gnu']
    .map((triple) => `/usr/lib/${triple}/faketime/libfaketimeMT.so.1`)
    .find(existsSync);

export const memoryCgroup = '/sys/fs/cgroup/memory';

const checks: Readonly<Record<Capability, () => boolean>> = {
  root: isRoot,
  netns: () => isRoot() && canMakeNamespaces(),
  iptables: () => isRoot() && hasProgram('iptables', 'iptables'),
  mount: () => isRoot() && canMount(),
  loop: () =>
    isRoot() &&
    hasProgram('mkfs.ext4', 'e2fsprogs') &&
    tryCommand('losetup', '--find') !== undefined,
  strace: () => hasProgram('strace', 'strace') && tryCommand('strace', 'true') !== undefined,
  faketime: () => hasProgram('faketime', 'faketime') && libfaketime() !== undefined,
  prlimit: () => hasProgram('prlimit', 'util-linux'),
  'memory-cgroup': () => isRoot() && existsSync(join(memoryCgroup, 'memory.limit_in_bytes')),
};
const known = new Map<Capability, boolean>();

/** Those of the capabilities that are not there. */
export function missing(needs: readonly Capability[]): readonly Capability[] {
  return needs.filter((capability) => {
    const has = known.get(capability) ?? checks[capability]();
    known.set(capability, has);
    return !has;
  });
}
