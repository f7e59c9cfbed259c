/**
 * Lines of the history about groups, as stores write them: entries that a hub accepted, epochs that a
 * device is in and those that it is taken out at, what it wants changed and what became of that.
 */
import type {
  BatchOutcome,
  OperationRequest,
  OperationResult,
} from '@quicprochat/nodes/store/simulation';
import { restoreGroup } from '@quicprochat/client-lib/mls';
import type { ClientStore } from '@quicprochat/client-lib/store';
import { hex, parseEntry, type ParsedEntry } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import type { EntryAccepted, HistoryLine } from '../checkers/index.ts';
import { takenEntries } from './taken-entries.ts';

/** When it is, and names for bytes (`Trace`). */
interface Labels {
  readonly nowMs: number;
  readonly label: (what: string, bytes: Uint8Array) => string;
}

/** What a transaction of a node's store has accepted. */
export function acceptedEntries(
  node: string,
  { nowMs: atMs, label }: Labels,
  requests: readonly OperationRequest[],
  outcome: BatchOutcome,
): EntryAccepted[] {
  const line = ({ hash, epoch, entry }: ParsedEntry, hubs: number): EntryAccepted => ({
    kind: 'entry',
    atMs,
    node,
    group: hex(entry.group),
    epoch,
    hash: label('entry', hash),
    parent: label('entry', entry.parent),
    rejects: entry.rejects.map((rejected) => label('entry', rejected)),
    hubs,
  });
  return requests.flatMap(({ name, args }, index) => {
    const one = outcome.outcomes[index];
    if (one?.isOk !== true) return [];
    switch (name) {
      case 'createGroup':
      case 'submitCommit':
      case 'acceptPrepared': {
        // The operations of these names returned an AcceptedCommit.
        const { control, isNew } = one.value as { readonly control: Uint8Array; isNew: boolean };
        if (!isNew) return [];
        const parsed = parseEntry(fromBinary(GroupControlSchema, control).entry?.entry);
        // One hub of three accepts what was PREPARED, and nothing else.
        return [line(parsed, name === 'acceptPrepared' ? 3 : 1)];
      }
      case 'installEntries':
        // The operation of this name returned the end of the log.
        return takenEntries(args[0], one.value as OperationResult<'installEntries'>).map(
          ({ parsed }) => line(parsed, args[0].hubs.length),
        );
      default:
        return [];
    }
  });
}

type Tell = (line: (atMs: number) => HistoryLine) => void;

/** The tables of a device that a group stands in; `tell` takes what is so once the transaction is durable. */
export function watchedGroups(
  inner: ClientStore,
  device: string,
  label: Labels['label'],
  tell: Tell,
): Pick<ClientStore, 'groupLog' | 'groups'> {
  const { groupLog, groups } = inner;
  return {
    groupLog: {
      ...groupLog,
      putHead(groupId, head) {
        groupLog.putHead(groupId, head);
        const { epoch, hash } = head;
        tell((atMs) => {
          const group = hex(groupId);
          const of = { device, group, epoch, hash: label('entry', hash) };
          const keys = authenticatorAt(inner, groupId, epoch);
          const authenticator = keys && label('keys', keys);
          return { kind: 'epoch', atMs, ...of, ...(authenticator && { authenticator }) };
        });
      },
      putPending(pending) {
        groupLog.putPending(pending);
        const group = hex(pending.groupId);
        const { parent, commitHash } = pending;
        const of = { device, group, parent: label('entry', parent) };
        const commit = label('commit', commitHash);
        tell((atMs) => ({ kind: 'sealed', atMs, ...of, commit }));
      },
      refusePending(commitHash) {
        groupLog.refusePending(commitHash);
        tell((atMs) => ({ kind: 'spent', atMs, device, commit: label('commit', commitHash) }));
      },
      addIntent(intent, nowMs) {
        const id = groupLog.addIntent(intent, nowMs);
        const of = { device, intent: id, group: hex(intent.groupId), what: intent.kind };
        tell((atMs) => ({ kind: 'wanted', atMs, ...of }));
        return id;
      },
      endIntent(id, end, reason, nowMs) {
        groupLog.endIntent(id, end, reason, nowMs);
        const commits = groupLog.intent(id)?.commits ?? 0;
        const of = { device, intent: id, end, commits };
        tell((atMs) => ({
          kind: 'settled',
          atMs,
          ...of,
          ...(reason === undefined ? {} : { reason }),
        }));
      },
    },
    groups: {
      ...groups,
      setEnded(id, ended) {
        groups.setEnded(id, ended);
        const groupId = groups.conversation(id)?.groupId;
        const epoch = groupId && groupLog.head(groupId)?.epoch;
        // Who was alone has no entry that says so.
        if (epoch === undefined) return;
        tell((atMs) => ({ kind: 'removed', atMs, device, conversation: hex(id), epoch }));
      },
    },
  };
}

/** Undefined for an epoch that the device passed, in the same transaction too, or that it is not part of. */
export function authenticatorAt(
  { groups }: ClientStore,
  groupId: Uint8Array,
  epoch: number,
): Uint8Array | undefined {
  if (Number(groups.epoch(groupId)) !== epoch) return undefined;
  const stored = groups.state(groupId);
  if (stored === undefined) return undefined;
  const group = restoreGroup({ cold: stored.cold, hot: stored.hot, past: [] });
  return group.isActive ? group.epochAuthenticator : undefined;
}
