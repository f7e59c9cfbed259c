/**
 * Which entries brought a Welcome: rows in the inboxes of a hub, and those that wait there for other nodes. A
 * Welcome is there if and only if its commit was accepted.
 */
import { entryHash, hex } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { openForReading } from '@quicprochat/nodes/store/simulation';
import type { SimHub } from './hub.ts';

/** Hashes (hex) of the entries beside which a Welcome lies at this hub; none of one that is down. */
export function welcomed(hub: SimHub): ReadonlySet<string> {
  const { life } = hub;
  if (life === undefined) return new Set();
  const db = openForReading(life.path, hub.key);
  try {
    const payloads = db
      .prepare<[], Uint8Array>(
        `SELECT bytes FROM payload WHERE id IN
           (SELECT payload FROM entry WHERE kind = 2 UNION SELECT payload FROM outbox WHERE kind = 2)`,
      )
      .pluck()
      .all();
    const controls = payloads.map((bytes) => fromBinary(GroupControlSchema, bytes));
    return new Set(
      controls.flatMap(({ welcome, entry }) =>
        welcome.length === 0 || entry?.entry === undefined
          ? []
          : [hex(entryHash(entry.entry.entry))],
      ),
    );
  } finally {
    db.close();
  }
}
