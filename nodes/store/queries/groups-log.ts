/**
 * The log of a group as rows: entries in the order of their acceptance, what can refuse the next one,
 * and pages of it. Who may write when is groups.ts, for a hub of one, and groups-set.ts, for three.
 */
import {
  checkEntry,
  checkRoom,
  commitHash,
  ConflictError,
  factsOf,
  groupLogLimits,
  InvalidArgumentError,
  NotFoundError,
  type ParentFacts,
  type ParsedEntry,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  GroupLogResponseSchema,
  toBinary,
  type CertifiedEntry,
} from '@quicprochat/proto/messages';
import { needBytes, storeBounds } from '../bounds.ts';
import type { AcceptedCommit, GroupLogPage, LogEnd } from '../group-store.ts';
import type { QueryContext } from '../operations.ts';
import type { IncomingPayload, PayloadQueries } from './payloads.ts';

const dayMs = 24 * 3600 * 1000;

export const groupBounds = {
  /** What is kept of a log: so many entries, and for so long; the newest ones in any case. */
  entriesMax: 1_000,
  entryAgeMs: 90 * dayMs,
  entriesMin: 8,
  /** How long a hub that was restored waits for what it lost, once somebody wants a change. */
  heldMs: 2 * 60_000,
  /** Groups that one device made here, and that one peer as their first hub brought here. */
  perCreator: 4_096,
  perPeer: 65_536,
  /** Entries and bytes of one page, and of a conflict's details. */
  pageEntries: groupLogLimits.pageEntries,
  /** Of a page: it fits into one answer with a GroupInfo of 512 KiB, and so does a single entry that is larger. */
  pageBytes: 496 * 1024,
} as const;

export interface EntryRow {
  readonly position: number;
  readonly hash: Uint8Array;
  readonly epoch: number;
  readonly next_commit_pub: Uint8Array;
  readonly join_commit_pub: Uint8Array;
  readonly control: number;
}

export interface GroupLogQueries {
  /** Row id of a group. */
  find(group: Uint8Array): number | undefined;
  /** Throws NotFoundError UNKNOWN_GROUP, InvalidArgumentError BAD_FIELD. */
  need(group: Uint8Array): number;
  end(group: number): LogEnd;
  byHash(group: number, hash: Uint8Array): EntryRow | undefined;
  byCommit(group: number, hash: Uint8Array): EntryRow | undefined;
  at(group: number, position: number): EntryRow | undefined;
  /** As accepted before. */
  known(row: EntryRow): AcceptedCommit;
  /**
   * Everything that can refuse an entry; it only reads. Throws InvalidArgumentError BAD_FIELD or
   * BAD_SIGNATURE, ConflictError EPOCH_CONFLICT with what its committer has to apply.
   */
  check(group: number, parsed: ParsedEntry, commit: Uint8Array): void;
  /**
   * The same for a certified entry behind `others`, which are about to be written: a parent that is
   * held no more counts as right. `group` undefined: none is held.
   */
  checkBehind(
    group: number | undefined,
    others: readonly ParsedEntry[],
    parsed: ParsedEntry,
    commit: Uint8Array,
  ): void;
  /** Writes an entry behind the newest, or at `position` when the log before it is left out. */
  insert(
    nowMs: number,
    group: number,
    parsed: ParsedEntry,
    control: IncomingPayload,
    position?: number,
  ): void;
  /** Hashes, in the order of their acceptance. */
  childrenOf(group: number, parent: Uint8Array): readonly Uint8Array[];
  /** `parent`: its children alone. */
  page(group: number, position: number, maxEntries: number, parent?: Uint8Array): GroupLogPage;
  putInfo(group: number, entry: Uint8Array, bytes: Uint8Array): void;
  /** Forgets all entries. */
  clear(group: number): void;
  sweep(nowMs: number): void;
}

export function groupLogQueries({ db }: QueryContext, payloads: PayloadQueries): GroupLogQueries {
  const columns = 'position, hash, epoch, next_commit_pub, join_commit_pub, control';
  const groupOf = db
    .prepare<[Uint8Array], number>('SELECT id FROM hub_group WHERE group_id = ?')
    .pluck();
  const byHash = db.prepare<[number, Uint8Array], EntryRow>(
    `SELECT ${columns} FROM hub_entry WHERE hub_group = ? AND hash = ?`,
  );
  const byCommit = db.prepare<[number, Uint8Array], EntryRow>(
    `SELECT ${columns} FROM hub_entry WHERE hub_group = ? AND commit_hash = ?`,
  );
  const childrenOf = db
    .prepare<[number, Uint8Array], Uint8Array>(
      'SELECT hash FROM hub_entry WHERE hub_group = ? AND parent = ? ORDER BY position',
    )
    .pluck();
  const newest = db
    .prepare<[number], number | null>('SELECT max(position) FROM hub_entry WHERE hub_group = ?')
    .pluck();
  const oldestEpoch = db
    .prepare<[number], number>(
      'SELECT epoch FROM hub_entry WHERE hub_group = ? ORDER BY position LIMIT 1',
    )
    .pluck();
  const after = db.prepare<[number, number, number], EntryRow>(
    `SELECT ${columns} FROM hub_entry WHERE hub_group = ? AND position > ?
      ORDER BY position LIMIT (? + 0)`,
  );
  const childrenAfter = db.prepare<[number, Uint8Array, number, number], EntryRow>(
    `SELECT ${columns} FROM hub_entry WHERE hub_group = ? AND parent = ? AND position > ?
      ORDER BY position LIMIT (? + 0)`,
  );
  const payloadBytes = db
    .prepare<[number], Uint8Array>('SELECT bytes FROM payload WHERE id = ?')
    .pluck();
  const insertEntry = db.prepare<[Readonly<Record<string, number | bigint | Uint8Array | null>>]>(
    `INSERT INTO hub_entry (hub_group, position, hash, parent, epoch, commit_hash,
                            next_commit_pub, join_commit_pub, control, accepted_ms)
     VALUES (:group, :position, :hash, :parent, :epoch, :commitHash,
             :nextCommitPub, :joinCommitPub, :control, :acceptedMs)`,
  );
  const oldest = db.prepare<[number, number], { readonly id: number; readonly control: number }>(
    'SELECT id, control FROM hub_entry WHERE hub_group = ? AND position <= ?',
  );
  const aged = db.prepare<
    [number, number, number],
    { readonly id: number; readonly control: number }
  >(
    `SELECT id, control FROM hub_entry AS entry WHERE accepted_ms <= ? AND position <=
       (SELECT max(position) FROM hub_entry WHERE hub_group = entry.hub_group) - ? LIMIT (? + 0)`,
  );
  const removeEntry = db.prepare<[number]>('DELETE FROM hub_entry WHERE id = ?');
  const putInfo = db.prepare<[number, Uint8Array, Uint8Array]>(
    'INSERT OR REPLACE INTO hub_group_info (hub_group, entry, bytes) VALUES (?, ?, ?)',
  );
  const atPosition = db.prepare<[number, number], EntryRow>(
    `SELECT ${columns} FROM hub_entry WHERE hub_group = ? AND position = ?`,
  );

  function end(group: number): LogEnd {
    const position = newest.get(group) ?? 0;
    const row = position === 0 ? undefined : atPosition.get(group, position);
    return { position, head: row?.hash ?? new Uint8Array(0) };
  }

  function needGroup(group: Uint8Array): number {
    needBytes(group, groupLogLimits.groupIdBytes, 'group');
    const id = groupOf.get(group);
    if (id === undefined) throw new NotFoundError('UNKNOWN_GROUP', 'this node is not its hub');
    return id;
  }

  function controlOf({ control }: EntryRow): Uint8Array {
    const bytes = payloadBytes.get(control);
    if (bytes === undefined) throw new Error(`payload ${control} is gone while an entry needs it`);
    return bytes;
  }

  function page(
    group: number,
    position: number,
    maxEntries: number,
    parent?: Uint8Array,
  ): GroupLogPage {
    const controls: Uint8Array[] = [];
    let bytes = 0;
    const limit = Math.min(maxEntries, groupBounds.pageEntries) + 1;
    const rows =
      parent === undefined
        ? after.all(group, position, limit)
        : childrenAfter.all(group, parent, position, limit);
    const first = rows[0]?.position ?? 0;
    for (const row of rows) {
      const control = controlOf(row);
      bytes += control.length;
      const isFull = controls.length >= maxEntries || bytes > groupBounds.pageBytes;
      if (controls.length > 0 && isFull) return { position: first, controls, hasMore: true };
      controls.push(control);
    }
    return { position: first, controls, hasMore: false };
  }

  /** The refusal carries what the committer has to apply before it tries again. */
  function conflict(group: number, position: number): ConflictError {
    const { controls, hasMore } = page(group, position, groupBounds.pageEntries);
    const entries = controls.map((bytes) => fromBinary(GroupControlSchema, bytes));
    const response = create(GroupLogResponseSchema, { entries, hasMore });
    return new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch', {
      details: toBinary(GroupLogResponseSchema, response),
    });
  }

  function insert(
    nowMs: number,
    group: number,
    parsed: ParsedEntry,
    control: IncomingPayload,
    position = (newest.get(group) ?? 0) + 1,
  ): void {
    const { entry, epoch, hash } = parsed;
    insertEntry.run({
      ...{ group, position, hash, epoch },
      parent: entry.parent,
      commitHash: epoch === 0 ? null : entry.commitHash,
      nextCommitPub: entry.nextCommitPub,
      joinCommitPub: entry.joinCommitPub,
      control: payloads.refer(control),
      acceptedMs: nowMs,
    });
    for (const row of oldest.all(group, position - groupBounds.entriesMax)) forget(row);
  }

  function forget({ id, control }: { readonly id: number; readonly control: number }): void {
    removeEntry.run(id);
    payloads.release(control);
  }

  function known(row: EntryRow): AcceptedCommit {
    return { isNew: false, control: controlOf(row) };
  }

  function check(group: number, parsed: ParsedEntry, commit: Uint8Array): void {
    const { entry } = parsed;
    if (parsed.epoch === 0) {
      checkCommit(parsed, commit);
      if (end(group).position > 0) throw conflict(group, 0);
      checkEntry(parsed, undefined);
      return;
    }
    checkCommit(parsed, commit);
    const parent = byHash.get(group, entry.parent);
    // A parent that was never here, or is no longer: what is here is the answer.
    if (parent === undefined) throw conflict(group, 0);
    checkEntry(parsed, factsIn(parent));
    try {
      checkRoom(parsed, childrenOf.all(group, entry.parent));
    } catch (error) {
      throw error instanceof ConflictError ? conflict(group, parent.position) : error;
    }
  }

  function checkBehind(
    group: number | undefined,
    others: readonly ParsedEntry[],
    parsed: ParsedEntry,
    commit: Uint8Array,
  ): void {
    const { parent: parentHash } = parsed.entry;
    checkCommit(parsed, commit);
    if (parsed.epoch === 0) {
      checkEntry(parsed, undefined);
      return;
    }
    const held = group === undefined ? undefined : byHash.get(group, parentHash);
    const parent = others.find(({ hash }) => Buffer.compare(hash, parentHash) === 0);
    const facts = parent === undefined ? held && factsIn(held) : factsOf(parent);
    if (facts === undefined) {
      const oldest = (group === undefined ? undefined : oldestEpoch.get(group)) ?? others[0]?.epoch;
      // Only a parent older than all that is held may be one that is held no more.
      if (oldest === undefined || parsed.epoch <= oldest + 1) return;
      throw new InvalidArgumentError('BAD_FIELD', 'entry: its parent is missing before it');
    }
    checkEntry(parsed, facts);
    const siblings = others.filter(({ entry }) => Buffer.compare(entry.parent, parentHash) === 0);
    checkRoom(parsed, [
      ...(group === undefined ? [] : childrenOf.all(group, parentHash)),
      ...siblings.map(({ hash }) => hash),
    ]);
  }

  return {
    find: (group) => groupOf.get(group),
    need: needGroup,
    end,
    byHash: (group, hash) => byHash.get(group, hash),
    byCommit: (group, hash) => byCommit.get(group, hash),
    at: (group, position) => atPosition.get(group, position),
    known,
    check,
    checkBehind,
    insert,
    childrenOf: (group, parent) => childrenOf.all(group, parent),
    page,
    putInfo(group, entry, bytes) {
      if (bytes.length > 0) putInfo.run(group, entry, bytes);
    },
    clear(group) {
      for (const row of oldest.all(group, Number.MAX_SAFE_INTEGER)) forget(row);
    },
    sweep(nowMs) {
      const { entryAgeMs, entriesMin } = groupBounds;
      for (const row of aged.all(nowMs - entryAgeMs, entriesMin, storeBounds.sweepRows)) {
        forget(row);
      }
    },
  };
}

export function encodeControl(entry: CertifiedEntry, commit: Uint8Array): Uint8Array {
  return toBinary(GroupControlSchema, create(GroupControlSchema, { entry, commit }));
}

function factsIn(row: EntryRow): ParentFacts {
  const { hash, epoch, next_commit_pub: nextCommitPub, join_commit_pub: joinCommitPub } = row;
  return { hash, epoch, nextCommitPub, joinCommitPub };
}

function checkCommit({ entry, epoch }: ParsedEntry, commit: Uint8Array): void {
  const isRight =
    epoch === 0 ? commit.length === 0 : Buffer.compare(commitHash(commit), entry.commitHash) === 0;
  if (isRight) return;
  throw new InvalidArgumentError('BAD_FIELD', 'entry: commitHash is not that of the commit');
}
