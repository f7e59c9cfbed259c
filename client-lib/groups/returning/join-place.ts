/**
 * Where a device that lost its place may come back: the end of the group's certified log, and what a hub keeps
 * there for such devices, checked against each other and against what this device saw last.
 */
import {
  hasReason,
  parseEntry,
  QpcError,
  sameBytes,
  Status,
  TransportError,
  verifyCertified,
  type ErrorOptions,
  type ParsedEntry,
  type SigningKey,
} from '@quicprochat/proto';
import type { CertifiedEntry } from '@quicprochat/proto/messages';
import { parseEnvelope } from '../../crypto/envelope.ts';
import type { Caller } from '../../dial.ts';
import type { MlsGroup } from '../../mls/index.ts';
import type { ClientStore } from '../../store/store.ts';
import { openJoinState, type JoinKeys } from './group-info.ts';
import type { LogView } from '../log/group-log.ts';
import { controlOf } from '../log/group-walker.ts';
import { callGroupInfo, logBehind } from '../log/hub-calls.ts';
import type { HubKeys } from '../log/hub-keys.ts';
import type { HubLanes, Turn } from '../log/hub-lanes.ts';
import type { HubRepair } from '../hubs/hub-repair.ts';

export interface JoinPlaceParts {
  readonly store: ClientStore;
  readonly caller: Caller;
  readonly hubKeys: HubKeys;
  readonly lanes: HubLanes;
  readonly repair: Pick<HubRepair, 'want'>;
}

/** Where a device may come back: the end of a log, and what its hub keeps of it. */
export interface JoinPlace {
  /** Domain that showed it. */
  readonly hub: string;
  readonly tip: ParsedEntry;
  readonly certified: CertifiedEntry;
  readonly groupInfo: Uint8Array;
  readonly keys: JoinKeys;
  /** Of the group's channel, if it has one. */
  readonly writeKey: SigningKey | undefined;
  /** What envelopes of the tip's epoch are named by (8 bytes). */
  readonly channelKeyId: Uint8Array;
  /** The group's join key, which stays. */
  readonly key: Uint8Array;
}

/** It cannot come back now; `reason` says why. */
export class ResyncError extends QpcError {
  override name = 'ResyncError';
  /** The certified end of the log, if that is what is of no use. */
  end: CertifiedEntry | undefined;
  /** Id (8 bytes) of the join key that opens what the hub keeps, where this device has another one. */
  keyId: Uint8Array | undefined;
  constructor(reason: string, message: string, options?: ErrorOptions) {
    super(Status.FailedPrecondition, reason, `coming back: ${message}`, options);
  }
}

/** The end of the log, and what its hub keeps of it. Throws ResyncError, and what the hub answers. */
export async function findJoinPlace(
  parts: JoinPlaceParts,
  { group, head }: LogView,
  signal: AbortSignal,
): Promise<JoinPlace> {
  const { store, lanes } = parts;
  const { groupId } = group;
  const key = store.resync.joinKey(groupId);
  if (key === undefined) throw new ResyncError('NO_JOIN_KEY', 'nobody told this device the key');
  let failure: QpcError | undefined;
  let best: JoinPlace | undefined;
  // One of several hubs may be behind, or show an older end: the newest one of all counts.
  for (const hub of group.hubs) {
    try {
      const place = await lanes.run(hub, signal, (turn) =>
        placeAt(parts, hub, { group, head, key }, turn, signal),
      );
      if (best === undefined || place.tip.epoch > best.tip.epoch) best = place;
    } catch (error) {
      if (!(error instanceof QpcError) || signal.aborted) throw error;
      if (failure === undefined || epochOf(error) >= epochOf(failure)) failure = error;
    }
  }
  if (best !== undefined && (failure === undefined || best.tip.epoch >= epochOf(failure))) {
    return best;
  }
  throw failure ?? new TransportError('protocol', 'a group without a hub');
}

/** Of the end of the log that is of no use, if that is what is wrong. */
function epochOf(error: QpcError): number {
  const end = error instanceof ResyncError ? error.end : undefined;
  return end === undefined ? -1 : parseEntry(end.entry).epoch;
}

async function placeAt(
  parts: JoinPlaceParts,
  hub: string,
  { group, head, key }: LogView & { readonly key: Uint8Array },
  turn: Turn,
  signal: AbortSignal,
): Promise<JoinPlace> {
  const { store, caller, repair } = parts;
  const { groupId, hubs } = group;
  let last = controlOf(store.groupLog.head(groupId) ?? noControl).entry;
  for await (const page of logBehind(caller, { hub, groupId, after: head.hash }, signal)) {
    last = page.at(-1)?.entry ?? last;
    turn.check();
  }
  const { entry: tip, certified } = await verifiedEntry(parts, last, group);
  if (tip.epoch < head.epoch && hubs.length === 1) repair.want({ groupId, hub, head });
  if (tip.epoch < head.epoch) throw new ResyncError('HUB_BEHIND', `${hub} lost entries`);
  const info = await callGroupInfo(caller, { hub, groupId, after: tip.hash }, signal);
  return atEnd(certified, () => {
    if (info.sealed.length === 0 || info.hasMore || !sameBytes(info.entry, tip.hash)) {
      throw new ResyncError('NO_GROUP_INFO', `${hub} has none of the newest entry`);
    }
    const { keys, ...state } = open(info.sealed, key);
    // Only who was in the epoch knows the secret behind the key that its certified entry names.
    if (!sameBytes(keys.signing.publicKey, tip.entry.joinCommitPub)) {
      throw forged('of another entry');
    }
    return { ...state, keys, hub, tip, certified, key };
  });
}

/** What is wrong there is said of this end of the log. */
export async function atEnd<T>(certified: CertifiedEntry, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ResyncError) error.end = certified;
    throw error;
  }
}

/** The entry, by hubs of the group. Throws InvalidArgumentError BAD_SIGNATURE for what the group's hubs did not certify. */
export async function verifiedEntry(
  { hubKeys, caller }: Pick<JoinPlaceParts, 'hubKeys' | 'caller'>,
  certified: CertifiedEntry | undefined,
  group: MlsGroup,
): Promise<{ readonly entry: ParsedEntry; readonly certified: CertifiedEntry }> {
  if (certified === undefined) throw new TransportError('protocol', 'an entry is missing');
  const verify = (): ParsedEntry => verifyCertified(certified, group.hubs, hubKeys.of);
  try {
    return { entry: verify(), certified };
  } catch (error) {
    if (!hasReason(error, 'BAD_SIGNATURE')) throw error;
    for (const hub of group.hubs) await hubKeys.learn(hub, caller);
    return { entry: verify(), certified };
  }
}

const noControl = { control: new Uint8Array(0) };

/** Throws ResyncError NO_JOIN_KEY or FORGED_GROUP_INFO. */
function open(sealed: Uint8Array, key: Uint8Array): ReturnType<typeof openJoinState> {
  try {
    return openJoinState(sealed, key);
  } catch (error) {
    if (hasReason(error, 'UNKNOWN_KEY')) {
      const text = 'the key is another one since somebody was removed';
      const lacking = new ResyncError('NO_JOIN_KEY', text);
      lacking.keyId = parseEnvelope(sealed).keyId;
      throw lacking;
    }
    if (hasReason(error, 'BAD_ENVELOPE')) throw forged(error.message);
    throw error;
  }
}

export function forged(what: string): ResyncError {
  return new ResyncError('FORGED_GROUP_INFO', what);
}
