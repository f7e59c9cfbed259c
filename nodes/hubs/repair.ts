/**
 * Accepted entries on their way between hubs of one group, page by page: certificates prove them, so it
 * does not matter who brings them, nor in which term.
 */
import {
  ConflictError,
  groupLogLimits,
  hasReason,
  InvalidArgumentError,
  sameBytes,
  verifyCertified,
  type ParsedEntry,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  type CertifiedEntry,
  type GroupControl,
  type HubSignature,
} from '@quicprochat/proto/messages';
import type { CertifiedCommit, HubState, InstalledEntries, LogEnd } from '../store/group-store.ts';
import { hubLimits, unavailable, type HubParts } from './hub-parts.ts';

/**
 * Throws InvalidArgumentError BAD_FIELD, or BAD_SIGNATURE without the word of a majority; UnavailableError
 * HUB_UNAVAILABLE where one is signed in a hub's name with a key that is not known here (yet): a record comes within minutes.
 */
export function verified(
  { keysOf }: Pick<HubParts, 'keysOf'>,
  hubs: readonly string[],
  controls: readonly GroupControl[],
): CertifiedCommit[] {
  const isUnknown = ({ domain, signPub }: HubSignature): boolean =>
    hubs.includes(domain) && !keysOf(domain).some((key) => sameBytes(key, signPub));
  const check = (entry: CertifiedEntry): ParsedEntry => {
    try {
      return verifyCertified(entry, hubs, keysOf);
    } catch (error) {
      const unknown = entry.signatures.find(isUnknown);
      if (unknown === undefined || !hasReason(error, 'BAD_SIGNATURE')) throw error;
      throw unavailable(`a key of ${unknown.domain} is not known yet`, error);
    }
  };
  return controls.map(({ entry, commit }) => {
    if (entry === undefined) throw new InvalidArgumentError('BAD_FIELD', 'entries: one is missing');
    return { parsed: check(entry), certified: entry, commit };
  });
}

/** As the store's `installEntries`; what contradicts this hub's log may convict somebody together with it. */
export async function install(
  { store, forks }: HubParts,
  installed: InstalledEntries,
): Promise<LogEnd> {
  try {
    return await store.installEntries(installed);
  } catch (error) {
    if (error instanceof ConflictError) {
      const { group, hubs, from } = installed;
      const entries = installed.entries.map(({ certified }) => certified);
      await forks.look({ group, hubs, from, entries });
    }
    throw error;
  }
}

/**
 * Brings another hub, whose log ends at `there`, up to `state`. Throws the other hub's refusal, and
 * UnavailableError HUB_UNAVAILABLE when that does not get anywhere.
 */
export async function push(
  { store, peers }: HubParts,
  domain: string,
  group: Uint8Array,
  state: HubState,
  there: LogEnd,
  signal?: AbortSignal,
): Promise<void> {
  const { hubs } = state;
  const none = new Uint8Array(0);
  let end = there;
  for (let pages = 0; end.position < state.position; pages += 1) {
    const page = await store.groupLog(group, end.head, groupLogLimits.pageEntries);
    if (pages >= hubLimits.repairPages || page.controls.length === 0) break;
    const info = page.hasMore ? undefined : await store.groupInfo(group);
    const answer = await peers.install(
      domain,
      {
        ...{ group, hubs: [...hubs], position: BigInt(page.position) },
        entries: page.controls.map((control) => fromBinary(GroupControlSchema, control)),
        groupInfo: info?.bytes ?? none,
        groupInfoEntry: info?.entry ?? none,
        isRepair: true,
      },
      signal,
    );
    const next = { position: Number(answer.position), head: answer.head };
    if (!(next.position > end.position)) break;
    end = next;
  }
  if (end.position < state.position) throw unavailable(`${domain} does not take the log`);
}

/**
 * Brings this hub up to the log of another one, which said to have `position` entries. Throws what
 * speaks against them, and UnavailableError HUB_UNAVAILABLE when that hub does not show them.
 */
export async function pull(
  parts: HubParts,
  domain: string,
  group: Uint8Array,
  state: HubState,
  position: number,
): Promise<void> {
  const { peers, forks } = parts;
  const { hubs } = state;
  let end: LogEnd = state;
  for (let pages = 0; end.position < position; pages += 1) {
    if (pages >= hubLimits.repairPages) break;
    const request = { group, after: end.head, withGroupInfo: true };
    const page = await peers.log(domain, request);
    if (page.entries.length === 0) break;
    const next = await install(parts, {
      ...{ group, hubs, from: domain, position: Number(page.position) },
      entries: verified(parts, hubs, page.entries),
      groupInfo: page.groupInfo,
      groupInfoEntry: page.groupInfoEntry,
      isRepair: true,
    });
    if (next.position <= end.position) break;
    end = next;
  }
  if (end.position >= position) return;
  // It may not know this hub's newest entry, and have others in its place.
  await forks.compare(domain, group, hubs);
  throw unavailable(`${domain} does not show its log`);
}
