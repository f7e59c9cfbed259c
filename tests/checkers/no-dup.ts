/** P2: no message is twice in the history of a device, and nothing is in it that nobody sent. */
import { linesOf, type History, type Violation } from './history.ts';

export function noDup(history: History): readonly Violation[] {
  const sent = new Set(
    linesOf(history, 'sent').map(({ device, innerId, n }) => [device, innerId, n].join(' ')),
  );
  const seen = new Set<string>();
  const violations: Violation[] = [];
  for (const { device, senderDevice, innerId, n } of linesOf(history, 'stored')) {
    const key = [device, senderDevice, innerId].join(' ');
    if (seen.has(key)) {
      violations.push({
        checker: 'no-dup',
        text: `${device} has ${senderDevice}'s ${innerId} twice`,
      });
    }
    seen.add(key);
    if (!sent.has([senderDevice, innerId, n].join(' '))) {
      violations.push({
        checker: 'no-dup',
        text: `${device} has ${innerId} of ${senderDevice}, number ${n}, which it never sent`,
      });
    }
  }
  return violations;
}
