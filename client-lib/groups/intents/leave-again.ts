/**
 * When who waits to be taken out of a group says so once more (docs/protocol/group-log.md, "Leaving"): what it
 * said can be read in eight epochs only, and is a duty of those alone who might remove it by then.
 */
import type { RoleEntry } from '../../mls/index.ts';
import type { ClientStore } from '../../store/store.ts';

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
