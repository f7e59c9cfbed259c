/** While the person of a device has somebody blocked, nothing that this one wrote is shown there. */
import type { History, Violation } from './history.ts';

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
