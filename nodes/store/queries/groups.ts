/**
 * The hub's side of a group log (docs: protocol/group-log): one child for each parent, and in the
 * transaction that accepts it the certificate, the rows that carry the commit, the Welcomes, the
 * ChannelUpdates and the GroupInfo. Where they go is groups-delivery.ts.
 */
import {
  checkEntry,
  checkRoom,
  commitHash,
  ConflictError,
  groupLogLimits,
  hubsViolation,
  InvalidArgumentError,
  NotFoundError,
  ResourceExhaustedError,
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
import type { AcceptedCommit, GroupLogPage, OfferedCommit } from '../group-store.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { GroupDelivery } from './groups-delivery.ts';
import { IncomingPayload, type PayloadQueries } from './payloads.ts';

const dayMs = 24 * 3600 * 1000;

export const groupBounds = {
  /** What is kept of a log: so many entries, and for so long; the newest ones in any case. */
  entriesMax: 1_000,
  entryAgeMs: 90 * dayMs,
  entriesMin: 8,
  /** Groups that one device made here. */
  perCreator: 4_096,
  /** Entries and bytes of one page, and of a conflict's details. */
  pageEntries: groupLogLimits.pageEntries,
  pageBytes: 512 * 1024,
} as const;

interface EntryRow {
  readonly position: number;
  readonly hash: Uint8Array;
  readonly epoch: number;
  readonly next_commit_pub: Uint8Array;
  readonly join_commit_pub: Uint8Array;
  readonly control: number;
}

type GroupOperations = Pick<Operations, 'createGroup' | 'submitCommit' | 'groupLog' | 'groupInfo'>;

export function groupQueries(
  { db, needRoom, needLastRoom }: QueryContext,
  payloads: PayloadQueries,
  delivery: GroupDelivery,
): GroupOperations & { sweep(nowMs: number): void } {
  const columns = 'position, hash, epoch, next_commit_pub, join_commit_pub, control';
  const groupOf = db
    .prepare<[Uint8Array], number>('SELECT id FROM hub_group WHERE group_id = ?')
    .pluck();
  const insertGroup = db.prepare<[Uint8Array, string, number]>(
    'INSERT INTO hub_group (group_id, hubs, creator) VALUES (?, ?, ?)',
  );
  const deviceOf = db
    .prepare<[Uint8Array], number>('SELECT id FROM device WHERE identity_pub = ?')
    .pluck();
  const groupsOf = db
    .prepare<[number], number>('SELECT count(*) FROM hub_group WHERE creator = ?')
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
  const after = db.prepare<[number, number, number], EntryRow>(
    `SELECT ${columns} FROM hub_entry WHERE hub_group = ? AND position > ?
      ORDER BY position LIMIT ?`,
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
       (SELECT max(position) FROM hub_entry WHERE hub_group = entry.hub_group) - ? LIMIT ?`,
  );
  const removeEntry = db.prepare<[number]>('DELETE FROM hub_entry WHERE id = ?');
  const putInfo = db.prepare<[number, Uint8Array, Uint8Array]>(
    'INSERT OR REPLACE INTO hub_group_info (hub_group, entry, bytes) VALUES (?, ?, ?)',
  );
  const infoOf = db.prepare<[number], { readonly entry: Uint8Array; readonly bytes: Uint8Array }>(
    'SELECT entry, bytes FROM hub_group_info WHERE hub_group = ?',
  );

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

  function page(group: number, position: number, maxEntries: number): GroupLogPage {
    const controls: Uint8Array[] = [];
    let bytes = 0;
    const rows = after.all(group, position, Math.min(maxEntries, groupBounds.pageEntries) + 1);
    for (const row of rows) {
      const control = controlOf(row);
      bytes += control.length;
      const isFull = controls.length >= maxEntries || bytes > groupBounds.pageBytes;
      if (controls.length > 0 && isFull) return { controls, hasMore: true };
      controls.push(control);
    }
    return { controls, hasMore: false };
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
  ): void {
    const { entry, epoch, hash } = parsed;
    const position = (newest.get(group) ?? 0) + 1;
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

  /** Everything that can refuse a commit; it only reads. */
  function check(group: number, { parsed, commit }: OfferedCommit): void {
    const { entry } = parsed;
    if (Buffer.compare(commitHash(commit), entry.commitHash) !== 0) {
      throw new InvalidArgumentError('BAD_FIELD', 'entry: commitHash is not that of the commit');
    }
    const parent = byHash.get(group, entry.parent);
    // A parent that was never here, or is no longer: what is here is the answer.
    if (parent === undefined) throw conflict(group, 0);
    const { hash, epoch, next_commit_pub: nextCommitPub, join_commit_pub: joinCommitPub } = parent;
    checkEntry(parsed, { hash, epoch, nextCommitPub, joinCommitPub });
    try {
      checkRoom(parsed, childrenOf.all(group, entry.parent));
    } catch (error) {
      throw error instanceof ConflictError ? conflict(group, parent.position) : error;
    }
  }

  return {
    createGroup(nowMs, { parsed, certified, hubs, creator }) {
      needBytes(creator, storeBounds.ridBytes, 'creator');
      checkEntry(parsed, undefined);
      const wrongHubs = hubsViolation(hubs);
      if (wrongHubs !== undefined) {
        throw new InvalidArgumentError('BAD_FIELD', `hubs: ${wrongHubs}`);
      }
      const known0 = groupOf.get(parsed.entry.group);
      if (known0 !== undefined) {
        const row = byHash.get(known0, parsed.hash);
        if (row !== undefined) return known(row);
        throw new ConflictError('NAME_TAKEN', 'the group is there with another beginning');
      }
      const device = deviceOf.get(creator);
      if (device === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'no device of this node');
      if ((groupsOf.get(device) ?? 0) >= groupBounds.perCreator) {
        throw new ResourceExhaustedError('QUOTA', 'the device made too many groups');
      }
      needRoom();
      insertGroup.run(parsed.entry.group, hubs.join(' '), device);
      const control = encodeControl(certified, new Uint8Array(0));
      insert(nowMs, needGroup(parsed.entry.group), parsed, new IncomingPayload(control));
      return { isNew: true, control };
    },

    submitCommit(nowMs, offered) {
      const { parsed, certified, commit, groupInfo } = offered;
      const group = needGroup(parsed.entry.group);
      const before = byCommit.get(group, parsed.entry.commitHash);
      if (before !== undefined) return known(before);
      check(group, offered);
      const prepared = delivery.prepare(nowMs, offered);
      // Commits are taken longer than messages: without them nothing can be read.
      needLastRoom();
      const control = new IncomingPayload(encodeControl(certified, commit));
      insert(nowMs, group, parsed, control);
      prepared.deliver(control);
      if (groupInfo.length > 0) putInfo.run(group, parsed.hash, groupInfo);
      return { isNew: true, control: control.bytes };
    },

    groupLog(_nowMs, groupId, afterHash, maxEntries) {
      const group = needGroup(groupId);
      const position = byHash.get(group, afterHash)?.position ?? 0;
      return page(group, position, maxEntries);
    },

    groupInfo(_nowMs, groupId) {
      return infoOf.get(needGroup(groupId));
    },

    sweep(nowMs) {
      const { entryAgeMs, entriesMin } = groupBounds;
      for (const row of aged.all(nowMs - entryAgeMs, entriesMin, storeBounds.sweepRows)) {
        forget(row);
      }
    },
  };
}

function encodeControl(entry: CertifiedEntry, commit: Uint8Array): Uint8Array {
  return toBinary(GroupControlSchema, create(GroupControlSchema, { entry, commit }));
}
