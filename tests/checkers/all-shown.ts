/**
 * At the end the application of a device was given everything in its history, but what people wrote who are blocked
 * there. For histories in which applications take all that is left once the rest has come to an end.
 */
import { linesOf, type History, type Violation } from './history.ts';

export function allShown(history: History): readonly Violation[] {
  const shown = new Set(
    linesOf(history, 'shown').map(({ device, innerId }) => `${device} ${innerId}`),
  );
  const userOf = new Map(linesOf(history, 'sent').map(({ device, user }) => [device, user]));
  const blocked = new Map(
    linesOf(history, 'blocked').map(({ device, user, isBlocked }) => [
      `${device} ${user}`,
      isBlocked,
    ]),
  );
  return linesOf(history, 'stored').flatMap(({ device, innerId, senderDevice }) => {
    if (shown.has(`${device} ${innerId}`)) return [];
    if (blocked.get(`${device} ${userOf.get(senderDevice)}`) === true) return [];
    const text = `${device} has ${innerId} of ${senderDevice}, and never showed it`;
    return [{ checker: 'all-shown', text }];
  });
}
