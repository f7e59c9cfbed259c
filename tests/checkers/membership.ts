/**
 * Who a message is owed to in a group that changes: whoever was taken out after its epoch may lack it,
 * and whoever it was not sealed for must not have it.
 */
import { linesOf, type History, type Sent, type Violation } from './history.ts';

/** What of the members of groups decides about what they are owed. */
export interface Owing {
  /**
   * Epochs whose keys devices keep: what comes later than that only its sender can bring again, who has
   * to be in the group still. Unless told, all messages are owed however late they come.
   */
  readonly epochsKept?: number;
  /** Time for that has passed: senders seal anew after a day, or when they are asked. */
  readonly isSealedAnew?: boolean;
}

type Owed = (
  recipient: string,
  message: Pick<Sent, 'device' | 'conversation' | 'epoch'>,
) => boolean;

export function owed(history: History, options: Owing = {}): Owed {
  const { epochsKept = Number.POSITIVE_INFINITY, isSealedAnew = false } = options;
  const removedAt = new Map<string, number>();
  for (const { device, conversation, epoch } of linesOf(history, 'removed')) {
    raise(removedAt, `${device} ${conversation}`, epoch);
  }
  const newest = new Map<string, number>();
  for (const { device, group, epoch } of linesOf(history, 'epoch')) {
    raise(newest, `${device} ${group}`, epoch);
  }
  return (recipient, { device, conversation, epoch }) => {
    if (epoch === undefined) return true;
    const hasLeft = (one: string): boolean =>
      epoch < (removedAt.get(`${one} ${conversation}`) ?? Number.NEGATIVE_INFINITY);
    if (hasLeft(recipient)) return false;
    const isTooLate = epoch + epochsKept < (newest.get(`${recipient} ${conversation}`) ?? 0);
    return !isTooLate || (isSealedAnew && !hasLeft(device));
  };
}

function raise(highest: Map<string, number>, key: string, to: number): void {
  highest.set(key, Math.max(to, highest.get(key) ?? 0));
}

/** Nobody reads what was sealed when they were no members: not before they came, not after they went. */
export function membersOnly(history: History): readonly Violation[] {
  const meant = new Map<string, Set<string>>();
  for (const line of [...linesOf(history, 'sent'), ...linesOf(history, 'sealedAnew')]) {
    const key = `${line.device} ${line.innerId}`;
    meant.set(key, new Set([...(meant.get(key) ?? []), ...line.recipients]));
  }
  return linesOf(history, 'stored').flatMap(({ device, senderDevice, innerId, conversation, n }) =>
    meant.get(`${senderDevice} ${innerId}`)?.has(device) === false
      ? [
          {
            checker: 'members-only',
            text: `${device} reads ${senderDevice}'s message ${n} of ${conversation}, which was not for it`,
          },
        ]
      : [],
  );
}
