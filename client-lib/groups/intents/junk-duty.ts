/**
 * Junk at the end of a log has no state of the group beside it, or a made-up one, and whoever comes back waits for the
 * next commit (docs/protocol/group-log.md, "Coming back"): so the members that see it make one. They do not
 * all begin at once, and the more junk comes, the longer they wait.
 */
import { jitter, type Random } from '@quicprochat/proto';
import { decodeIntent, encodeIntent } from './group-intents.ts';
import type { ClientStore } from '../../store/store.ts';

export const junkDutyLimits = {
  /** The first wait at least (ms), and for each device of the group, to a longest one. */
  waitMs: 15_000,
  perDeviceMs: 2_000,
  spreadMs: 10 * 60_000,
  /** Epochs with junk in a row double the wait, to this (ms). */
  longestMs: 3_600_000,
} as const;

/** Part of a transaction. `devices`: of the group. True: there is a new intent. */
export function putOverJunk(
  { groupLog, standings }: Pick<ClientStore, 'groupLog' | 'standings'>,
  group: { readonly groupId: Uint8Array; readonly epoch: bigint; readonly devices: number },
  nowMs: number,
  random: Random,
): boolean {
  const { groupId, devices } = group;
  const epoch = Number(group.epoch);
  const open = groupLog.openIntents(groupId);
  // What this device wants anyhow goes over it too.
  if (open.some(({ kind, dueMs }) => kind === 'overJunk' || (kind !== 'leave' && dueMs <= nowMs))) {
    return false;
  }
  const { waitMs, perDeviceMs, spreadMs, longestMs } = junkDutyLimits;
  const boundMs = waitMs + jitter(random, Math.min(spreadMs, perDeviceMs * devices));
  const before = standings.junkEpochs(groupId, epoch + 1);
  const dueMs = nowMs + Math.min(longestMs, boundMs * 2 ** Math.min(before, 16));
  const intent = encodeIntent({ kind: 'overJunk', isDuty: true, epoch });
  groupLog.addIntent({ groupId, dueMs, ...intent }, nowMs);
  return true;
}

/** Intents of the group that another commit made needless, by id. */
export function overJunkBefore(
  { groupLog }: Pick<ClientStore, 'groupLog'>,
  groupId: Uint8Array,
  epoch: bigint,
): readonly number[] {
  return groupLog
    .openIntents(groupId)
    .filter((row) => {
      const intent = decodeIntent(row);
      return intent.kind === 'overJunk' && BigInt(intent.epoch) < epoch;
    })
    .map(({ id }) => id);
}
