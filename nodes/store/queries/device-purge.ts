/** Everything of a device goes at once: inbox, payloads that nobody else needs, keys, session. */
import type { QueryContext } from '../operations.ts';

export interface DevicePurge {
  /**
   * Removes a device and all that is its own: the inbox with rows, cursor and tombstones, the
   * payloads that no other row points at, KeyPackages (last-resort ones and consumed refs too),
   * prekey, transport key. A claim that handed out one of its packages no longer repeats it.
   */
  purge(device: number): void;
}

export function devicePurgeQueries({ db }: QueryContext): DevicePurge {
  const inboxOf = db
    .prepare<[number], number>(
      `SELECT log.id FROM log JOIN device ON device.identity_pub = log.key
        WHERE log.kind = 1 AND device.id = ?`,
    )
    .pluck();
  // A log has at most one entry for a payload; payloads first, as in an ack (a full disk).
  const ofInbox = [
    // What the device sent goes on without it; its log's number may be given to another.
    'UPDATE entry SET sender = NULL WHERE sender = ?',
    ...['outbox', 'outbox_tomb', 'dead_letter'].map(
      (table) =>
        `UPDATE ${table} SET sender = NULL WHERE peer IN (SELECT id FROM peer) AND sender = ?`,
    ),
    'DELETE FROM delay_told WHERE peer IN (SELECT id FROM peer) AND sender = ?',
    `DELETE FROM payload WHERE refs = 1 AND id IN (SELECT payload FROM entry WHERE log = ?)`,
    `UPDATE payload SET refs = refs - 1 WHERE id IN (SELECT payload FROM entry WHERE log = ?)`,
    'DELETE FROM entry WHERE log = ?',
    'DELETE FROM tomb WHERE log = ?',
    'DELETE FROM token_set WHERE log = ?',
    'DELETE FROM log WHERE id = ?',
  ].map((sql) => db.prepare<[number]>(sql));
  const ofDevice = [
    'UPDATE channel SET trim_due = 1 WHERE log IN (SELECT log FROM channel_cursor WHERE device = ?)',
    'DELETE FROM channel_cursor WHERE device = ?',
    `DELETE FROM claim_package
      WHERE key_package IN (SELECT id FROM key_package WHERE device = ?)`,
    'DELETE FROM key_package WHERE device = ?',
    'DELETE FROM prekey WHERE device = ?',
    'DELETE FROM device WHERE id = ?',
  ].map((sql) => db.prepare<[number]>(sql));

  return {
    purge(device) {
      const inbox = inboxOf.get(device);
      if (inbox !== undefined) for (const statement of ofInbox) statement.run(inbox);
      for (const statement of ofDevice) statement.run(device);
    },
  };
}
