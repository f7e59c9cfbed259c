/** Accounts that are older than the node's key log. */
import type { Operations, QueryContext } from '../operations.ts';
import { fromColumns, manifestColumns, type ManifestColumns } from './manifests.ts';

/** Rows of one answer. */
const accountsMax = 1_000;

export function unloggedQueries({ db }: QueryContext): Pick<Operations, 'accountsOutsideLog'> {
  const unlogged = db.prepare<[number], ManifestColumns & { readonly user_id: string }>(
    `SELECT user_id, ${manifestColumns} FROM account
      WHERE NOT EXISTS (SELECT 1 FROM kt_label WHERE label = CAST(account.user_id AS BLOB))
      LIMIT (? + 0)`,
  );
  return {
    accountsOutsideLog: () =>
      unlogged.all(accountsMax).map((row) => ({ userId: row.user_id, manifest: fromColumns(row) })),
  };
}
