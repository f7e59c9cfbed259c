/**
 * Delivery tokens of inboxes (docs: protocol/delivery): hashes of those in force, which rows came
 * without one, and what is kept for who has one that was in force before. An inbox whose owner never set tokens
 * knows no strangers.
 */
import {
  deliveryTokenHash,
  InvalidArgumentError,
  maxDeliveryTokens,
  maxRenewalsBytes,
  NotFoundError,
  renewalBytes,
} from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { LogAppend } from './log-append.ts';

const hashBytes = 32;
/** Hashes of an inbox that were in force before: who has an older one is a stranger. */
const pastMax = 64;
const none = new Uint8Array(0);

interface TokenSet {
  readonly hashes: Uint8Array;
  readonly past: Uint8Array;
  readonly renewals: Uint8Array;
}

export interface TokenQueries extends Pick<
  Operations,
  'setDeliveryTokens' | 'tokenRenewals' | 'opensInbox'
> {
  /** Whether a row with this token (empty: none) is a stranger's. */
  isStranger(log: number, token: Uint8Array | undefined): boolean;
  /** Whether the token is one of those in force; an inbox without tokens has none. */
  isValid(log: number, token: Uint8Array): boolean;
  /** Whether it is one of those that were in force before. */
  isPast(log: number, token: Uint8Array): boolean;
  /** The set in force from now on. Throws InvalidArgumentError BAD_FIELD for what is none. */
  put(log: number, hashes: readonly Uint8Array[], renewals?: Uint8Array): void;
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
  // Without what lies beside it: a batch asks for 2 048 targets.
  const pastOf = db
    .prepare<[number], Uint8Array>('SELECT past FROM token_set WHERE log = ?')
    .pluck();
  const setOf = db.prepare<[number], TokenSet>(
    'SELECT hashes, past, renewals FROM token_set WHERE log = ?',
  );
  const put = db.prepare<[number, Uint8Array, Uint8Array, Uint8Array]>(
    'INSERT OR REPLACE INTO token_set (log, hashes, past, renewals) VALUES (?, ?, ?, ?)',
  );
  const strangers = db
    .prepare<[number, number], number>(
      'SELECT count(*) FROM (SELECT 1 FROM entry WHERE log = ? AND stranger = 1 LIMIT (? + 0))',
    )
    .pluck();

  function has(hashes: Uint8Array, token: Uint8Array | undefined): boolean {
    if (token === undefined || token.length === 0) return false;
    const hash = deliveryTokenHash(token);
    return split(hashes).some((one) => Buffer.compare(one, hash) === 0);
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
    isPast(log, token) {
      const past = pastOf.get(log);
      return past !== undefined && has(past, token);
    },
    opensInbox(_nowMs, rid, token) {
      const log = logs.byKey(rid);
      const hashes = log && hashesOf.get(log.id);
      return hashes !== undefined && has(hashes, token);
    },
    strangerRows: (log, max) => strangers.get(log, max) ?? 0,
    put: putHashes,
    tokenRenewals(_nowMs, rid, token) {
      const log = logs.byKey(rid);
      const set = log && setOf.get(log.id);
      if (set === undefined || set.renewals.length === 0 || !has(set.past, token)) return undefined;
      return { hash: set.hashes.subarray(0, hashBytes), renewals: set.renewals };
    },
    setDeliveryTokens(_nowMs, rid, hashes, renewals = none) {
      needBytes(rid, storeBounds.ridBytes, 'rid');
      needHashes(hashes);
      if (renewals.length % renewalBytes !== 0 || renewals.length > maxRenewalsBytes) {
        throw new InvalidArgumentError('BAD_FIELD', `renewals: ${renewals.length} bytes`);
      }
      const log = logs.byKey(rid);
      if (log === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'rid is not of this node');
      const past = putHashes(log.id, hashes, renewals);
      return past.length > 0 && renewals.length === 0;
    },
  };

  /** Returns the hashes that were in force before. */
  function putHashes(
    log: number,
    hashes: readonly Uint8Array[],
    renewals: Uint8Array = none,
  ): Uint8Array {
    needHashes(hashes);
    const joined = Buffer.concat(hashes);
    const known = setOf.get(log);
    const past = Buffer.concat(
      split(Buffer.concat([known?.hashes ?? none, known?.past ?? none]))
        .filter((one) => !hashes.some((hash) => Buffer.compare(hash, one) === 0))
        .slice(0, pastMax),
    );
    // Clients tell theirs at each start: no write, and no sync, for what is there already.
    const isKnown =
      known !== undefined &&
      Buffer.compare(known.hashes, joined) === 0 &&
      Buffer.compare(known.renewals, renewals) === 0;
    if (!isKnown) put.run(log, joined, past, renewals);
    return past;
  }
}

function split(hashes: Uint8Array): Uint8Array[] {
  return Array.from({ length: hashes.length / hashBytes }, (_, index) =>
    hashes.subarray(index * hashBytes, (index + 1) * hashBytes),
  );
}
