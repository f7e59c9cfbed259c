/** While the person of a device has somebody blocked, nothing that this one wrote is shown there. */
import { linesOf, type History, type Violation } from './history.ts';

export function blockedHidden(history: History): readonly Violation[] {
  const blocked = new Set<string>();
  const violations: Violation[] = [];
  for (const line of history) {
    if (line.kind === 'blocked') {
      const pair = `${line.device} ${line.user}`;
      if (line.isBlocked) blocked.add(pair);
      else blocked.delete(pair);
    } else if (line.kind === 'shown' && blocked.has(`${line.device} ${line.sender}`)) {
      const { device, sender, innerId } = line;
      violations.push({
        checker: 'blocked',
        text: `${device} was shown ${innerId} of ${sender}, who is blocked there`,
      });
    }
  }
  return violations;
}

/** Whether a device ever blocked somebody: senders that share a conversation with both have its old token. */
export function everBlocked(history: History): (device: string) => boolean {
  const devices = new Set(
    linesOf(history, 'blocked')
      .filter(({ isBlocked }) => isBlocked)
      .map(({ device }) => device),
  );
  return (device) => devices.has(device);
}
