/** Tables `outbox` and `outbox_payload` of the device store. */
import { messageTag } from '@quicprochat/proto';
import { channelRows } from './channel-rows.ts';
import type { Database, Row } from './database.ts';
import { longestWaitMs } from './due.ts';
import { outboxBounds, unsettled } from './outbox-bounds.ts';
import { pathOf } from './paths.ts';
import { prekeyWaitRows } from './prekey-wait-rows.ts';
import type { OutboxEntry, OutboxRow, OutboxRows } from './outbox-copies.ts';
import { tokenWaitRows } from './token-wait-rows.ts';

const withPayload = `SELECT o.*, p.mid, p.bytes FROM outbox o JOIN outbox_payload p ON p.id = o.payload_id`;

function entryOf(row: Row): OutboxEntry {
  return {
    id: row.number('id'),
    rid: row.bytes('rid'),
    domain: row.text('domain'),
    mid: row.bytes('mid'),
    payload: row.bytes('bytes'),
    messageId: row.maybeNumber('message_id'),
    createdMs: row.number('created_ms'),
    tokenWaits: row.number('token_waits'),
    post: row.maybeBytes('post'),
  };
}

function rowOf(row: Row): OutboxRow {
  return {
    ...entryOf(row),
    userId: row.isNull('user_id') ? undefined : row.text('user_id'),
    groupId: row.maybeBytes('group_id'),
    epoch: row.maybeNumber('epoch'),
    generation: row.maybeNumber('generation'),
    acceptedMs: row.maybeNumber('accepted_ms'),
    resends: row.number('resends'),
  };
}

export function outboxRows(db: Database): OutboxRows {
  const channels = channelRows(db);
  const dropUnusedBytes = (): void => {
    db.run(
      `DELETE FROM outbox_payload
       WHERE NOT EXISTS (SELECT 1 FROM outbox o WHERE o.payload_id = outbox_payload.id)`,
    );
  };
  /** The copies of these rows are settled: bytes that no other row needs go. */
  const releaseBytes = (rows: readonly Row[]): void => {
    for (const row of rows) {
      db.run('UPDATE outbox SET payload_id = NULL WHERE id = ?', row.number('id'));
      const payloadId = row.maybeNumber('payload_id');
      if (payloadId === undefined) continue;
      db.run(
        'DELETE FROM outbox_payload WHERE id = ? AND NOT EXISTS (SELECT 1 FROM outbox WHERE payload_id = ?)',
        payloadId,
        payloadId,
      );
    }
  };
  const add = (
    { mid, payload, targets, messageId, about, post }: Parameters<OutboxRows['add']>[0],
    nowMs: number,
  ): number | undefined => {
    const kind = about?.kind ?? (messageId === undefined ? 'HANDSHAKE' : 'MESSAGE');
    return db.transaction(() => {
      const payloadId = db.insert(
        'INSERT INTO outbox_payload (mid, bytes) VALUES (?, ?)',
        mid,
        payload,
      );
      if (post !== undefined) {
        db.run('INSERT OR IGNORE INTO seen VALUES (?, ?)', messageTag(mid, payload), nowMs);
        if (about !== undefined) {
          channels.putRoster(about.groupId, Number(about.epoch), post.readers, nowMs);
        }
      }
      const resends = about?.resends ?? 0;
      for (const { rid, domain, userId } of targets) {
        db.run(
          `INSERT INTO outbox (payload_id, rid, domain, user_id, kind, message_id, group_id, epoch,
               generation, state, created_ms, resends, post)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'SEALED', ?, ?, ?)`,
          payloadId ?? null,
          rid,
          domain,
          userId ?? null,
          kind,
          messageId ?? null,
          about?.groupId ?? null,
          about === undefined ? null : Number(about.epoch),
          about?.generation ?? null,
          nowMs,
          // Nobody confirms a post.
          post === undefined ? resends : Math.max(resends, outboxBounds.resendAfterMs.length),
          post?.bytes ?? null,
        );
      }
      return payloadId;
    });
  };
  const sealPostAnew = (id: number, nowMs: number): boolean =>
    db.run(
      `UPDATE outbox SET state = 'SEALED', resend_ms = ?
       WHERE id = ? AND post IS NOT NULL AND ${unsettled} AND payload_id IS NOT NULL
         AND message_id IS NOT NULL AND resends < ?`,
      nowMs,
      id,
      outboxBounds.repostsMax,
    ) > 0;
  return {
    ...tokenWaitRows(db),
    ...prekeyWaitRows(db, add),
    add: (entry, nowMs) => void add(entry, nowMs),
    addSent(entry, nowMs, broughtMid) {
      db.transaction(() => {
        db.run(
          `UPDATE outbox SET state = 'RELAYED', accepted_ms = ?, resend_ms = ?, brought_mid = ?
           WHERE payload_id = ?`,
          nowMs,
          nowMs + outboxBounds.resendAfterMs[0],
          broughtMid ?? null,
          add(entry, nowMs) ?? null,
        );
      });
    },
    openTargets: () =>
      db
        .all(
          `SELECT lower(hex(rid)) AS target, max(id) AS newest FROM outbox
           WHERE state = 'SEALED' AND resend_ms IS NULL
           GROUP BY rid ORDER BY min(id)`,
        )
        .map((row) => ({ target: row.text('target'), newestId: row.number('newest') })),
    next(ridHex, after) {
      const row = db.get(
        `${withPayload} WHERE o.state = 'SEALED' AND o.rid = ? AND o.id > ? AND o.resend_ms IS NULL
         ORDER BY o.id LIMIT 1`,
        Buffer.from(ridHex, 'hex'),
        after,
      );
      return row === undefined ? undefined : rowOf(row);
    },
    markAccepted(id, storeId, nowMs, sent) {
      const row = db.get(
        `SELECT kind, resends, token_waits, resend_ms FROM outbox WHERE id = ? AND state = 'SEALED'`,
        id,
      );
      // One that is to be sealed anew: some of those whom it is for do not get what was sent, whoever has it.
      if (row === undefined || !row.isNull('resend_ms')) return false;
      if (sent !== undefined && sent.tokenWaits !== row.number('token_waits')) return false;
      const isConfirmed = row.text('kind') === 'MESSAGE' || row.text('kind') === 'HANDSHAKE';
      const waitMs = isConfirmed ? outboxBounds.resendAfterMs[row.number('resends')] : undefined;
      db.run(
        `UPDATE outbox SET state = 'ACCEPTED', accepted_ms = ?, store_id = ?, resend_ms = ?,
           token_wait_ms = NULL, sent_token = coalesce(?, sent_token), via = coalesce(via, ?)
         WHERE id = ?`,
        nowMs,
        storeId,
        waitMs === undefined ? null : nowMs + waitMs,
        sent?.token ?? null,
        sent?.via ?? null,
        id,
      );
      return true;
    },
    markDelivered(id, nowMs, via) {
      const found = db.all(`SELECT id, payload_id FROM outbox WHERE id = ? AND ${unsettled}`, id);
      db.run(
        `UPDATE outbox SET state = 'DELIVERED', resend_ms = NULL, token_wait_ms = NULL,
           accepted_ms = coalesce(accepted_ms, ?), via = coalesce(via, ?)
         WHERE id = ? AND ${unsettled}`,
        nowMs,
        via,
        id,
      );
      releaseBytes(found);
    },
    paths: (messageId) =>
      db
        .all(
          `SELECT DISTINCT via FROM outbox WHERE message_id = ? AND via IS NOT NULL ORDER BY via`,
          messageId,
        )
        .map((row) => pathOf(row.text('via'))),
    undeliveredTargets: (afterId, which = 'all') => ({
      targets: db
        .all(
          `SELECT DISTINCT lower(hex(rid)) AS target, domain FROM outbox
           WHERE id > ? AND post IS NULL AND ${unsettled} AND
             ${which === 'all' ? `(state <> 'SEALED' OR resend_ms IS NULL)` : `state = 'SEALED' AND resend_ms IS NULL`}`,
          afterId,
        )
        .map((row) => ({ target: row.text('target'), domain: row.text('domain') })),
      newestId: db.get('SELECT max(id) AS newest FROM outbox')?.maybeNumber('newest') ?? 0,
    }),
    undelivered(ridHex, after, at, mailbox = '') {
      const taken = at === 'node' ? `'ACCEPTED'` : `'ACCEPTED', 'RELAYED'`;
      const row = db.get(
        `${withPayload} WHERE o.rid = ? AND o.id > ? AND o.post IS NULL AND o.${unsettled} AND
           (o.state = 'SEALED' AND o.resend_ms IS NULL
            OR o.state IN (${taken}) AND o.kind IN ('MESSAGE', 'HANDSHAKE'))
           AND instr(o.mailboxes, ' ' || ? || ' ') = 0
         ORDER BY o.id LIMIT 1`,
        Buffer.from(ridHex, 'hex'),
        after,
        mailbox,
      );
      return row === undefined ? undefined : rowOf(row);
    },
    newestGeneration: (groupId, rid, epoch) =>
      db
        .get(
          `SELECT max(generation) AS newest FROM outbox
           WHERE group_id = ? AND (rid = ? OR post IS NOT NULL) AND epoch = ?
             AND generation IS NOT NULL
             AND state IN ('ACCEPTED', 'RELAYED', 'DELIVERED', 'READ')`,
          groupId,
          rid,
          epoch,
        )
        ?.maybeNumber('newest'),
    markFailed: (id, failure) =>
      db.run(
        `UPDATE outbox SET state = 'FAILED', failure = ?, resend_ms = NULL, token_wait_ms = NULL
         WHERE id = ? AND state = 'SEALED'`,
        failure,
        id,
      ) > 0,
    sealPostAnew: (id, nowMs) => sealPostAnew(id, nowMs),
    returnPosts(mid, cid, dueMs) {
      const found = db.all(
        `${withPayload} WHERE o.rid = ? AND o.post IS NOT NULL
           AND o.payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?)`,
        cid,
        mid,
      );
      const isTimed = (row: Row): boolean => row.maybeNumber('resend_ms') !== undefined;
      return found.filter(
        (row) => isTimed(row) || sealPostAnew(row.number('id'), dueMs(rowOf(row))),
      ).length;
    },
    postsDue: (groupId, nowMs) =>
      db.run(
        `UPDATE outbox SET resend_ms = ?
         WHERE group_id = ? AND post IS NOT NULL AND state = 'SEALED' AND resend_ms > ?`,
        nowMs,
        groupId,
        nowMs,
      ),
    wasPostedTo: (messageId, rid) =>
      db
        .all(
          `SELECT group_id, epoch FROM outbox
            WHERE message_id = ? AND post IS NOT NULL AND kind = 'MESSAGE'`,
          messageId,
        )
        .some((row) => channels.wasReader(row.bytes('group_id'), row.number('epoch'), rid)),
    markRelayed(mid, rid) {
      return db.run(
        `UPDATE outbox SET state = 'RELAYED' WHERE rid = ? AND state = 'ACCEPTED'
           AND payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?)`,
        rid,
        mid,
      );
    },
    markArrived(id) {
      db.run(`UPDATE outbox SET state = 'RELAYED' WHERE id = ? AND state = 'ACCEPTED'`, id);
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
          `UPDATE outbox SET state = 'FAILED', failure = ?, notice = ?, resend_ms = NULL,
             token_wait_ms = NULL
           WHERE rid = ? AND ${unsettled}
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
           WHERE domain = ? AND ${unsettled}
             AND payload_id IN (SELECT id FROM outbox_payload WHERE mid = ?)
           RETURNING message_id`,
          atMs,
          domain,
          mid,
        )
        .map((row) => row.maybeNumber('message_id')),
    confirm(messageId, rid, kind) {
      const from = kind === 'READ' ? `state <> 'READ'` : `state NOT IN ('DELIVERED', 'READ')`;
      const found = db.all(
        `SELECT id, payload_id FROM outbox
         WHERE message_id = ? AND rid = ? AND kind = 'MESSAGE' AND ${from}`,
        messageId,
        rid,
      );
      db.run(
        `UPDATE outbox SET state = ?, resend_ms = NULL, failure = NULL, notice = NULL,
           token_wait_ms = NULL
         WHERE message_id = ? AND rid = ? AND kind = 'MESSAGE' AND ${from}`,
        kind,
        messageId,
        rid,
      );
      releaseBytes(found);
      return found.length > 0;
    },
    confirmHandshakes(groupId, rid, epoch) {
      const found = db.all(
        `SELECT id, payload_id FROM outbox
         WHERE group_id = ? AND rid = ? AND kind = 'HANDSHAKE' AND epoch <= ? AND ${unsettled}`,
        groupId,
        rid,
        Number(epoch),
      );
      for (const row of found) {
        db.run(
          `UPDATE outbox SET state = 'DELIVERED', resend_ms = NULL, token_wait_ms = NULL
           WHERE id = ?`,
          row.number('id'),
        );
      }
      releaseBytes(found);
    },
    usersWithout: (messageId, kind) =>
      db
        .all(
          `SELECT coalesce(user_id, '') AS who FROM outbox
           WHERE message_id = ? AND kind = 'MESSAGE' GROUP BY who
           HAVING sum(state IN (${kind === 'READ' ? `'READ'` : `'DELIVERED', 'READ'`})) = 0`,
          messageId,
        )
        .map((row) => row.text('who')),
    wasSentTo: (messageId, rid) =>
      db.get(
        `SELECT 1 FROM outbox WHERE message_id = ? AND rid = ? AND kind = 'MESSAGE' LIMIT 1`,
        messageId,
        rid,
      ) !== undefined,
    reopen: (storeId) =>
      db.run(
        `UPDATE outbox SET state = 'SEALED', resend_ms = NULL
         WHERE state = 'ACCEPTED' AND store_id <> ? AND payload_id IS NOT NULL`,
        storeId,
      ),
    due: (nowMs, limit) =>
      db
        .all(
          `${withPayload} WHERE (o.resend_ms <= ? OR o.resend_ms > ?) AND o.${unsettled}
           ORDER BY o.resend_ms, o.id LIMIT (? + 0)`,
          nowMs,
          nowMs + longestWaitMs,
          limit,
        )
        .map(rowOf),
    resendTo: (domain, nowMs, also) =>
      db.run(
        `UPDATE outbox SET resend_ms = ?
         WHERE (domain = ? OR ${also === 'invitations' ? `kind = 'HANDSHAKE'` : 'FALSE'})
           AND state IN ('ACCEPTED', 'RELAYED') AND resend_ms > ? AND post IS NULL`,
        nowMs,
        domain,
        nowMs,
      ),
    nextDueMs: (which) =>
      db
        .get(
          `SELECT min(resend_ms) AS at FROM outbox
           WHERE resend_ms IS NOT NULL
             ${which === 'all' ? '' : `AND state = 'SEALED'`}`,
        )
        ?.maybeNumber('at'),
    sendAgain(id) {
      db.run(
        `UPDATE outbox SET state = 'SEALED', resend_ms = NULL, resends = resends + 1
         WHERE id = ? AND ${unsettled} AND payload_id IS NOT NULL`,
        id,
      );
    },
    setResend(id, atMs) {
      db.run('UPDATE outbox SET resend_ms = ? WHERE id = ?', atMs ?? null, id);
    },
    replaced(id) {
      const found = db.all('SELECT id, payload_id FROM outbox WHERE id = ?', id);
      releaseBytes(found);
      db.run('DELETE FROM outbox WHERE id = ?', id);
    },
    unrelayed: (ownDomain, sinceMs, limit) =>
      db
        .all(
          `${withPayload}
           WHERE o.state = 'ACCEPTED' AND o.domain <> ? AND o.accepted_ms >= ?
             AND o.kind IN ('MESSAGE', 'HANDSHAKE')
           ORDER BY o.id DESC LIMIT (? + 0)`,
          ownDomain,
          sinceMs,
          limit,
        )
        .map(rowOf),
    openCount: () =>
      db.get(`SELECT count(*) AS open FROM outbox WHERE state = 'SEALED'`)?.number('open') ?? 0,
    failures: () =>
      db.all(`SELECT * FROM outbox WHERE state = 'FAILED' ORDER BY id`).map((row) => ({
        id: row.number('id'),
        messageId: row.maybeNumber('message_id'),
        rid: row.bytes('rid'),
        failure: row.text('failure'),
      })),
    expire(nowMs) {
      const { receiptsKeptMs, bytesKeptMs, rowsKeptMs, rowsMax, bytesMax } = outboxBounds;
      db.transaction(() => {
        db.run(
          `DELETE FROM outbox WHERE state <> 'SEALED' AND
             (created_ms < ? OR (kind IN ('RECEIPT', 'RESEND') AND created_ms < ?))`,
          nowMs - rowsKeptMs,
          nowMs - receiptsKeptMs,
        );
        db.run(
          `DELETE FROM outbox WHERE id IN
             (SELECT id FROM outbox WHERE state <> 'SEALED' ORDER BY id DESC LIMIT -1 OFFSET ?)`,
          rowsMax,
        );
        db.run(
          `UPDATE outbox SET payload_id = NULL, resend_ms = NULL
           WHERE state <> 'SEALED' AND created_ms < ?`,
          nowMs - bytesKeptMs,
        );
        // From the newest on, as many bytes as may stay.
        db.run(
          `UPDATE outbox SET payload_id = NULL, resend_ms = NULL
           WHERE state <> 'SEALED' AND payload_id IN (
             SELECT id FROM (SELECT id, sum(length(bytes)) OVER (ORDER BY id DESC) AS upto
                             FROM outbox_payload) WHERE upto > ?)`,
          bytesMax,
        );
        dropUnusedBytes();
      });
    },
  };
}
