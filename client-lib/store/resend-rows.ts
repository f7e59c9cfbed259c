/**
 * Tables `ciphertext`, `sender_count`, `hole`, `resend_duty` and `resend_spent` of the device store:
 * what was said under which number, what of it is missing here, and what others asked for.
 */
import { InternalError } from '@quicprochat/proto';
import type { Database, Row } from './database.ts';
import { longestWaitMs } from './due.ts';

export const ciphertextBounds = {
  keptMs: 7 * 24 * 3600 * 1000,
  bytesMax: 64 * 1024 * 1024,
} as const;

/** How long it is remembered that a hole ended without its messages (ms). */
const endedKeptMs = 90 * 24 * 3600 * 1000;

/** MLS bytes of a message. */
export interface Ciphertext {
  readonly groupId: Uint8Array;
  /** Sending device (32 bytes). */
  readonly sender: Uint8Array;
  readonly n: number;
  readonly epoch: number;
  /** Of an own message: which key of the epoch it used, if that is known. */
  readonly generation?: number | undefined;
  /** Of the row that it came in (16 bytes); undefined for an own message. */
  readonly tag: Uint8Array | undefined;
  readonly messageId: number;
  readonly bytes: Uint8Array;
}

/** Numbers of one sending device in one group, both ends included. */
export interface Hole {
  readonly groupId: Uint8Array;
  readonly sender: Uint8Array;
  readonly from: number;
  readonly to: number;
  /** OPEN: asked for. GONE: by the sender's word. UNANSWERED: given up. */
  readonly state: 'OPEN' | 'GONE' | 'UNANSWERED';
  readonly foundMs: number;
  /** Times that it was asked for. */
  readonly asks: number;
  /** When it is asked for next; undefined once it ended. */
  readonly nextMs: number | undefined;
}

export interface ResendDuty {
  readonly id: number;
  readonly asker: Uint8Array;
  /** Encoded ResendRequest, checked. */
  readonly request: Uint8Array;
  readonly dueMs: number;
}

export interface ResendRows {
  addCiphertext(ciphertext: Ciphertext, nowMs: number): void;
  ciphertexts(
    groupId: Uint8Array,
    sender: Uint8Array,
    from: number,
    to: number,
    limit: number,
  ): readonly Ciphertext[];
  /** The message that came in a row with this tag; undefined when it is not kept any more. */
  messageOfTag(tag: Uint8Array): number | undefined;

  /** Greatest number of a sending device; 0 for none. */
  top(groupId: Uint8Array, sender: Uint8Array): number;
  setTop(groupId: Uint8Array, sender: Uint8Array, top: number, nowMs: number): void;
  /** Sending devices of a group that were heard since then. */
  heardSince(groupId: Uint8Array, sinceMs: number): readonly Uint8Array[];

  /** The one that covers a number, whatever became of it. */
  holeAt(groupId: Uint8Array, sender: Uint8Array, n: number): Hole | undefined;
  holesOf(groupId: Uint8Array, sender: Uint8Array): readonly Hole[];
  holes(): readonly Hole[];
  putHole(hole: Hole): void;
  deleteHole(hole: Hole): void;
  /** See due.ts. */
  dueHoles(nowMs: number, limit: number): readonly Hole[];
  nextHoleMs(): number | undefined;

  addDuty(duty: Omit<ResendDuty, 'id'>): void;
  deleteDuty(id: number): void;
  nextDuty(): ResendDuty | undefined;
  dutyCount(asker?: Uint8Array): number;
  /** What was spent in an hour (since the Unix epoch): on one asker, or on all. */
  spent(hour: number, asker?: Uint8Array): { readonly requests: number; readonly messages: number };
  spend(hour: number, asker: Uint8Array, requests: number, messages: number): void;

  /** Removes ciphertexts and accounts that are too old. */
  expire(nowMs: number): void;
}

const holeStates: readonly Hole['state'][] = ['OPEN', 'GONE', 'UNANSWERED'];

function holeOf(row: Row): Hole {
  const state = holeStates.find((one) => one === row.text('state'));
  if (state === undefined) throw new InternalError('store: a hole has an unknown state');
  return {
    groupId: row.bytes('group_id'),
    sender: row.bytes('sender'),
    from: row.number('from_n'),
    to: row.number('to_n'),
    state,
    foundMs: row.number('found_ms'),
    asks: row.number('asks'),
    nextMs: row.maybeNumber('next_ms'),
  };
}

function ciphertextOf(row: Row): Ciphertext {
  return {
    groupId: row.bytes('group_id'),
    sender: row.bytes('sender'),
    n: row.number('n'),
    epoch: row.number('epoch'),
    generation: row.maybeNumber('generation'),
    tag: row.maybeBytes('tag'),
    messageId: row.number('message_id'),
    bytes: row.bytes('bytes'),
  };
}

export function resendRows(db: Database): ResendRows {
  /** Bytes of all ciphertexts; counted when first needed, and anew after each cut. */
  let heldBytes: number | undefined;
  const countBytes = (): number =>
    db.get('SELECT coalesce(sum(length(bytes)), 0) AS held FROM ciphertext')?.number('held') ?? 0;
  const cutBytes = (max: number): void => {
    db.run(
      `DELETE FROM ciphertext WHERE id IN
         (SELECT id FROM (SELECT id, sum(length(bytes)) OVER (ORDER BY id DESC) AS upto
                          FROM ciphertext) WHERE upto > ?)`,
      max,
    );
    heldBytes = countBytes();
  };
  return {
    addCiphertext({ groupId, sender, n, epoch, generation, tag, messageId, bytes }, nowMs) {
      db.run(
        `INSERT INTO ciphertext (group_id, sender, n, epoch, generation, tag, message_id, bytes, at_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        groupId,
        sender,
        n,
        epoch,
        generation ?? null,
        tag ?? null,
        messageId,
        bytes,
        nowMs,
      );
      heldBytes = (heldBytes ?? countBytes()) + bytes.length;
      // Well below the bound, so that it is not cut at every message.
      if (heldBytes > ciphertextBounds.bytesMax) cutBytes(ciphertextBounds.bytesMax * 0.9);
    },
    ciphertexts: (groupId, sender, from, to, limit) =>
      db
        .all(
          `SELECT * FROM ciphertext WHERE group_id = ? AND sender = ? AND n BETWEEN ? AND ?
           ORDER BY n, id LIMIT (? + 0)`,
          groupId,
          sender,
          from,
          to,
          limit,
        )
        .map(ciphertextOf),
    messageOfTag: (tag) =>
      db.get('SELECT message_id FROM ciphertext WHERE tag = ? LIMIT 1', tag)?.number('message_id'),

    top: (groupId, sender) =>
      db
        .get('SELECT top FROM sender_count WHERE group_id = ? AND sender = ?', groupId, sender)
        ?.number('top') ?? 0,
    setTop(groupId, sender, top, nowMs) {
      db.run(
        `INSERT INTO sender_count VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET top = max(top, excluded.top), last_ms = excluded.last_ms`,
        groupId,
        sender,
        top,
        nowMs,
      );
    },
    heardSince: (groupId, sinceMs) =>
      db
        .all(
          'SELECT sender FROM sender_count WHERE group_id = ? AND last_ms >= ?',
          groupId,
          sinceMs,
        )
        .map((row) => row.bytes('sender')),

    holeAt(groupId, sender, n) {
      const row = db.get(
        `SELECT * FROM hole WHERE group_id = ? AND sender = ? AND from_n <= ? AND to_n >= ?`,
        groupId,
        sender,
        n,
        n,
      );
      return row === undefined ? undefined : holeOf(row);
    },
    holesOf: (groupId, sender) =>
      db
        .all(
          'SELECT * FROM hole WHERE group_id = ? AND sender = ? ORDER BY from_n',
          groupId,
          sender,
        )
        .map(holeOf),
    holes: () => db.all('SELECT * FROM hole ORDER BY found_ms, from_n').map(holeOf),
    putHole({ groupId, sender, from, to, state, foundMs, asks, nextMs }) {
      db.run(
        'INSERT OR REPLACE INTO hole VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
        groupId,
        sender,
        from,
        to,
        state,
        foundMs,
        asks,
        nextMs ?? null,
      );
    },
    deleteHole({ groupId, sender, from }) {
      db.run(
        'DELETE FROM hole WHERE group_id = ? AND sender = ? AND from_n = ?',
        groupId,
        sender,
        from,
      );
    },
    dueHoles: (nowMs, limit) =>
      db
        .all(
          'SELECT * FROM hole WHERE next_ms <= ? OR next_ms > ? ORDER BY next_ms LIMIT (? + 0)',
          nowMs,
          nowMs + longestWaitMs,
          limit,
        )
        .map(holeOf),
    nextHoleMs: () =>
      db.get('SELECT min(next_ms) AS at FROM hole WHERE next_ms IS NOT NULL')?.maybeNumber('at'),

    addDuty({ asker, request, dueMs }) {
      db.run(
        'INSERT INTO resend_duty (asker, request, due_ms) VALUES (?, ?, ?)',
        asker,
        request,
        dueMs,
      );
    },
    deleteDuty(id) {
      db.run('DELETE FROM resend_duty WHERE id = ?', id);
    },
    nextDuty() {
      const row = db.get('SELECT * FROM resend_duty ORDER BY due_ms, id LIMIT 1');
      if (row === undefined) return undefined;
      return {
        id: row.number('id'),
        asker: row.bytes('asker'),
        request: row.bytes('request'),
        dueMs: row.number('due_ms'),
      };
    },
    dutyCount: (asker) =>
      (asker === undefined
        ? db.get('SELECT count(*) AS held FROM resend_duty')
        : db.get('SELECT count(*) AS held FROM resend_duty WHERE asker = ?', asker)
      )?.number('held') ?? 0,
    spent(hour, asker) {
      const sums = 'coalesce(sum(requests), 0) AS requests, coalesce(sum(messages), 0) AS messages';
      const row =
        asker === undefined
          ? db.get(`SELECT ${sums} FROM resend_spent WHERE hour = ?`, hour)
          : db.get(`SELECT ${sums} FROM resend_spent WHERE hour = ? AND asker = ?`, hour, asker);
      return { requests: row?.number('requests') ?? 0, messages: row?.number('messages') ?? 0 };
    },
    spend(hour, asker, requests, messages) {
      db.run(
        `INSERT INTO resend_spent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
         SET requests = requests + excluded.requests, messages = messages + excluded.messages`,
        asker,
        hour,
        requests,
        messages,
      );
    },

    expire(nowMs) {
      db.transaction(() => {
        db.run('DELETE FROM ciphertext WHERE at_ms < ?', nowMs - ciphertextBounds.keptMs);
        cutBytes(ciphertextBounds.bytesMax);
        db.run('DELETE FROM hole WHERE next_ms IS NULL AND found_ms < ?', nowMs - endedKeptMs);
        db.run('DELETE FROM resend_spent WHERE hour < ?', Math.floor(nowMs / 3_600_000) - 1);
      });
    },
  };
}
