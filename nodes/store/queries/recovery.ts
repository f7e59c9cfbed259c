/** Recovery bundles: one per account, opaque to the node. */
import { NotFoundError } from '@quicprochat/proto';
import type { Operations, QueryContext } from '../operations.ts';

export function recoveryQueries({
  db,
  needRoom,
}: QueryContext): Pick<
  Operations,
  'putRecoveryBundle' | 'recoveryBundle' | 'deleteRecoveryBundle'
> {
  const accountOf = db
    .prepare<[string], number>('SELECT id FROM account WHERE user_id = ?')
    .pluck();
  const get = db
    .prepare<[string], Uint8Array>(
      `SELECT bundle FROM recovery JOIN account ON account.id = recovery.account
        WHERE account.user_id = ?`,
    )
    .pluck();
  const put = db.prepare<[number, Uint8Array]>(
    `INSERT INTO recovery (account, bundle) VALUES (?, ?)
     ON CONFLICT (account) DO UPDATE SET bundle = excluded.bundle`,
  );
  const drop = db.prepare<[string]>(
    'DELETE FROM recovery WHERE account = (SELECT id FROM account WHERE user_id = ?)',
  );

  return {
    putRecoveryBundle(_nowMs, userId, bundle) {
      const account = accountOf.get(userId);
      if (account === undefined) throw new NotFoundError('UNKNOWN_USER', 'userId is unknown');
      needRoom();
      put.run(account, bundle);
    },
    recoveryBundle: (_nowMs, userId) => get.get(userId),
    deleteRecoveryBundle(_nowMs, userId) {
      drop.run(userId);
    },
  };
}
