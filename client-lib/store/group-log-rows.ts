/**
 * Tables `group_head`, `group_intent`, `group_pending`, `group_rekey` and `group_fork` of the device store:
 * where this device stands in the logs of its groups, and what it wants there.
 */
import type { Database, Row } from './database.ts';

export const groupLogBounds = {
  /** Proofs against the hubs of one group that are kept: the first ones say it all. */
  forks: 16,
} as const;

/** An entry of a kept epoch. */
export interface StoredHead {
  readonly epoch: number;
  /** 32 bytes. */
  readonly hash: Uint8Array;
  /** Encoded GroupControl: the certified entry, and its commit unless this device joined at it. */
  readonly control: Uint8Array;
}

export type IntentEnd = 'DONE' | 'SUPERSEDED' | 'REFUSED';

export interface IntentRow {
  readonly id: number;
  readonly groupId: Uint8Array;
  readonly kind: string;
  /** JSON. */
  readonly body: string;
  readonly state: 'OPEN' | IntentEnd;
  readonly reason: string | undefined;
  /** Own commits for it that were accepted. */
  readonly commits: number;
  /** Epochs that another commit won since. */
  readonly lost: number;
  /** Not tried before. */
  readonly dueMs: number;
  readonly createdMs: number;
}

/** An own commit that may have been sent. */
export interface PendingRow {
  readonly commitHash: Uint8Array;
  readonly groupId: Uint8Array;
  readonly intentId: number;
  /** Hash of the entry that it was made on. */
  readonly parent: Uint8Array;
  /** Encoded SubmitCommitRequest. */
  readonly request: Uint8Array;
  /** The intent is done with it. */
  readonly isLast: boolean;
  readonly isRefused: boolean;
  /** The group after it; of past epochs, that of the parent. */
  readonly cold: Uint8Array;
  readonly hot: Uint8Array;
  readonly past: Uint8Array;
  /** MLS Welcome; empty: nobody joins. */
  readonly welcome: Uint8Array;
  /** Under which the hub brings its Welcomes (16 bytes). */
  readonly welcomeMid?: Uint8Array | undefined;
}

export interface RekeyRow {
  readonly groupId: Uint8Array;
  readonly dueMs: number;
  /** Own messages in the conversation by the last time. */
  readonly sentCount: number;
  /** None was made since joining. */
  readonly isFirst: boolean;
}

/** Encoded CertifiedEntries of one place in a log, which the same hubs signed. */
export interface StoredFork {
  readonly groupId: Uint8Array;
  readonly one: Uint8Array;
  readonly other: Uint8Array;
  readonly hubs: readonly string[];
  readonly atMs: number;
}

export interface GroupLogRows {
  /** The entry that the group's state is of. */
  head(groupId: Uint8Array): StoredHead | undefined;
  headAt(groupId: Uint8Array, epoch: number): StoredHead | undefined;
  putHead(groupId: Uint8Array, head: StoredHead): void;
  /** Forgets the entries of this epoch and of later ones. */
  dropHeadsFrom(groupId: Uint8Array, epoch: number): void;

  addIntent(intent: Pick<IntentRow, 'groupId' | 'kind' | 'body' | 'dueMs'>, nowMs: number): number;
  intent(id: number): IntentRow | undefined;
  /** Oldest first. */
  openIntents(groupId: Uint8Array): readonly IntentRow[];
  /** Groups with open intents. */
  busyGroups(): readonly Uint8Array[];
  setIntentDue(id: number, dueMs: number): void;
  /** Another commit won its epoch. */
  addLost(id: number, dueMs: number): void;
  /** An own commit for it was accepted. */
  addCommit(id: number): void;
  endIntent(id: number, state: IntentEnd, reason: string | undefined, nowMs: number): void;
  /** Forgets what ended before then. */
  expireIntents(beforeMs: number): void;

  /** Of one group: refused ones too. */
  pendings(groupId: Uint8Array): readonly PendingRow[];
  pending(commitHash: Uint8Array): PendingRow | undefined;
  /** Replaces one with the same commit. */
  putPending(pending: PendingRow): void;
  refusePending(commitHash: Uint8Array): void;
  deletePendings(groupId: Uint8Array): void;
  /** The Welcome that a hub had under this mid for a device came back, of a commit that is not known to be accepted. */
  bounceWelcome(mid: Uint8Array, rid: Uint8Array): void;
  /** Those devices. */
  bouncedWelcomes(commitHash: Uint8Array): readonly Uint8Array[];

  rekey(groupId: Uint8Array): RekeyRow | undefined;
  putRekey(rekey: RekeyRow): void;
  deleteRekey(groupId: Uint8Array): void;
  dueRekeys(nowMs: number): readonly RekeyRow[];
  nextRekeyMs(): number | undefined;

  /** False when it is known, or enough are. */
  addFork(fork: StoredFork): boolean;
  forks(): readonly StoredFork[];
}

const midBytes = 16;
const ridBytes = 32;
/** As many devices as one commit adds. */
const bouncedMax = 64;

const intentOf = (row: Row): IntentRow => ({
  id: row.number('id'),
  groupId: row.bytes('group_id'),
  kind: row.text('kind'),
  body: row.text('body'),
  state: row.text('state') as IntentRow['state'],
  reason: row.isNull('reason') ? undefined : row.text('reason'),
  commits: row.number('commits'),
  lost: row.number('lost'),
  dueMs: row.number('due_ms'),
  createdMs: row.number('created_ms'),
});

const headOf = (row: Row): StoredHead => ({
  epoch: row.number('epoch'),
  hash: row.bytes('hash'),
  control: row.bytes('control'),
});

const pendingOf = (row: Row): PendingRow => ({
  commitHash: row.bytes('commit_hash'),
  groupId: row.bytes('group_id'),
  intentId: row.number('intent_id'),
  parent: row.bytes('parent'),
  request: row.bytes('request'),
  isLast: row.number('is_last') === 1,
  isRefused: row.number('is_refused') === 1,
  cold: row.bytes('cold'),
  hot: row.bytes('hot'),
  past: row.bytes('past'),
  welcome: row.bytes('welcome'),
  welcomeMid: row.bytes('welcome_mid').length === 0 ? undefined : row.bytes('welcome_mid'),
});

const rekeyOf = (row: Row): RekeyRow => ({
  groupId: row.bytes('group_id'),
  dueMs: row.number('due_ms'),
  sentCount: row.number('sent_count'),
  isFirst: row.number('is_first') === 1,
});

export function groupLogRows(db: Database): GroupLogRows {
  const maybe = <T>(row: Row | undefined, read: (row: Row) => T): T | undefined =>
    row === undefined ? undefined : read(row);
  return {
    head: (groupId) =>
      maybe(
        db.get('SELECT * FROM group_head WHERE group_id = ? ORDER BY epoch DESC LIMIT 1', groupId),
        headOf,
      ),
    headAt: (groupId, epoch) =>
      maybe(
        db.get('SELECT * FROM group_head WHERE group_id = ? AND epoch = ?', groupId, epoch),
        headOf,
      ),
    putHead(groupId, { epoch, hash, control }) {
      db.run(
        'INSERT OR REPLACE INTO group_head (group_id, epoch, hash, control) VALUES (?, ?, ?, ?)',
        groupId,
        epoch,
        hash,
        control,
      );
    },
    dropHeadsFrom(groupId, epoch) {
      db.run('DELETE FROM group_head WHERE group_id = ? AND epoch >= ?', groupId, epoch);
    },

    addIntent({ groupId, kind, body, dueMs }, nowMs) {
      const id = db.insert(
        `INSERT INTO group_intent (group_id, kind, body, state, commits, lost, due_ms, created_ms)
         VALUES (?, ?, ?, 'OPEN', 0, 0, ?, ?)`,
        groupId,
        kind,
        body,
        dueMs,
        nowMs,
      );
      return id ?? 0;
    },
    intent: (id) => maybe(db.get('SELECT * FROM group_intent WHERE id = ?', id), intentOf),
    openIntents: (groupId) =>
      db
        .all(
          `SELECT * FROM group_intent WHERE group_id = ? AND state = 'OPEN' ORDER BY id`,
          groupId,
        )
        .map(intentOf),
    busyGroups: () =>
      db
        .all(`SELECT DISTINCT group_id FROM group_intent WHERE state = 'OPEN'`)
        .map((row) => row.bytes('group_id')),
    setIntentDue(id, dueMs) {
      db.run('UPDATE group_intent SET due_ms = ? WHERE id = ?', dueMs, id);
    },
    addLost(id, dueMs) {
      db.run('UPDATE group_intent SET lost = lost + 1, due_ms = ? WHERE id = ?', dueMs, id);
    },
    addCommit(id) {
      db.run('UPDATE group_intent SET commits = commits + 1, lost = 0 WHERE id = ?', id);
    },
    endIntent(id, state, reason, nowMs) {
      db.run(
        `UPDATE group_intent SET state = ?, reason = ?, ended_ms = ?
         WHERE id = ? AND state = 'OPEN'`,
        state,
        reason ?? null,
        nowMs,
        id,
      );
    },
    expireIntents(beforeMs) {
      db.run(
        `DELETE FROM group_intent WHERE ended_ms < ?
         AND id NOT IN (SELECT intent_id FROM group_pending)`,
        beforeMs,
      );
    },

    pendings: (groupId) =>
      db.all('SELECT * FROM group_pending WHERE group_id = ?', groupId).map(pendingOf),
    pending: (commitHash) =>
      maybe(db.get('SELECT * FROM group_pending WHERE commit_hash = ?', commitHash), pendingOf),
    putPending(pending) {
      db.run(
        `INSERT OR REPLACE INTO group_pending (commit_hash, group_id, intent_id, parent, request,
           is_last, is_refused, cold, hot, past, welcome, welcome_mid)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        pending.commitHash,
        pending.groupId,
        pending.intentId,
        pending.parent,
        pending.request,
        pending.isLast ? 1 : 0,
        pending.isRefused ? 1 : 0,
        pending.cold,
        pending.hot,
        pending.past,
        pending.welcome,
        pending.welcomeMid ?? new Uint8Array(0),
      );
    },
    refusePending(commitHash) {
      db.run('UPDATE group_pending SET is_refused = 1 WHERE commit_hash = ?', commitHash);
    },
    deletePendings(groupId) {
      db.run('DELETE FROM group_pending WHERE group_id = ?', groupId);
    },
    bounceWelcome(mid, rid) {
      if (mid.length !== midBytes || rid.length !== ridBytes) return;
      db.run(
        `UPDATE group_pending SET bounced = CAST(bounced || ? AS BLOB)
         WHERE welcome_mid = ? AND instr(bounced, ?) = 0 AND length(bounced) < ?`,
        rid,
        mid,
        rid,
        bouncedMax * ridBytes,
      );
    },
    bouncedWelcomes(commitHash) {
      const all = db
        .get('SELECT bounced FROM group_pending WHERE commit_hash = ?', commitHash)
        ?.bytes('bounced');
      if (all === undefined) return [];
      return Array.from({ length: all.length / ridBytes }, (_, n) =>
        all.slice(n * ridBytes, (n + 1) * ridBytes),
      );
    },

    rekey: (groupId) =>
      maybe(db.get('SELECT * FROM group_rekey WHERE group_id = ?', groupId), rekeyOf),
    putRekey({ groupId, dueMs, sentCount, isFirst }) {
      db.run(
        `INSERT OR REPLACE INTO group_rekey (group_id, due_ms, sent_count, is_first)
         VALUES (?, ?, ?, ?)`,
        groupId,
        dueMs,
        sentCount,
        isFirst ? 1 : 0,
      );
    },
    deleteRekey(groupId) {
      db.run('DELETE FROM group_rekey WHERE group_id = ?', groupId);
    },
    dueRekeys: (nowMs) =>
      db.all('SELECT * FROM group_rekey WHERE due_ms <= ? ORDER BY due_ms', nowMs).map(rekeyOf),
    nextRekeyMs: () =>
      db.get('SELECT min(due_ms) AS due_ms FROM group_rekey')?.maybeNumber('due_ms'),

    addFork({ groupId, one, other, hubs, atMs }) {
      const added = db.run(
        `INSERT OR IGNORE INTO group_fork (group_id, one, other, hubs, at_ms)
         SELECT ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM group_fork WHERE group_id = ?) < ?`,
        groupId,
        one,
        other,
        hubs.join(' '),
        atMs,
        groupId,
        groupLogBounds.forks,
      );
      return added > 0;
    },
    forks: () =>
      db.all('SELECT * FROM group_fork ORDER BY at_ms').map((row) => ({
        groupId: row.bytes('group_id'),
        one: row.bytes('one'),
        other: row.bytes('other'),
        hubs: row.text('hubs').split(' '),
        atMs: row.number('at_ms'),
      })),
  };
}
