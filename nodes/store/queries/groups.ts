/**
 * A hub of one (docs: protocol/group-log): one child for each parent, and in the transaction that
 * accepts it the certificate, the rows that carry the commit, the Welcomes, the ChannelUpdates and the
 * GroupInfo. Where they go is groups-delivery.ts. Its reads serve hubs of three too (groups-set.ts).
 */
import {
  checkEntry,
  ConflictError,
  FailedPreconditionError,
  hubsViolation,
  InvalidArgumentError,
  NotFoundError,
  ResourceExhaustedError,
} from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { NewGroup } from '../group-store.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { GroupDelivery } from './groups-delivery.ts';
import { encodeControl, groupBounds, type GroupLogQueries } from './groups-log.ts';
import { IncomingPayload } from './payloads.ts';
import { restoredHubQueries } from './restored-hub.ts';

type GroupOperations = Pick<
  Operations,
  | 'createGroup'
  | 'submitCommit'
  | 'holdGroup'
  | 'restoredGroups'
  | 'groupLog'
  | 'groupInfo'
  | 'entryKey'
  | 'childEntries'
>;

export interface GroupQueries extends GroupOperations {
  /** Checks, and writes a group without entries, or says which one is there with those hubs. */
  readonly begin: (group: Omit<NewGroup, 'certified'>) => {
    readonly id: number;
    readonly isNew: boolean;
  };
}

export function groupQueries(
  { db, needRoom, needLastRoom }: QueryContext,
  log: GroupLogQueries,
  delivery: GroupDelivery,
): GroupQueries {
  const insertGroup = db.prepare<[Uint8Array, string, number]>(
    'INSERT INTO hub_group (group_id, hubs, creator) VALUES (?, ?, ?)',
  );
  const hubsOf = db.prepare<[number], string>('SELECT hubs FROM hub_group WHERE id = ?').pluck();
  const deviceOf = db
    .prepare<[Uint8Array], number>('SELECT id FROM device WHERE identity_pub = ?')
    .pluck();
  const groupsOf = db
    .prepare<[number], number>('SELECT count(*) FROM hub_group WHERE creator = ?')
    .pluck();
  const infoOf = db.prepare<[number], { readonly entry: Uint8Array; readonly bytes: Uint8Array }>(
    'SELECT entry, bytes FROM hub_group_info WHERE hub_group = ?',
  );
  const preparedOf = db
    .prepare<[number], Uint8Array>('SELECT hash FROM hub_prepared WHERE hub_group = ?')
    .pluck();

  const restored = restoredHubQueries({ db });
  const wantsEntries = db
    .prepare<[number], number>(
      `SELECT is_learner = 1 AND gave_word = 0 AND hubs LIKE '% %' FROM hub_group WHERE id = ?`,
    )
    .pluck();

  function begin({ parsed, hubs, creator }: Omit<NewGroup, 'certified'>): {
    readonly id: number;
    readonly isNew: boolean;
  } {
    needBytes(creator, storeBounds.ridBytes, 'creator');
    checkEntry(parsed, undefined);
    const wrongHubs = hubsViolation(hubs);
    if (wrongHubs !== undefined) {
      throw new InvalidArgumentError('BAD_FIELD', `hubs: ${wrongHubs}`);
    }
    const id = log.find(parsed.entry.group);
    if (id !== undefined) {
      const hash = preparedOf.get(id);
      const isSame =
        log.byHash(id, parsed.hash) !== undefined ||
        (hash !== undefined && Buffer.compare(hash, parsed.hash) === 0);
      if (isSame && hubsOf.get(id) === hubs.join(' ')) return { id, isNew: false };
      throw new ConflictError('NAME_TAKEN', 'the group is there with another beginning');
    }
    const device = deviceOf.get(creator);
    if (device === undefined) throw new NotFoundError('UNKNOWN_DEVICE', 'no device of this node');
    if ((groupsOf.get(device) ?? 0) >= groupBounds.perCreator) {
      throw new ResourceExhaustedError('QUOTA', 'the device made too many groups');
    }
    needRoom();
    insertGroup.run(parsed.entry.group, hubs.join(' '), device);
    return { id: log.need(parsed.entry.group), isNew: true };
  }

  return {
    begin,

    restoredGroups: restored.restoredGroups,
    holdGroup: (nowMs, groupId) => restored.hold(nowMs, log.need(groupId)),

    createGroup(nowMs, { parsed, certified, hubs, creator, wasCertified = false }) {
      if (hubs.length > 1) throw new InvalidArgumentError('BAD_FIELD', 'hubs: need one');
      const { id, isNew } = begin({ parsed, hubs, creator });
      const row = log.byHash(id, parsed.hash);
      if (row !== undefined) return log.known(row);
      if (!isNew) throw new Error('a hub of one accepts at once');
      const control = encodeControl(certified, new Uint8Array(0));
      log.insert(nowMs, id, parsed, new IncomingPayload(control));
      if (wasCertified) restored.restored(id);
      return { isNew: true, control };
    },

    submitCommit(nowMs, offered) {
      const { parsed, certified, commit, groupInfo, wasCertified = false } = offered;
      const group = log.need(parsed.entry.group);
      if (hubsOf.get(group)?.includes(' ') === true) {
        throw new FailedPreconditionError('TERM_FENCED', 'one hub of three decides nothing alone');
      }
      const before = log.byCommit(group, parsed.entry.commitHash);
      if (before !== undefined) return log.known(before);
      log.check(group, parsed, commit);
      if (!wasCertified) restored.needWhole(nowMs, group);
      const prepared = delivery.prepare(nowMs, offered);
      // Commits are taken longer than messages: without them nothing can be read.
      needLastRoom();
      const control = new IncomingPayload(encodeControl(certified, commit));
      log.insert(nowMs, group, parsed, control);
      prepared.deliver(control);
      log.putInfo(group, parsed.hash, groupInfo);
      if (!wasCertified) restored.whole(group);
      return { isNew: true, control: control.bytes };
    },

    groupLog(_nowMs, groupId, afterHash, maxEntries) {
      const group = log.need(groupId);
      const position = log.byHash(group, afterHash)?.position ?? 0;
      const prepared = preparedOf.get(group);
      return {
        ...log.page(group, position, maxEntries),
        ...(prepared !== undefined && { prepared }),
        ...(wantsEntries.get(group) === 1 && { wantsEntries: true as const }),
      };
    },

    groupInfo(_nowMs, groupId) {
      return infoOf.get(log.need(groupId));
    },

    entryKey(_nowMs, groupId, hash) {
      const group = log.find(groupId);
      const row = group === undefined ? undefined : log.byHash(group, hash);
      if (group === undefined || row === undefined) return undefined;
      return { commitPub: row.next_commit_pub, children: log.childrenOf(group, hash) };
    },

    childEntries(_nowMs, groupId, parent, afterHash, maxEntries) {
      const group = log.need(groupId);
      const position = log.byHash(group, afterHash)?.position ?? 0;
      const { controls, hasMore } = log.page(group, position, maxEntries, parent);
      return { controls, hasMore };
    },
  };
}
