/** Reads of what this node keeps of the logs of its peers; they run on any connection. */
import type { AuditStore, EvidenceKind, LogStatus } from '@quicprochat/kt-log';
import type { SqlDatabase } from '../sqlite.ts';
import { plainBytes } from './plain-bytes.ts';

type ReadName = 'followed' | 'status' | 'heads' | 'evidence';

/** The reading half of an AuditStore, without promises. */
export type AuditReads = {
  readonly [N in ReadName]: (
    ...args: Parameters<AuditStore[N]>
  ) => Awaited<ReturnType<AuditStore[N]>>;
};

interface FollowedRow {
  readonly size: number;
  readonly state: Uint8Array;
  readonly rfc6962_root: Uint8Array;
  readonly checkpoint: Uint8Array;
}

interface HeadRow {
  readonly size: number;
  readonly root: Uint8Array;
  readonly signature: Uint8Array;
}

interface EvidenceRow {
  readonly hash: Uint8Array;
  readonly origin: string;
  /** Written from an EvidenceRecord. */
  readonly kind: EvidenceKind;
  readonly bytes: Uint8Array;
  readonly found_ms: number;
}

export function auditReads(db: SqlDatabase): AuditReads {
  const followed = db.prepare<[string], FollowedRow>(
    `SELECT size, state, rfc6962_root, checkpoint FROM kt_followed
      WHERE origin = ? AND size IS NOT NULL`,
  );
  // Written by `setStatus`.
  const status = db
    .prepare<[string], LogStatus | null>('SELECT status FROM kt_followed WHERE origin = ?')
    .pluck();
  const heads = db.prepare<[string, number, number], HeadRow>(
    `SELECT size, root, signature FROM kt_peer_head
      WHERE origin = ? AND size >= ? ORDER BY size LIMIT (? + 0)`,
  );
  const columns = 'hash, origin, kind, bytes, found_ms';
  const allEvidence = db.prepare<[], EvidenceRow>(`SELECT ${columns} FROM kt_evidence ORDER BY id`);
  const evidenceOfLog = db.prepare<[string], EvidenceRow>(
    `SELECT ${columns} FROM kt_evidence WHERE origin = ? ORDER BY id`,
  );

  return {
    followed(origin) {
      const row = followed.get(origin);
      return (
        row && {
          origin,
          size: row.size,
          state: plainBytes(row.state),
          rfc6962Root: plainBytes(row.rfc6962_root),
          checkpoint: plainBytes(row.checkpoint),
        }
      );
    },
    status: (origin) => status.get(origin) ?? undefined,
    heads: (origin, fromSize, max) =>
      heads.all(origin, fromSize, max).map(({ size, root, signature }) => ({
        size,
        root: plainBytes(root),
        signature: plainBytes(signature),
      })),
    evidence(origin) {
      const rows = origin === undefined ? allEvidence.all() : evidenceOfLog.all(origin);
      return rows.map((row) => ({
        origin: row.origin,
        kind: row.kind,
        hash: plainBytes(row.hash),
        bytes: plainBytes(row.bytes),
        foundMs: row.found_ms,
      }));
    },
  };
}
