/** Facts about the database itself: its id, and how many commits it has seen. */
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { SqlDatabase } from '../sqlite.ts';

export interface MetaQueries {
  /** 8 bytes. */
  storeId(): Uint8Array;
  /**
   * The store is new, or an older copy of itself. Such a copy does not know which single-use KeyPackages
   * went out since, and a Welcome made with one for the second time cannot be opened: they go, and their
   * devices bring new ones. Nor does it know what it promised and signed as one hub of three: it has no
   * say until both others told. Nor what it accepted as the only hub: members bring that back.
   */
  renewStoreId(storeId: Uint8Array): void;
  commits(): number;
  /** Part of every transaction that writes. */
  countCommit(): void;
}

export function metaQueries(db: SqlDatabase): MetaQueries {
  const get = db.prepare<[string], unknown>('SELECT value FROM meta WHERE name = ?').pluck();
  const put = db.prepare<[string, Uint8Array]>(
    'INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)',
  );
  const dropSingleUse = db.prepare(
    'UPDATE key_package SET gone_ms = not_before_ms WHERE gone_ms IS NULL AND last_resort = 0',
  );
  const forgetPromises = db.prepare(
    `UPDATE hub_group SET is_learner = 1, gave_word = 0, held_since_ms = NULL
      WHERE hubs LIKE '% %'`,
  );
  const holdGroups = db.prepare(
    `UPDATE hub_group SET is_restored = 1, held_since_ms = NULL WHERE hubs NOT LIKE '% %'`,
  );
  const count = db.prepare(
    `INSERT INTO meta (name, value) VALUES ('commits', 1)
     ON CONFLICT (name) DO UPDATE SET value = value + 1`,
  );

  return {
    storeId() {
      const value = get.get('store_id');
      if (!(value instanceof Uint8Array) || value.length !== storeBounds.storeIdBytes) {
        throw new Error('meta: store_id is missing');
      }
      return new Uint8Array(value);
    },
    renewStoreId(storeId) {
      // In this order: a crash between them does all of it again.
      dropSingleUse.run();
      forgetPromises.run();
      holdGroups.run();
      put.run('store_id', storeId);
    },
    commits() {
      const value = get.get('commits');
      return typeof value === 'number' ? value : 0;
    },
    countCommit() {
      count.run();
    },
  };
}

/** What others may know of this store, and what they know better. */
export function markQueries({
  db,
  random,
}: QueryContext): Pick<Operations, 'storeMark' | 'renewIfBehind'> {
  const meta = metaQueries(db);
  return {
    storeMark: () => ({ storeId: meta.storeId(), commits: meta.commits() }),
    renewIfBehind(_nowMs, { storeId, commits }) {
      needBytes(storeId, storeBounds.storeIdBytes, 'storeId');
      const isOfThisStore = Buffer.compare(storeId, meta.storeId()) === 0;
      if (!isOfThisStore || commits <= meta.commits()) return false;
      meta.renewStoreId(random.bytes(storeBounds.storeIdBytes));
      return true;
    },
  };
}
