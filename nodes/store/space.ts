/**
 * Room that is kept for acks, reads and the write-ahead log: rows are no longer taken before the
 * disk, or the bound of the file, is really reached (docs: protocol/delivery).
 */
import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { UnavailableError } from '@quicprochat/proto';
import { pageBytes } from './database.ts';
import type { SqlDatabase } from './sqlite.ts';
import type { DiskLimits, DiskState } from './store-limits.ts';

export const spaceReserve = {
  /** Free bytes, of the file system and inside the file, below which nothing new is taken. */
  freeBytes: 64 * 1024 * 1024,
  /** Of these on the file system, where the write-ahead log grows. */
  logBytes: 16 * 1024 * 1024,
  /** Part of the file's bound that is in use when nothing new is taken. */
  databaseShare: 0.9,
} as const;

/** How long a caller waits before it tries again (ms): a disk is not emptied in a second. */
const fullRetryMs = 30_000;

export class SpaceWatch {
  readonly #folder: string;
  readonly #pageCount;
  readonly #freePageCount;
  readonly #pagesMax: number;
  readonly #disk: DiskLimits | undefined;
  /** Undefined: to be looked at when somebody asks. */
  #state: DiskState | undefined;

  constructor(db: SqlDatabase, path: string, disk: DiskLimits | undefined) {
    this.#disk = disk;
    this.#folder = dirname(path);
    this.#pageCount = db.prepare<[], number>('PRAGMA page_count').pluck();
    this.#freePageCount = db.prepare<[], number>('PRAGMA freelist_count').pluck();
    // Without a bound of ours it is SQLite's own, which no file reaches.
    const bound = db.pragma('max_page_count', { simple: true });
    this.#pagesMax = typeof bound === 'number' ? bound : Infinity;
  }

  /** What was seen is old; called once for each transaction. */
  changed(): void {
    this.#state = undefined;
  }

  get state(): DiskState {
    return (this.#state ??= this.#look());
  }

  /** Throws UnavailableError STORE_FULL when nothing new is taken. */
  need(): void {
    const { state } = this;
    if (state === 'full' || state === 'last') throw storeFull();
  }

  /** Throws UnavailableError STORE_FULL when nothing is taken that makes the file grow. */
  needLast(): void {
    if (this.state === 'last') throw storeFull();
  }

  #look(): DiskState {
    const freePages = this.#freePageCount.get() ?? 0;
    const usedPages = (this.#pageCount.get() ?? 0) - freePages;
    const { bavail, bfree, blocks, bsize } = statfsSync(this.#folder);
    const diskBytes = bavail * bsize;
    const isFull =
      usedPages >= this.#pagesMax * spaceReserve.databaseShare ||
      diskBytes < spaceReserve.logBytes ||
      diskBytes + freePages * pageBytes < spaceReserve.freeBytes;
    // As df counts: of what is not reserved for root.
    const usedBlocks = blocks - bfree;
    const step = this.#stepOf(usedBlocks / (usedBlocks + bavail), diskBytes);
    return isFull ? 'last' : step;
  }

  #stepOf(usedShare: number, freeBytes: number): DiskState {
    const disk = this.#disk;
    if (disk === undefined || freeBytes >= disk.freeBytes) return 'ok';
    if (usedShare >= disk.lastShare) return 'last';
    if (usedShare >= disk.fullShare) return 'full';
    return usedShare >= disk.redShare ? 'red' : 'ok';
  }
}

function storeFull(): UnavailableError {
  return new UnavailableError('STORE_FULL', 'the disk is full', { retryAfterMs: fullRetryMs });
}
