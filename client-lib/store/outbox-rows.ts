/** Tables `outbox` and `outbox_payload` of the device store. */
import { messageTag } from '@quicprochat/proto';
import type { Database, Row } from './database.ts';
import type { OutboxEntry, OutboxRows } from './store.ts';

function entryOf(row: Row): OutboxEntry {
  return {
    id: row.number('id'),
    rid: row.bytes('rid'),
    domain: row.text('domain'),
    mid: row.bytes('mid'),
    payload: row.bytes('bytes'),
    messageId: row.maybeNumber('message_id'),
    createdMs: row.number('created_ms'),
  };
}

export function outboxRows(db: Database): OutboxRows {
  return {
    add({ mid, payload, targets, messageId }, nowMs) {
      db.transaction(() => {
        const payloadId = db.insert(
          'INSERT INTO outbox_payload (mid, bytes) VALUES (?, ?)',
          mid,
          payload,
        );
        for (const { rid, domain } of targets) {
          db.run(
            `INSERT INTO outbox (payload_id, rid, domain, message_id, state, created_ms)
             VALUES (?, ?, ?, ?, 'SEALED', ?)`,
            payloadId ?? null,
            rid,
            domain,
            messageId ?? null,
            nowMs,
          );
        }
      });
    },
    openTargets: () =>
      db
        .all(
          `SELECT lower(hex(rid)) AS target, max(id) AS newest FROM outbox WHERE state = 'SEALED'
           GROUP BY rid ORDER BY min(id)`,
        )
        .map((row) => ({ target: row.text('target'), newestId: row.number('newest') })),
    next(ridHex, after) {
      const row = db.get(
        `SELECT o.*, p.mid, p.bytes FROM outbox o JOIN outbox_payload p ON p.id = o.payload_id
         WHERE o.state = 'SEALED' AND o.rid = ? AND o.id > ? ORDER BY o.id LIMIT 1`,
        Buffer.from(ridHex, 'hex'),
        after,
      );
      return row === undefined ? undefined : entryOf(row);
    },
    markAccepted(id, storeId, nowMs) {
      db.run(
        `UPDATE outbox SET state = 'ACCEPTED', accepted_ms = ?, store_id = ?
         WHERE id = ? AND state = 'SEALED'`,
        nowMs,
        storeId,
        id,
      );
    },
    markFailed(id, failure) {
      db.run(
        `UPDATE outbox SET state = 'FAILED', failure = ? WHERE id = ? AND state = 'SEALED'`,
        failure,
        id,
      );
    },
    markRelayed(mid, rid) {
      return db.run(
        `UPDATE outbox SET state = 'RELAYED' WHERE rid = ? AND state = 'ACCEPTED'
           AND payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?)`,
        rid,
        mid,
      );
    },
    putProof(id, proof, receivedMs) {
      db.run('UPDATE outbox SET proof = ?, received_ms = ? WHERE id = ?', proof, receivedMs, id);
    },
    proofs: (messageId) =>
      db
        .all(
          `SELECT o.rid, o.domain, o.proof, o.received_ms, p.mid, p.bytes FROM outbox o
             JOIN outbox_payload p ON p.id = o.payload_id
            WHERE o.message_id = ? AND o.proof IS NOT NULL ORDER BY o.id`,
          messageId,
        )
        .map((row) => ({
          rid: row.bytes('rid'),
          domain: row.text('domain'),
          mid: row.bytes('mid'),
          tag: messageTag(row.bytes('mid'), row.bytes('bytes')),
          receivedMs: row.number('received_ms'),
          proof: row.bytes('proof'),
        })),
    markLost: (mid, rid, notice, failure) =>
      db
        .all(
          `UPDATE outbox SET state = 'FAILED', failure = ?, notice = ?
           WHERE rid = ? AND state <> 'FAILED'
             AND payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?)
           RETURNING message_id`,
          failure,
          notice,
          rid,
          mid,
        )
        .map((row) => row.maybeNumber('message_id')),
    markDelayed: (mid, domain, atMs) =>
      db
        .all(
          `UPDATE outbox SET delayed_ms = ?
           WHERE domain = ? AND state <> 'FAILED'
             AND payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?)
           RETURNING message_id`,
          atMs,
          domain,
          mid,
        )
        .map((row) => row.maybeNumber('message_id')),
    reopen: (storeId) =>
      db.run(
        `UPDATE outbox SET state = 'SEALED' WHERE state = 'ACCEPTED' AND store_id <> ?`,
        storeId,
      ),
    openCount: () =>
      db.get(`SELECT count(*) AS open FROM outbox WHERE state = 'SEALED'`)?.number('open') ?? 0,
    failures: () =>
      db.all(`SELECT * FROM outbox WHERE state = 'FAILED' ORDER BY id`).map((row) => ({
        id: row.number('id'),
        messageId: row.maybeNumber('message_id'),
        rid: row.bytes('rid'),
        failure: row.text('failure'),
      })),
    expire(beforeMs) {
      db.transaction(() => {
        db.run(`DELETE FROM outbox WHERE state <> 'SEALED' AND created_ms < ?`, beforeMs);
        db.run('DELETE FROM outbox_payload WHERE id NOT IN (SELECT payload_id FROM outbox)');
      });
    },
  };
}
