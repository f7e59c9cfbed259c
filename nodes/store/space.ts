/**
 * Room that is kept for acks, reads and the write-ahead log: rows are no longer taken before the
 * disk, or the bound of the file, is really reached (docs: protocol/delivery).
 */
import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { UnavailableError } from '@quicprochat/proto';
import { pageBytes } from './database.ts';
import type { SqlDatabase } from './sqlite.ts';

export const spaceReserve = {
  /** Free bytes, of the file system and inside the file, below which nothing new is taken. */
  freeBytes: 64 * 1024 * 1024,
  /** Of these on the file system, where the write-ahead log grows. */
  logBytes: 16 * 1024 * 1024,
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
    const freePages = this.#freePageCount.get() ?? 0;
    const usedPages = (this.#pageCount.get() ?? 0) - freePages;
    const { bavail, bsize } = statfsSync(this.#folder);
    const diskBytes = bavail * bsize;
    this.#isFull =
      usedPages >= this.#pagesMax * spaceReserve.databaseShare ||
      diskBytes < spaceReserve.logBytes ||
      diskBytes + freePages * pageBytes < spaceReserve.freeBytes;
  }

  /** Throws UnavailableError STORE_FULL when nothing new is taken. */
  need(): void {
    if (this.#isFull) throw new UnavailableError('STORE_FULL', 'the disk is full');
  }
}
