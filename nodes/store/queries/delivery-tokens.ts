/**
 * Delivery tokens of inboxes (docs: protocol/delivery): hashes of those in force, and which rows came
 * without one. An inbox whose owner never set tokens knows no strangers.
 */
import {
  deliveryTokenHash,
  InvalidArgumentError,
  maxDeliveryTokens,
  NotFoundError,
} from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { LogAppend } from './log-append.ts';

const hashBytes = 32;

export interface TokenQueries extends Pick<Operations, 'setDeliveryTokens' | 'opensInbox'> {
  /** Whether a row with this token (empty: none) is a stranger's. */
  isStranger(log: number, token: Uint8Array | undefined): boolean;
  /** Whether the token is one of those in force; an inbox without tokens has none. */
  isValid(log: number, token: Uint8Array): boolean;
  /** The set in force from now on. Throws InvalidArgumentError BAD_FIELD for what is none. */
  put(log: number, hashes: readonly Uint8Array[]): void;
  /** Rows of strangers in the inbox, counted up to `max`. */
  strangerRows(log: number, max: number): number;
}

function needHashes(hashes: readonly Uint8Array[]): void {
  for (const hash of hashes) needBytes(hash, hashBytes, 'hash');
  if (hashes.length <= maxDeliveryTokens) return;
  throw new InvalidArgumentError(
    'BAD_FIELD',
    `hashes: ${hashes.length}, at most ${maxDeliveryTokens}`,
  );
}

export function tokenQueries({ db }: QueryContext, logs: LogAppend): TokenQueries {
  const hashesOf = db
    .prepare<[number], Uint8Array>('SELECT hashes FROM token_set WHERE log = ?')
    .pluck();
  const put = db.prepare<[number, Uint8Array]>(
    'INSERT OR REPLACE INTO token_set (log, hashes) VALUES (?, ?)',
  );
  const strangers = db
    .prepare<[number, number], number>(
      'SELECT count(*) FROM (SELECT 1 FROM entry WHERE log = ? AND stranger = 1 LIMIT (? + 0))',
    )
    .pluck();

  function has(hashes: Uint8Array, token: Uint8Array | undefined): boolean {
    if (token === undefined || token.length === 0) return false;
    const hash = deliveryTokenHash(token);
    for (let from = 0; from < hashes.length; from += hashBytes) {
      if (Buffer.compare(hashes.subarray(from, from + hashBytes), hash) === 0) return true;
    }
    return false;
  }

  return {
    isStranger(log, token) {
      const hashes = hashesOf.get(log);
      return hashes !== undefined && !has(hashes, token);
    },
    isValid(log, token) {
      const hashes = hashesOf.get(log);
      return hashes !== undefined && has(hashes, token);
    },
    opensInbox(_nowMs, rid, token) {
      const log = logs.byKey(rid);
      const hashes = log && hashesOf.get(log.id);
      return hashes !== undefined && has(hashes, token);
    },
    strangerRows: (log, max) => strangers.get(log, max) ?? 0,
    put: putHashes,
    setDeliveryTokens(_nowMs, rid, hashes) {
      needBytes(rid, storeBounds.ridBytes, 'rid');
      needHashes(hashes);
      const log = logs.byKey(rid);
      if (log === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'rid is not of this node');
      putHashes(log.id, hashes);
    },
  };

  function putHashes(log: number, hashes: readonly Uint8Array[]): void {
    needHashes(hashes);
    const joined = Buffer.concat(hashes);
    const known = hashesOf.get(log);
    // Clients tell theirs at each start: no write, and no sync, for what is there already.
    if (known === undefined || Buffer.compare(known, joined) !== 0) put.run(log, joined);
  }
}
