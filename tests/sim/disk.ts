/**
 * Files of simulated processes: where they lie, and what is left of them when a process dies. A life
 * has a path of its own, so that the handles of a dead one do no harm.
 */
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A database as its files lie: ending -> bytes. */
export type FileImage = ReadonlyMap<string, Uint8Array>;

const endings = ['', '-wal', '-commits'] as const;

/** Memory instead of a disk, where the system has such a file system. */
const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export class Disk implements Disposable {
  readonly #directory = mkdtempSync(join(base, 'qpc-sim-'));
  #files = 0;

  /** A path for a life of `name`, with an image in it. */
  place(name: string, image: FileImage): string {
    this.#files += 1;
    const path = join(this.#directory, name, String(this.#files));
    mkdirSync(dirname(path), { recursive: true });
    for (const [ending, bytes] of image) writeFileSync(path + ending, bytes);
    return path;
  }

  /** From now on, or no more: who asks how much room the disk of `name` has is told none. */
  setFull(name: string, isFull: boolean): void {
    watchRoom();
    const folder = join(this.#directory, name);
    if (isFull) fullFolders.add(folder);
    else fullFolders.delete(folder);
  }

  [Symbol.dispose](): void {
    for (const folder of fullFolders) {
      if (folder.startsWith(this.#directory)) fullFolders.delete(folder);
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const fullFolders = new Set<string>();

/** From now on, for the whole process, a full folder is said to be so. Idempotent. */
function watchRoom(): void {
  if (isRoomWatched) return;
  isRoomWatched = true;
  const { statfsSync } = fs;
  const watched = (path: string): fs.StatsFs => {
    const room = statfsSync(path);
    return fullFolders.has(path) ? Object.assign(room, { bavail: 0, bfree: 0 }) : room;
  };
  Object.assign(fs, { statfsSync: watched });
  syncBuiltinESMExports();
}
let isRoomWatched = false;

/** What the files hold now: all that was written survives the process that wrote it. */
export function imageOf(path: string): FileImage {
  const image = new Map<string, Uint8Array>();
  for (const ending of endings) {
    if (existsSync(path + ending)) image.set(ending, readFileSync(path + ending));
  }
  return image;
}

/** Removes the files of a life that is over. */
export function removeFiles(path: string): void {
  for (const ending of [...endings, '-shm', '-lock']) rmSync(path + ending, { force: true });
}
