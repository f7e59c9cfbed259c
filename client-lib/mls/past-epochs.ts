/**
 * How long a member can open messages of epochs that are over (RFC 9420 section 9.2 leaves it to the
 * application). Late messages are counted in epochs and in time: a busy group makes dozens of epochs while a
 * node restarts, a quiet one a few in a month.
 */
import type { ClientState } from 'ts-mls';
import { leavesOf, MlsGroup, stateOf } from './group.ts';
import { epochsHeld, limits } from './suite.ts';
import { wipeDropped, wipeEpoch, type Wipe } from './wipe.ts';

const hourMs = 3600 * 1000;

export const pastEpochLimits = {
  /** The newest eight (limits.epochsKept) stay this long after their end (ms), */
  keptMs: 7 * 24 * hourMs,
  /** others this long (ms), as far as there is room for them (epochsHeld). */
  olderKeptMs: hourMs,
} as const;

/** A kept epoch, and when this device left it (ms). */
export interface PastEpoch {
  readonly epoch: bigint;
  readonly endedMs: number;
}

/** The oldest epoch that is to be kept of these, oldest first; undefined: none. */
export function oldestKept(past: readonly PastEpoch[], nowMs: number): bigint | undefined {
  const newest = past.length - limits.epochsKept;
  const found = past.find(({ endedMs }, index) => {
    const { keptMs, olderKeptMs } = pastEpochLimits;
    return nowMs - endedMs <= (index >= newest ? keptMs : olderKeptMs);
  });
  return found?.epoch;
}

/** The group without its past epochs before `oldest`. The wipe is to run when the new state is durable. */
export function dropEpochsBefore(
  group: MlsGroup,
  oldest: bigint,
): { readonly next: MlsGroup; readonly wipe: Wipe } {
  const state = stateOf(group);
  const history = new Map([...state.historicalReceiverData].filter(([epoch]) => epoch >= oldest));
  const next = { ...state, historicalReceiverData: history };
  return { next: new MlsGroup(next), wipe: wipeDropped(state, next) };
}

/**
 * The group at an epoch that this device did not come to by commits, with what the state in whose place it comes can
 * still open: messages of epochs before. The wipe is to run when the new state is durable.
 */
export function keepPast(
  before: MlsGroup,
  group: MlsGroup,
): { readonly next: MlsGroup; readonly wipe: Wipe } {
  const old = stateOf(before);
  const { keySchedule, secretTree, ratchetTree, groupContext } = old;
  const { resumptionPsk, senderDataSecret } = keySchedule;
  const history = new Map(old.historicalReceiverData);
  const last = { resumptionPsk, secretTree, ratchetTree, senderDataSecret, groupContext };
  history.set(groupContext.epoch, last);
  const kept = [...history]
    .filter(([epoch]) => epoch < group.epoch)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .slice(-epochsHeld(leavesOf(ratchetTree)));
  const next: ClientState = { ...stateOf(group), historicalReceiverData: new Map(kept) };
  return { next: new MlsGroup(next), wipe: wipeEpoch(old, next, []) };
}
