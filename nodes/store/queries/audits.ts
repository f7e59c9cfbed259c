/** What this node keeps of the logs of its peers: writes, each checked before the first row. */
// The small door: the store's thread needs nothing else of the package.
import { checkAdvance, type LogStatus } from '@quicprochat/kt-log/audit-store';
import { ConflictError } from '@quicprochat/proto';
import type { Operations, QueryContext } from '../operations.ts';

type AuditOperations = Pick<Operations, 'advance' | 'setStatus' | 'putHeads' | 'putEvidence'>;

interface FollowedRow {
  /** Written by `setStatus`. */
  readonly status: LogStatus | null;
  readonly size: number | null;
  readonly rfc6962_root: Uint8Array | null;
}

export function auditQueries({ db, needLastRoom }: QueryContext): AuditOperations {
  const followed = db.prepare<[string], FollowedRow>(
    'SELECT status, size, rfc6962_root FROM kt_followed WHERE origin = ?',
  );
  const putFollowed = db.prepare<[string, number, Uint8Array, Uint8Array, Uint8Array]>(
    `INSERT INTO kt_followed (origin, size, state, rfc6962_root, checkpoint) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (origin) DO UPDATE SET
       size = excluded.size, state = excluded.state, rfc6962_root = excluded.rfc6962_root,
       checkpoint = excluded.checkpoint`,
  );
  const setStatus = db.prepare<[string, LogStatus]>(
    `INSERT INTO kt_followed (origin, status) VALUES (?, ?)
     ON CONFLICT (origin) DO UPDATE SET status = excluded.status`,
  );
  const rootOfSize = db
    .prepare<[string, number], Buffer>(
      'SELECT root FROM kt_peer_head WHERE origin = ? AND size = ?',
    )
    .pluck();
  const insertHead = db.prepare<[string, number, Uint8Array, Uint8Array]>(
    `INSERT INTO kt_peer_head (origin, size, root, signature) VALUES (?, ?, ?, ?)
     ON CONFLICT (origin, size) DO NOTHING`,
  );
  const insertEvidence = db.prepare<[Uint8Array, string, string, Uint8Array, number]>(
    `INSERT INTO kt_evidence (hash, origin, kind, bytes, found_ms) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (hash) DO NOTHING`,
  );

  return {
    advance(_nowMs, log) {
      const row = followed.get(log.origin);
      const { size, rfc6962_root: root } = row ?? { size: null, rfc6962_root: null };
      const held = size === null || root === null ? undefined : { size, rfc6962Root: root };
      checkAdvance(held, row?.status ?? undefined, log);
      if (held?.size === log.size) return;
      putFollowed.run(log.origin, log.size, log.state, log.rfc6962Root, log.checkpoint);
    },

    setStatus(_nowMs, origin, status) {
      setStatus.run(origin, status);
    },

    putHeads(_nowMs, origin, heads) {
      const roots = new Map<number, Uint8Array>();
      for (const { size, root } of heads) {
        const held = roots.get(size) ?? rootOfSize.get(origin, size);
        if (held !== undefined && Buffer.compare(held, root) !== 0) {
          throw new ConflictError('SEQ_CONFLICT', `audits: another head of size ${size}`);
        }
        roots.set(size, root);
      }
      needLastRoom();
      for (const { size, root, signature } of heads) {
        insertHead.run(origin, size, root, signature);
      }
    },

    putEvidence(_nowMs, { hash, origin, kind, bytes, foundMs }, status) {
      setStatus.run(origin, status);
      insertEvidence.run(hash, origin, kind, bytes, foundMs);
    },
  };
}
