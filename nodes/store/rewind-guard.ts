/**
 * Notices that the database file was replaced by an older copy of itself (docs: protocol/delivery):
 * a small file beside it remembers the commit counter. It is written after each commit and never
 * synced, so it may lag behind the database, but is ahead of it only when the database went back.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { storeBounds } from './bounds.ts';
import { StoreOpenError } from './open-error.ts';

const { storeIdBytes } = storeBounds;
const recordBytes = storeIdBytes + 8;

export class RewindGuard implements Disposable {
  readonly #file: number;
  readonly #record = Buffer.alloc(recordBytes);

  /** Opens or makes `<path>-commits`. Throws StoreOpenError STORE_IO. */
  constructor(path: string) {
    const file = `${path}-commits`;
    try {
      // 'a+' would ignore positions, 'r+' needs the file: make it first.
      closeSync(openSync(file, 'a', 0o600));
      this.#file = openSync(file, 'r+');
    } catch (cause) {
      throw new StoreOpenError('STORE_IO', `${file}: cannot be opened or made`, { cause });
    }
  }

  /**
   * True unless the record shows that this state is the newest one. Without a record of this store
   * (a backup of the database alone, a new machine, a record cut by a power loss) nobody can know,
   * and then it counts as rewound: a renewed id costs clients a fetch from 0, a reused seq costs
   * them messages. A database without commits has nothing to go back from.
   */
  isRewound(storeId: Uint8Array, commits: number): boolean {
    const length = readSync(this.#file, this.#record, 0, recordBytes, 0);
    const isOfThisStore =
      length === recordBytes &&
      Buffer.compare(this.#record.subarray(0, storeIdBytes), storeId) === 0;
    if (!isOfThisStore) return commits > 0;
    return this.#record.readBigUInt64BE(storeIdBytes) > BigInt(commits);
  }

  /** Remembers a committed state. */
  remember(storeId: Uint8Array, commits: number): void {
    this.#record.set(storeId);
    this.#record.writeBigUInt64BE(BigInt(commits), storeIdBytes);
    try {
      writeSync(this.#file, this.#record, 0, recordBytes, 0);
    } catch {
      // The commit stands. An old record only means that fewer rewinds are noticed.
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}
