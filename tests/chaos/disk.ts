/** File systems of a test's own: a small tmpfs, and ext4 on a loop device whose power can be cut. */
import { mkdirSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { need, tryCommand } from './capabilities.ts';

/** A tmpfs of so many MiB, mounted at `path`. */
export function mountTmpfs(path: string, mib: number): void {
  mkdirSync(path, { recursive: true });
  need('mount', '-t', 'tmpfs', '-o', `size=${mib}m,mode=700`, `qpc${process.pid}`, path);
}

export function unmount(path: string): void {
  // A killed process may hold it for a moment longer.
  if (tryCommand('umount', path) === undefined) tryCommand('umount', '--lazy', path);
}

/** A file that takes room, and gives it back. */
export class Ballast {
  readonly #folder: string;
  readonly #file: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.#file = join(folder, 'ballast');
    writeFileSync(this.#file, '');
  }

  /** Grows or shrinks so that so many bytes are left for others. */
  leave(freeBytes: number): void {
    const before = this.#free();
    if (before < freeBytes) truncateSync(this.#file, 0);
    const take = Math.max(0, this.#free() - freeBytes);
    // Real bytes: a hole would take no room. Others may take the last of it before we do.
    const chunk = Buffer.alloc(64 * 1024, 1);
    try {
      for (let taken = 0; taken < take; taken += chunk.length) {
        writeFileSync(this.#file, chunk.subarray(0, take - taken), { flag: 'a' });
      }
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    }
  }

  remove(): void {
    truncateSync(this.#file, 0);
  }

  #free(): number {
    const { bavail, bsize } = statfsSync(this.#folder);
    return bavail * bsize;
  }
}

/** `EXT4_IOC_SHUTDOWN` without flushing the log, as perl says it: _IOR('X', 125, u32), flag 2. */
const shutdownScript =
  'open(my $dir, "<", $ARGV[0]) or die "open: $!"; my $flags = pack("L", 2);' +
  'ioctl($dir, 0x8004587d, $flags) or die "ioctl: $!"';

/** ext4 on a loop device. `cut` is what a power cut is to it: whatever was not synced is gone. */
export class LoopDisk {
  readonly path: string;
  readonly #image: string;
  #device: string | undefined;

  constructor(directory: string, mib: number) {
    this.path = join(directory, 'disk');
    this.#image = join(directory, 'disk.img');
    mkdirSync(this.path, { recursive: true });
    writeFileSync(this.#image, '');
    truncateSync(this.#image, mib * 1024 * 1024);
  }

  make(): void {
    need('mkfs.ext4', '-q', '-F', this.#image);
    this.#device = need('losetup', '--find', '--show', this.#image).trim();
    this.#mount();
  }

  cut(): void {
    need('perl', '-e', shutdownScript, this.path);
  }

  /** Power is back: the journal is replayed. Everything that had files open must have ended. */
  async powerUp(): Promise<void> {
    for (let tries = 0; tryCommand('umount', this.path) === undefined; tries += 1) {
      if (tries > 50) throw new Error(`${this.path} stays busy`);
      await sleep(100);
    }
    this.#mount();
  }

  remove(): void {
    unmount(this.path);
    if (this.#device !== undefined) tryCommand('losetup', '--detach', this.#device);
    this.#device = undefined;
  }

  #mount(): void {
    if (this.#device === undefined) throw new Error('no device');
    need('mount', '-t', 'ext4', this.#device, this.path);
  }
}
