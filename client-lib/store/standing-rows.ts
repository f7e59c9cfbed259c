/**
 * Tables `group_doubt` and `group_vote` of the device store: commits that not every member can judge, and what
 * devices said of them (docs/protocol/group-log.md, "What cannot be judged alone").
 */
import type { Database, Row } from './database.ts';

export const standingBounds = {
  /** Entries of a group that were not applied. Of one parent a hub takes no more than 25, unless it lies. */
  junk: 64,
} as const;

export type DoubtCause = 'APPLIED' | 'VOID' | 'PATH' | 'KEYS' | 'OWN';

export interface DoubtRow {
  readonly groupId: Uint8Array;
  /** Of the entry (32 bytes). */
  readonly hash: Uint8Array;
  readonly epoch: number;
  readonly cause: DoubtCause;
  /** User id; empty: not known. */
  readonly author: string;
  /** User ids of those whose word counts. */
  readonly voters: readonly string[];
  readonly seenMs: number;
  /** When this device says what it makes of it; undefined: it did, or was not asked. */
  readonly voteMs: number | undefined;
  /** When it asks the others next; undefined: not any more, or nothing here depends on it. */
  readonly askMs: number | undefined;
  /** So often it asked. */
  readonly round: number;
}

export interface VoteRow {
  /** Identity key (32 bytes). */
  readonly device: Uint8Array;
  readonly userId: string;
  readonly isApplied: boolean;
  /** 64 bytes. */
  readonly signature: Uint8Array;
}

export interface StandingRows {
  doubt(groupId: Uint8Array, hash: Uint8Array): DoubtRow | undefined;
  /** In place of what was known of the entry; its votes stay. */
  putDoubt(row: DoubtRow): void;
  /**
   * One that is not known, in the place of older junk where there is no room. False: there is none; of what somebody's word
   * decides, or anybody waits for, nothing goes.
   */
  addDoubt(row: DoubtRow): boolean;
  /** Of entries about which something is to be said by then. */
  due(nowMs: number): readonly DoubtRow[];
  nextDueMs(): number | undefined;
  /** Nothing is to be said later than this. */
  putForward(latestMs: number): void;
  votes(groupId: Uint8Array, hash: Uint8Array): readonly VoteRow[];
  /** False when it is known. */
  addVote(groupId: Uint8Array, hash: Uint8Array, vote: VoteRow): boolean;
  /** Entries by which this device came back into a group, and about which it asked. */
  returns(groupId: Uint8Array): readonly DoubtRow[];
  /** Nothing depends on these any more. */
  settleReturns(groupId: Uint8Array): void;
  /** Epochs of entries below this one that were not applied here. */
  junkEpochs(groupId: Uint8Array, below: number): number;
  /** Forgets entries of earlier epochs, except those by which this device came back and of which it still asks. */
  dropBelow(groupId: Uint8Array, epoch: number): void;
}

const doubtOf = (row: Row): DoubtRow => ({
  groupId: row.bytes('group_id'),
  hash: row.bytes('hash'),
  epoch: row.number('epoch'),
  cause: row.text('cause') as DoubtCause,
  author: row.text('author'),
  voters: row.text('voters') === '' ? [] : row.text('voters').split(' '),
  seenMs: row.number('seen_ms'),
  voteMs: row.maybeNumber('vote_ms'),
  askMs: row.maybeNumber('ask_ms'),
  round: row.number('round'),
});

export function standingRows(db: Database): StandingRows {
  const putDoubt = (row: DoubtRow): void => {
    db.run(
      `INSERT INTO group_doubt (group_id, hash, epoch, cause, author, voters, seen_ms, vote_ms,
           ask_ms, round) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET cause = excluded.cause, author = excluded.author,
           voters = excluded.voters, vote_ms = excluded.vote_ms, ask_ms = excluded.ask_ms,
           round = excluded.round`,
      row.groupId,
      row.hash,
      row.epoch,
      row.cause,
      row.author,
      row.voters.join(' '),
      row.seenMs,
      row.voteMs ?? null,
      row.askMs ?? null,
      row.round,
    );
  };
  return {
    doubt(groupId, hash) {
      const row = db.get(
        'SELECT * FROM group_doubt WHERE group_id = ? AND hash = ?',
        groupId,
        hash,
      );
      return row === undefined ? undefined : doubtOf(row);
    },
    putDoubt,
    addDoubt(row) {
      const kept = db.get(
        `SELECT count(*) AS count FROM group_doubt WHERE group_id = ? AND cause <> 'APPLIED'`,
        row.groupId,
      );
      if ((kept?.number('count') ?? 0) >= standingBounds.junk) {
        const dropped = db.run(
          `DELETE FROM group_doubt WHERE (group_id, hash) IN (
             SELECT group_id, hash FROM group_doubt
             WHERE group_id = ? AND cause = 'VOID' AND voters = '' AND (epoch < ? OR ? <> 'VOID')
               AND vote_ms IS NULL AND ask_ms IS NULL
             ORDER BY epoch, seen_ms LIMIT 1)`,
          row.groupId,
          row.epoch,
          row.cause,
        );
        if (dropped === 0) return false;
      }
      putDoubt(row);
      return true;
    },
    due: (nowMs) =>
      db
        .all('SELECT * FROM group_doubt WHERE vote_ms <= ? OR ask_ms <= ?', nowMs, nowMs)
        .map(doubtOf),
    nextDueMs: () =>
      db
        .get(
          `SELECT min(at_ms) AS at_ms FROM (SELECT min(vote_ms) AS at_ms FROM group_doubt
           UNION ALL SELECT min(ask_ms) FROM group_doubt)`,
        )
        ?.maybeNumber('at_ms'),
    putForward(latestMs) {
      // Of none and a time, SQL's lesser one is none.
      db.run(
        'UPDATE group_doubt SET vote_ms = min(vote_ms, ?), ask_ms = min(ask_ms, ?)',
        latestMs,
        latestMs,
      );
    },
    votes: (groupId, hash) =>
      db
        .all('SELECT * FROM group_vote WHERE group_id = ? AND hash = ?', groupId, hash)
        .map((row) => ({
          device: row.bytes('device'),
          userId: row.text('user_id'),
          isApplied: row.number('applied') === 1,
          signature: row.bytes('signature'),
        })),
    addVote(groupId, hash, { device, userId, isApplied, signature }) {
      const added = db.run(
        `INSERT OR IGNORE INTO group_vote (group_id, hash, device, applied, user_id, signature)
         VALUES (?, ?, ?, ?, ?, ?)`,
        groupId,
        hash,
        device,
        isApplied ? 1 : 0,
        userId,
        signature,
      );
      return added > 0;
    },
    returns: (groupId) =>
      db
        .all(
          `SELECT * FROM group_doubt WHERE group_id = ? AND cause = 'APPLIED'
             AND (ask_ms IS NOT NULL OR round > 0)`,
          groupId,
        )
        .map(doubtOf),
    settleReturns(groupId) {
      db.run(
        `UPDATE group_doubt SET ask_ms = NULL, round = 0 WHERE group_id = ? AND cause = 'APPLIED'`,
        groupId,
      );
    },
    junkEpochs: (groupId, below) =>
      db
        .get(
          `SELECT count(DISTINCT epoch) AS epochs FROM group_doubt
           WHERE group_id = ? AND cause <> 'APPLIED' AND epoch < ?`,
          groupId,
          below,
        )
        ?.number('epochs') ?? 0,
    dropBelow(groupId, epoch) {
      db.run(
        `DELETE FROM group_doubt WHERE group_id = ? AND epoch < ?
           AND NOT (cause = 'APPLIED' AND (ask_ms IS NOT NULL OR round > 0))`,
        groupId,
        epoch,
      );
    },
  };
}
