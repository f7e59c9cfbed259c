/** Tables `conversation`, `mls_*`, `envelope_key` and `passed_key` of the device store. */
import type { Database, Row } from './database.ts';
import type { PastEpoch } from '../mls/index.ts';

export interface ConversationRecord {
  /** Id of the conversation's first group (32 bytes). */
  readonly id: Uint8Array;
  readonly groupId: Uint8Array;
  readonly suite: number;
  readonly name: string;
  /** User id of who created it, or, where this device was invited, of who did that. */
  readonly creator: string;
  readonly joinedMs: number;
  /** `n` of the last own message; 0 = none. */
  readonly sentCount: number;
  readonly lamport: number;
  /**
   * When this store was found to be an older copy of itself: keys that it would seal with next may have
   * sealed something already. Undefined: they have not, or the epoch is another one since.
   */
  readonly staleMs?: number | undefined;
  /** Why nothing can be sent here any more; undefined: this device is a member. */
  readonly ended?: ConversationEnd | undefined;
}

/**
 * REMOVED by somebody, LEFT by the own will, BEHIND: the others went on behind a commit that this device
 * cannot apply, until it came back, OLD: from before group logs.
 */
export type ConversationEnd = 'REMOVED' | 'LEFT' | 'BEHIND' | 'OLD';

/** Encoded MLS state of one group; `past` only lists what is to be written or was read. */
export interface StoredGroup {
  readonly epoch: bigint;
  readonly cold: Uint8Array;
  readonly hot: Uint8Array;
  readonly past: readonly StoredPastEpoch[];
}

export interface StoredPastEpoch {
  readonly epoch: bigint;
  readonly bytes: Uint8Array;
}

/** A channel envelope key of one kept epoch. */
export interface EnvelopeKey {
  readonly keyId: Uint8Array;
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly key: Uint8Array;
}

export interface GroupRows {
  conversations(): readonly ConversationRecord[];
  conversation(id: Uint8Array): ConversationRecord | undefined;
  conversationOfGroup(groupId: Uint8Array): ConversationRecord | undefined;
  addConversation(conversation: ConversationRecord): void;
  /** Own counter and logical clock; both only rise. */
  advance(id: Uint8Array, sentCount: number, lamport: number): void;
  /** Who was removed and invited again goes on: history and counters stay. */
  rejoin(conversation: Pick<ConversationRecord, 'id' | 'suite' | 'name'>): void;
  setName(id: Uint8Array, name: string): void;
  /** Undefined: it can be written to again. */
  setEnded(id: Uint8Array, ended: ConversationEnd | undefined): void;
  /** Every conversation is stale from now on. */
  markStale(nowMs: number): void;
  /** The group is in an epoch that its lost copy never was in. */
  clearStale(groupId: Uint8Array): void;
  state(groupId: Uint8Array): StoredGroup | undefined;
  /** Without reading the state. */
  epoch(groupId: Uint8Array): bigint | undefined;
  putCold(groupId: Uint8Array, epoch: bigint, bytes: Uint8Array): void;
  putHot(groupId: Uint8Array, bytes: Uint8Array): void;
  /** The end of the epoch is when it is first put. */
  putPast(groupId: Uint8Array, epoch: bigint, bytes: Uint8Array, nowMs: number): void;
  /** Oldest first. */
  pastEpochs(groupId: Uint8Array): readonly PastEpoch[];
  /** Forgets past epochs, envelope keys and log entries of epochs below `epoch`. */
  dropEpochsBelow(groupId: Uint8Array, epoch: bigint): void;
  putEnvelopeKey(key: EnvelopeKey): void;
  envelopeKeys(keyId: Uint8Array): readonly EnvelopeKey[];
  /** A key of this id went with its epoch. Of so many known as `groupBounds` says. */
  isPassedKey(keyId: Uint8Array): boolean;
}

export const groupBounds = {
  /** Ids of envelope keys that are gone; beyond, the oldest are forgotten. */
  passedKeys: 8192,
} as const;

function conversationOf(row: Row): ConversationRecord {
  return {
    id: row.bytes('id'),
    groupId: row.bytes('group_id'),
    suite: row.number('suite'),
    name: row.text('name'),
    creator: row.text('creator'),
    joinedMs: row.number('joined_ms'),
    sentCount: row.number('sent_count'),
    lamport: row.number('lamport'),
    staleMs: row.maybeNumber('stale_ms'),
    ended: row.isNull('ended') ? undefined : (row.text('ended') as ConversationEnd),
  };
}

export function groupRows(db: Database): GroupRows {
  return {
    conversations: () =>
      db.all('SELECT * FROM conversation ORDER BY joined_ms, id').map(conversationOf),
    conversation(id) {
      const row = db.get('SELECT * FROM conversation WHERE id = ?', id);
      return row === undefined ? undefined : conversationOf(row);
    },
    conversationOfGroup(groupId) {
      const row = db.get('SELECT * FROM conversation WHERE group_id = ?', groupId);
      return row === undefined ? undefined : conversationOf(row);
    },
    addConversation(conversation) {
      db.run(
        `INSERT INTO conversation (id, group_id, suite, name, creator, joined_ms,
           sent_count, lamport) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
        conversation.id,
        conversation.groupId,
        conversation.suite,
        conversation.name,
        conversation.creator,
        conversation.joinedMs,
        conversation.sentCount,
        conversation.lamport,
      );
    },
    advance(id, sentCount, lamport) {
      db.run(
        `UPDATE conversation SET sent_count = max(sent_count, ?), lamport = max(lamport, ?)
         WHERE id = ?`,
        sentCount,
        lamport,
        id,
      );
    },
    rejoin({ id, suite, name }) {
      db.run(
        `UPDATE conversation SET suite = ?, name = ?, ended = NULL, stale_ms = NULL WHERE id = ?`,
        suite,
        name,
        id,
      );
    },
    setName(id, name) {
      db.run('UPDATE conversation SET name = ? WHERE id = ?', name, id);
    },
    setEnded(id, ended) {
      db.run('UPDATE conversation SET ended = ? WHERE id = ?', ended ?? null, id);
    },
    markStale(nowMs) {
      db.run('UPDATE conversation SET stale_ms = ?', nowMs);
    },
    clearStale(groupId) {
      db.run('UPDATE conversation SET stale_ms = NULL WHERE group_id = ?', groupId);
    },
    state(groupId) {
      const cold = db.get('SELECT epoch, bytes FROM mls_cold WHERE group_id = ?', groupId);
      const hot = db.get('SELECT bytes FROM mls_hot WHERE group_id = ?', groupId);
      if (cold === undefined || hot === undefined) return undefined;
      const past = db.all(
        'SELECT epoch, bytes FROM mls_past WHERE group_id = ? ORDER BY epoch',
        groupId,
      );
      return {
        epoch: BigInt(cold.number('epoch')),
        cold: cold.bytes('bytes'),
        hot: hot.bytes('bytes'),
        past: past.map((row) => ({
          epoch: BigInt(row.number('epoch')),
          bytes: row.bytes('bytes'),
        })),
      };
    },
    epoch(groupId) {
      const row = db.get('SELECT epoch FROM mls_cold WHERE group_id = ?', groupId);
      return row === undefined ? undefined : BigInt(row.number('epoch'));
    },
    putCold(groupId, epoch, bytes) {
      db.run('INSERT OR REPLACE INTO mls_cold VALUES (?, ?, ?)', groupId, Number(epoch), bytes);
    },
    putHot(groupId, bytes) {
      db.run('INSERT OR REPLACE INTO mls_hot VALUES (?, ?)', groupId, bytes);
    },
    putPast(groupId, epoch, bytes, nowMs) {
      db.run(
        `INSERT INTO mls_past (group_id, epoch, bytes, ended_ms) VALUES (?, ?, ?, ?)
         ON CONFLICT (group_id, epoch) DO UPDATE SET bytes = excluded.bytes`,
        groupId,
        Number(epoch),
        bytes,
        nowMs,
      );
    },
    pastEpochs: (groupId) =>
      db
        .all('SELECT epoch, ended_ms FROM mls_past WHERE group_id = ? ORDER BY epoch', groupId)
        .map((row) => ({ epoch: BigInt(row.number('epoch')), endedMs: row.number('ended_ms') })),
    dropEpochsBelow(groupId, epoch) {
      const below = Number(epoch);
      db.run('DELETE FROM mls_past WHERE group_id = ? AND epoch < ?', groupId, below);
      db.run(
        `INSERT INTO passed_key (key_id)
         SELECT key_id FROM envelope_key WHERE group_id = ? AND epoch < ? ORDER BY epoch
         ON CONFLICT DO NOTHING`,
        groupId,
        below,
      );
      db.run(
        'DELETE FROM passed_key WHERE id <= (SELECT max(id) FROM passed_key) - ?',
        groupBounds.passedKeys,
      );
      db.run('DELETE FROM envelope_key WHERE group_id = ? AND epoch < ?', groupId, below);
      db.run('DELETE FROM group_head WHERE group_id = ? AND epoch < ?', groupId, below);
    },
    putEnvelopeKey({ keyId, groupId, epoch, key }) {
      db.run(
        'INSERT OR REPLACE INTO envelope_key VALUES (?, ?, ?, ?)',
        keyId,
        groupId,
        Number(epoch),
        key,
      );
    },
    isPassedKey: (keyId) =>
      db.get('SELECT 1 FROM passed_key WHERE key_id = ?', keyId) !== undefined,
    envelopeKeys: (keyId) =>
      db.all('SELECT * FROM envelope_key WHERE key_id = ?', keyId).map((row) => ({
        keyId: row.bytes('key_id'),
        groupId: row.bytes('group_id'),
        epoch: BigInt(row.number('epoch')),
        key: row.bytes('key'),
      })),
  };
}
