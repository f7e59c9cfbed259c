/**
 * A Welcome of an epoch that this device's group has behind it (docs/protocol/delivery.md, "Rows that nothing opens any
 * more"): of an invitation that a later one overtook. It is needed for nothing, whatever its people and hubs are
 * waited for; where it opens, it says what came under its epoch's key, and its KeyPackage has been used.
 */
import { parseEntry, sameBytes } from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  type CertifiedEntry,
  type GroupEntry,
} from '@quicprochat/proto/messages';
import { hasNoWord } from '../../contacts/first-contact.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { never, verdictOf } from '../../receiving/row-verdict.ts';
import type { Joined, Mls } from '../../mls/index.ts';
import type { ParkedRow } from '../../store/inbox-rows.ts';
import type { ClientStore } from '../../store/store.ts';
import type { Batch } from '../../writer.ts';

export interface OvertakenParts {
  readonly store: ClientStore;
  readonly mls: Mls;
  /** What waits for this group may go on. */
  readonly onMoved: (groupId: Uint8Array) => void;
}

/**
 * Whether the group of the entry is known and as far. A Welcome counts beside no other entry than that of its epoch,
 * so nothing is lost by one that lies.
 */
export function isOvertaken(certified: CertifiedEntry | undefined, batch: Batch): boolean {
  const named = hasNoWord(certified) ? undefined : nameOf(certified);
  const group = named && batch.group(named.group);
  return named !== undefined && group?.isActive === true && named.epoch <= group.epoch;
}

/** Undefined for what is no entry: the Welcome beside it says that better. */
function nameOf(
  certified: CertifiedEntry | undefined,
): Pick<GroupEntry, 'group' | 'epoch'> | undefined {
  try {
    return parseEntry(certified?.entry).entry;
  } catch {
    return undefined;
  }
}

/** `open`: everything that is to be right about it. Throws a verdict where that is not so, or not known. */
export async function letGo(
  { store, mls, onMoved }: OvertakenParts,
  batch: Batch,
  open: () => Promise<Joined>,
): Promise<() => void> {
  let opened: Joined;
  try {
    opened = await open();
  } catch (error) {
    if (verdictOf(error) === undefined) throw error;
    throw never('ALREADY_MEMBER');
  }
  const { group, ref, isLastResort } = opened;
  const { groupId, epoch } = group;
  const key = await envelopeKeyOf(mls, group);
  return () => {
    batch.write(() => {
      if (!isLastResort) store.keys.consumeKeyPackage(ref, batch.nowMs);
      // Of an epoch that it was in this device has the key, and nobody gives it another one.
      const isNews = store.groupLog.headAt(groupId, Number(epoch)) === undefined;
      if (isNews) store.groups.putEnvelopeKey(key);
    });
    // What waits under that key is of an epoch that is over.
    batch.after(() => onMoved(groupId));
  };
}

/** Whether a row waits for people or hubs of an epoch that the group, which is at `epoch`, has behind it. */
export function isOfPast(
  { reason, payload }: ParkedRow,
  groupId: Uint8Array,
  epoch: number,
): boolean {
  if (reason !== 'UNKNOWN_USER' && reason !== 'UNKNOWN_HUB') return false;
  const named = nameOf(entryIn(payload));
  return named !== undefined && sameBytes(named.group, groupId) && named.epoch <= BigInt(epoch);
}

function entryIn(payload: Uint8Array): CertifiedEntry | undefined {
  try {
    return fromBinary(GroupControlSchema, payload).entry;
  } catch {
    return undefined;
  }
}
