/**
 * Room that is kept for acks, reads and the write-ahead log: rows are no longer taken before the
 * disk, or the bound of the file, is really reached (docs: protocol/delivery).
 */
import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { UnavailableError } from '@quicprochat/proto';
import type { SqlDatabase } from './sqlite.ts';

export const spaceReserve = {
  /** Free bytes of the file system below which nothing new is taken. */
  diskBytes: 64 * 1024 * 1024,
  /** Part of the file's bound that is in use when nothing new is taken. */
  databaseShare: 0.9,
} as const;

export class SpaceWatch {
  readonly #folder: string;
  readonly #pageCount;
  readonly #freePageCount;
  readonly #pagesMax: number;
  #isFull = false;

  constructor(db: SqlDatabase, path: string) {
    this.#folder = dirname(path);
    this.#pageCount = db.prepare<[], number>('PRAGMA page_count').pluck();
    this.#freePageCount = db.prepare<[], number>('PRAGMA freelist_count').pluck();
    // Without a bound of ours it is SQLite's own, which no file reaches.
    const bound = db.pragma('max_page_count', { simple: true });
    this.#pagesMax = typeof bound === 'number' ? bound : Infinity;
  }

  /** Looks again; called once for each transaction. */
  look(): void {
    const used = (this.#pageCount.get() ?? 0) - (this.#freePageCount.get() ?? 0);
    const { bavail, bsize } = statfsSync(this.#folder);
    this.#isFull =
      used >= this.#pagesMax * spaceReserve.databaseShare ||
      bavail * bsize < spaceReserve.diskBytes;
  }

  /** Throws UnavailableError STORE_FULL when nothing new is taken. */
  need(): void {
    if (this.#isFull) throw new UnavailableError('STORE_FULL', 'the disk is full');
  }
}
