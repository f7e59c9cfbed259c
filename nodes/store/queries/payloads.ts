/** Payload bytes, stored once for all the rows of one transaction that point at them. */
import type { SqlDatabase } from '../sqlite.ts';

/** A payload on its way in: the first reference writes the bytes, the others count. */
export class IncomingPayload {
  readonly bytes: Uint8Array;
  id: number | bigint | undefined;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

export interface PayloadQueries {
  /** Returns the payload's id for a row that is about to be written. */
  refer(payload: IncomingPayload): number | bigint;
  /** One more row points at a stored payload. */
  addRef(id: number): void;
  /** A row that pointed at it is gone; the last one takes the bytes along. */
  release(id: number): void;
}

export function payloadQueries(db: SqlDatabase): PayloadQueries {
  const insert = db.prepare<[Uint8Array]>('INSERT INTO payload (refs, bytes) VALUES (1, ?)');
  const add = db.prepare<[number | bigint]>('UPDATE payload SET refs = refs + 1 WHERE id = ?');
  const removeLast = db.prepare<[number]>('DELETE FROM payload WHERE id = ? AND refs = 1');
  const subtract = db.prepare<[number]>('UPDATE payload SET refs = refs - 1 WHERE id = ?');

  return {
    refer(payload) {
      if (payload.id === undefined) payload.id = insert.run(payload.bytes).lastInsertRowid;
      else add.run(payload.id);
      return payload.id;
    },
    addRef(id) {
      add.run(id);
    },
    release(id) {
      if (removeLast.run(id).changes === 0) subtract.run(id);
    },
  };
}
