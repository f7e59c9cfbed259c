/**
 * What the leader of three hubs refuses, as another hub hears it (docs: security/hubs, "What it can do"): it counts
 * where that hub finds the same on its own disk, or is shown certified entries that prove it. A leader that
 * refuses what would be accepted here is as good as gone.
 */
import { hasReason, sameBytes, verifyCertified } from '@quicprochat/proto';
import {
  fromBinary,
  GroupLogResponseSchema,
  type GroupControl,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import type { PreparedCommit } from '../store/group-store.ts';
import { isRefusal, isVerdict, type HubParts } from './hub-parts.ts';

/** Who refuses, and what a member wanted. */
export interface Refused {
  readonly leader: string;
  readonly hubs: readonly string[];
  /** Undefined: whether it leads. */
  readonly request: SubmitCommitRequest | undefined;
  /** Device key of this node's device. */
  readonly sender: Uint8Array | undefined;
}

/** Throws the refusal if it counts. */
export async function weigh(parts: HubParts, refusal: unknown, refused: Refused): Promise<void> {
  if (!isVerdict(refusal)) return;
  const { leader, request, sender } = refused;
  if (request === undefined) throw refusal;
  const { store, offers, runtime, forks } = parts;
  try {
    const offered = offers.submitted(request, sender);
    const { hubs } = refused;
    const { group } = offered.parsed.entry;
    const shown = shownBy(refusal);
    await forks.look({ group, hubs, from: leader, entries: shown.map(({ entry }) => entry) });
    if (isProven(parts, shown, hubs, offered)) throw refusal;
    await store.judgeCommit(offered);
  } catch (error) {
    throw isRefusal(error) ? refusal : error;
  }
  runtime.log.warn('the leader of a group refuses what stands here', {
    leader,
    reason: refusal.reason,
  });
}

/** A conflict is proven by an entry that was certified in that place. */
function isProven(
  { keysOf }: HubParts,
  shown: readonly GroupControl[],
  hubs: readonly string[],
  { parsed }: PreparedCommit,
): boolean {
  const isInItsPlace = ({ entry }: GroupControl): boolean => {
    if (entry === undefined) return false;
    const { entry: other } = verifyCertified(entry, hubs, keysOf);
    return sameBytes(other.parent, parsed.entry.parent);
  };
  try {
    return shown.some(isInItsPlace);
  } catch {
    // What is signed by nobody proves nothing.
    return false;
  }
}

/** The entries that are said to be in the way. */
function shownBy(refusal: unknown): readonly GroupControl[] {
  if (!hasReason(refusal, 'EPOCH_CONFLICT') || refusal.details === undefined) return [];
  try {
    return fromBinary(GroupLogResponseSchema, refusal.details).entries;
  } catch {
    return [];
  }
}
