/** Table `message` of the device store: the history, and what of it the application has not seen. */
import type { Database, Row } from './database.ts';
import { pathOf, otherPathOf } from './paths.ts';
import type { OtherPath, Path } from './paths.ts';
import { waitsForPrekey } from './prekey-wait-rows.ts';

/**
 * Delivery of an own message, by its worst copy: on its way to the own node, all copies there, or
 * one that was refused at once, given up later, or not taken in time. Then how far it is known to
 * have come: on the disks of all nodes, on a device of each other member, shown on one of each.
 */
export type SendState =
  | 'sealed'
  | 'accepted'
  | 'relayed'
  | 'delivered'
  | 'read'
  | 'failed'
  | 'bounced'
  | 'expired';

export interface NewMessage {
  readonly conversationId: Uint8Array;
  readonly senderUser: string;
  readonly senderDevice: string;
  /** Inner id (16 bytes). */
  readonly innerId: Uint8Array;
  readonly n: number;
  readonly lamport: number;
  readonly text: string;
  readonly sentMs: number;
  /** Undefined for an own message. */
  readonly receivedMs: number | undefined;
  /** By which path it came: undefined from the own node, and for an own message. */
  readonly via?: OtherPath | undefined;
  /** Its text goes so long after it was sent (an own one) or shown; 0, and unless told: it stays. */
  readonly expirySeconds?: number | undefined;
}

export interface MessageRecord extends NewMessage {
  /** Local order of arrival. */
  readonly id: number;
  readonly displayedMs: number | undefined;
  readonly expirySeconds: number;
  /** When its text went: it is empty then. */
  readonly goneMs: number | undefined;
  /** Undefined for a received message. */
  readonly sendState: SendState | undefined;
  /** When the own node confirmed the last copy; undefined before. */
  readonly acceptedMs: number | undefined;
  /** When the own node said last that a copy waits for a node that is away; it may have gone since. */
  readonly delayedMs: number | undefined;
  /** By which path it came; of an own message, by which ones its copies left first, as far as they have. */
  readonly paths: readonly Path[];
  /** Copies of an own message wait for a delivery token of their device. */
  readonly waitsForToken: boolean;
  /** Copies of an own message cannot be sealed before their device has a prekey again. */
  readonly waitsForPrekey: boolean;
}

export interface MessageRows {
  /** Row id, or undefined when (conversation, sender device, inner id) is known already. */
  add(message: NewMessage): number | undefined;
  /** In display order: (lamport, inner id). `limit` newest rows, without what `undisplayed` hides. */
  history(conversationId: Uint8Array, limit: number): readonly MessageRecord[];
  /** Received and not displayed, id > after, in order of arrival; nothing of people that are blocked now. */
  undisplayed(after: number, limit: number): readonly MessageRecord[];
  /** From now on the time of texts that disappear runs. */
  markDisplayed(ids: readonly number[], nowMs: number): void;
  /** Removes the text of messages whose time is over, at most so many, the longest due ones first. */
  expire(
    nowMs: number,
    limit: number,
  ): readonly Pick<MessageRecord, 'conversationId' | 'innerId'>[];
  /** When the next text goes; undefined: none does. */
  nextExpiryMs(): number | undefined;
  /** Own messages of a device by their numbers, ascending. */
  ownByNumber(
    conversationId: Uint8Array,
    deviceId: string,
    from: number,
    to: number,
    limit: number,
  ): readonly MessageRecord[];
  /** The same, the newest ones with a text that did not disappear. */
  newestOwn(
    conversationId: Uint8Array,
    deviceId: string,
    from: number,
    limit: number,
  ): readonly MessageRecord[];
  message(id: number): MessageRecord | undefined;
  /** Row id by (conversation, sender device, inner id). */
  idOf(conversationId: Uint8Array, senderDevice: string, innerId: Uint8Array): number | undefined;
  /** Undefined for a received or unknown message. */
  sendState(id: number): SendState | undefined;
}

const isRemote = `o.domain <> substr(m.sender_user, instr(m.sender_user, '@') + 1)`;
const isOthers = `o.user_id IS NOT m.sender_user`;
// The state of an own message is that of its slowest copy, but for those that cannot be sealed yet where another person's
// can; a message without copies (nobody else is in the group) counts as accepted.
const columns = `m.*,
  (SELECT count(*) FROM outbox o WHERE o.message_id = m.id AND ${isOthers}
    AND NOT ${waitsForPrekey}) AS copies_for_others,
  (SELECT count(*) FROM outbox o WHERE o.message_id = m.id AND o.state = 'SEALED') AS copies_open,
  (SELECT count(*) FROM outbox o WHERE o.message_id = m.id AND ${waitsForPrekey}) AS copies_unsealed,
  (SELECT count(*) FROM outbox o WHERE o.message_id = m.id AND o.state = 'FAILED') AS copies_lost,
  (SELECT group_concat(coalesce(notice, 'failed')) FROM outbox o
    WHERE o.message_id = m.id AND o.state = 'FAILED') AS losses,
  (SELECT count(*) FROM outbox o WHERE o.message_id = m.id AND ${isRemote}
    AND NOT ${waitsForPrekey}) AS copies_remote,
  (SELECT count(*) FROM outbox o WHERE o.message_id = m.id AND ${isRemote} AND o.state = 'ACCEPTED')
    AS copies_unrelayed,
  (SELECT max(delayed_ms) FROM outbox o WHERE o.message_id = m.id) AS delayed_ms,
  EXISTS (SELECT 1 FROM outbox o WHERE o.message_id = m.id AND o.state = 'SEALED'
            AND o.token_wait_ms IS NOT NULL) AS waits_for_token,
  (SELECT max(accepted_ms) FROM outbox o WHERE o.message_id = m.id) AS accepted_ms,
  (SELECT group_concat(DISTINCT o.via) FROM outbox o WHERE o.message_id = m.id) AS paths`;

// Kept, and shown once the person is unblocked. What the application had before stays where it is.
const isHidden = `(m.displayed_ms IS NULL AND
  m.sender_user IN (SELECT user_id FROM blocked_user))`;

const worstLosses: readonly SendState[] = ['failed', 'bounced', 'expired'];

function sendStateOf(row: Row): SendState | undefined {
  if (!row.isNull('received_ms')) return undefined;
  if (row.number('copies_lost') > 0) {
    const losses = new Set(row.text('losses').split(','));
    return worstLosses.find((loss) => losses.has(loss)) ?? 'failed';
  }
  if (!row.isNull('read_ms')) return 'read';
  if (!row.isNull('delivered_ms')) return 'delivered';
  const unsealed = row.number('copies_unsealed');
  const isOpen = row.number('copies_open') > unsealed;
  if (isOpen || (unsealed > 0 && row.number('copies_for_others') === 0)) return 'sealed';
  const isRelayed = row.number('copies_remote') > 0 && row.number('copies_unrelayed') === 0;
  return isRelayed ? 'relayed' : 'accepted';
}

const arrived: ReadonlySet<SendState | undefined> = new Set([
  'accepted',
  'relayed',
  'delivered',
  'read',
]);

function messageOf(row: Row): MessageRecord {
  const sendState = sendStateOf(row);
  return {
    id: row.number('id'),
    conversationId: row.bytes('conversation_id'),
    senderUser: row.text('sender_user'),
    senderDevice: row.text('sender_device'),
    innerId: row.bytes('inner_id'),
    n: row.number('n'),
    lamport: row.number('lamport'),
    text: row.text('text'),
    sentMs: row.number('sent_ms'),
    receivedMs: row.maybeNumber('received_ms'),
    via: row.isNull('via') ? undefined : otherPathOf(row.text('via')),
    paths: pathsOf(row),
    displayedMs: row.maybeNumber('displayed_ms'),
    expirySeconds: row.number('expiry_seconds'),
    goneMs: row.maybeNumber('gone_ms'),
    sendState,
    acceptedMs: arrived.has(sendState) ? row.maybeNumber('accepted_ms') : undefined,
    delayedMs: row.maybeNumber('delayed_ms'),
    waitsForToken: row.number('waits_for_token') === 1,
    waitsForPrekey: row.number('copies_unsealed') > 0,
  };
}

function pathsOf(row: Row): readonly Path[] {
  if (!row.isNull('received_ms')) return [row.isNull('via') ? 'node' : pathOf(row.text('via'))];
  return row.isNull('paths') ? [] : row.text('paths').split(',').map(pathOf).toSorted();
}

export function messageRows(db: Database): MessageRows {
  return {
    add({ expirySeconds = 0, ...message }) {
      const isOwn = message.receivedMs === undefined;
      return db.insert(
        `INSERT INTO message (conversation_id, sender_user, sender_device, inner_id, n, lamport, text,
           sent_ms, received_ms, displayed_ms, via, expiry_seconds, expires_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
        message.conversationId,
        message.senderUser,
        message.senderDevice,
        message.innerId,
        message.n,
        message.lamport,
        message.text,
        message.sentMs,
        message.receivedMs ?? null,
        // Own messages are on screen already.
        isOwn ? message.sentMs : null,
        message.via ?? null,
        expirySeconds,
        isOwn && expirySeconds > 0 ? message.sentMs + expirySeconds * 1000 : null,
      );
    },
    history: (conversationId, limit) =>
      db
        .all(
          `SELECT ${columns} FROM message m WHERE conversation_id = ? AND NOT ${isHidden}
           ORDER BY lamport DESC, inner_id DESC LIMIT (? + 0)`,
          conversationId,
          limit,
        )
        .map(messageOf)
        .reverse(),
    undisplayed: (after, limit) =>
      db
        .all(
          `SELECT ${columns} FROM message m WHERE displayed_ms IS NULL AND id > ? AND NOT ${isHidden}
           ORDER BY id LIMIT (? + 0)`,
          after,
          limit,
        )
        .map(messageOf),
    ownByNumber: (conversationId, deviceId, from, to, limit) =>
      db
        .all(
          `SELECT ${columns} FROM message m WHERE conversation_id = ? AND sender_device = ?
             AND n BETWEEN ? AND ? AND received_ms IS NULL ORDER BY n LIMIT (? + 0)`,
          conversationId,
          deviceId,
          from,
          to,
          limit,
        )
        .map(messageOf),
    newestOwn: (conversationId, deviceId, from, limit) =>
      db
        .all(
          `SELECT ${columns} FROM message m WHERE conversation_id = ? AND sender_device = ?
             AND n >= ? AND received_ms IS NULL AND gone_ms IS NULL ORDER BY n DESC LIMIT (? + 0)`,
          conversationId,
          deviceId,
          from,
          limit,
        )
        .map(messageOf)
        .reverse(),
    message(id) {
      const row = db.get(`SELECT ${columns} FROM message m WHERE id = ?`, id);
      return row === undefined ? undefined : messageOf(row);
    },
    idOf: (conversationId, senderDevice, innerId) =>
      db
        .get(
          'SELECT id FROM message WHERE conversation_id = ? AND sender_device = ? AND inner_id = ?',
          conversationId,
          senderDevice,
          innerId,
        )
        ?.number('id'),
    sendState(id) {
      const row = db.get(`SELECT ${columns} FROM message m WHERE id = ?`, id);
      return row === undefined ? undefined : sendStateOf(row);
    },
    markDisplayed(ids, nowMs) {
      db.transaction(() => {
        for (const id of ids) {
          db.run(
            `UPDATE message SET displayed_ms = ?,
               expires_ms = CASE WHEN expiry_seconds > 0 THEN ? + expiry_seconds * 1000 END
             WHERE id = ? AND displayed_ms IS NULL`,
            nowMs,
            nowMs,
            id,
          );
        }
      });
    },
    expire: (nowMs, limit) =>
      db
        .all(
          `UPDATE message SET text = '', expires_ms = NULL, gone_ms = ? WHERE id IN
             (SELECT id FROM message WHERE expires_ms <= ? ORDER BY expires_ms LIMIT (? + 0))
           RETURNING conversation_id, inner_id`,
          nowMs,
          nowMs,
          limit,
        )
        .map((row) => ({
          conversationId: row.bytes('conversation_id'),
          innerId: row.bytes('inner_id'),
        })),
    nextExpiryMs: () =>
      db
        .get('SELECT min(expires_ms) AS next_ms FROM message WHERE expires_ms IS NOT NULL')
        ?.maybeNumber('next_ms'),
  };
}
