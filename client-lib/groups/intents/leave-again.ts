/**
 * When who waits to be taken out of a group says so once more (docs/protocol/group-log.md, "Leaving"): what it
 * said can be read in eight epochs only, and is a duty of those alone who might remove it by then.
 */
import { QpcError, type Runtime } from '@quicprochat/proto';
import type { GroupPull } from '../log/group-pull.ts';
import type { RoleEntry } from '../../mls/index.ts';
import type { IntentRow } from '../../store/group-log-rows.ts';
import type { ClientStore } from '../../store/store.ts';
import { leaveLimits } from './leaves.ts';

/** Epochs; members keep the keys of 8. */
const askEvery = 4n;

/** What of a group at an epoch decides. */
export interface AskedAt {
  readonly epoch: bigint;
  readonly info: { readonly roles: readonly RoleEntry[] };
}

/**
 * Each fourth epoch, counted from the group's first so that nothing is to be remembered; and when roles
 * changed, for then others may remove it, or nobody.
 */
export function isToAskAgain(before: AskedAt, after: AskedAt): boolean {
  const said = ({ info }: AskedAt): string =>
    JSON.stringify(info.roles.map(({ userId, role }) => [userId, role]));
  return before.epoch / askEvery !== after.epoch / askEvery || said(before) !== said(after);
}

/** Part of a transaction: leaves of the group that are open are due now. */
export function askAgain(
  { groupLog }: Pick<ClientStore, 'groupLog'>,
  groupId: Uint8Array,
  nowMs: number,
): void {
  for (const { id, kind } of groupLog.openIntents(groupId)) {
    if (kind === 'leave') groupLog.setIntentDue(id, nowMs);
  }
}

export interface IsOutParts {
  readonly store: Pick<ClientStore, 'groupLog'>;
  readonly pull: Pick<GroupPull, 'pull'>;
  readonly runtime: Runtime;
}

/**
 * Whether a leave that was asked before ended meanwhile: the row that took this device out may be lost with a disk, and
 * the log says so. A hub that does not answer keeps nobody from asking again. Throws the signal's reason.
 */
export async function isOut(
  { store, pull, runtime }: IsOutParts,
  { id, groupId, createdMs }: IntentRow,
  signal: AbortSignal,
): Promise<boolean> {
  if (runtime.clock.now() - createdMs < leaveLimits.againMinMs) return false;
  try {
    await pull.pull(groupId, signal);
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    signal.throwIfAborted();
  }
  return store.groupLog.intent(id)?.state !== 'OPEN';
}
