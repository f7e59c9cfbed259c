/**
 * The application of a device is given each message once. What it had not confirmed when its process died comes
 * again to the next life: at most the last 16 (`messages()` of the client library), and nothing of a loop that was
 * left in order.
 */
import { linesOf, type History, type Violation } from './history.ts';

const unconfirmed = 16;

/** For histories in which each next life of a device begins with a fault `start` of that name. */
export function shownOnce(history: History): readonly Violation[] {
  return [...new Set(linesOf(history, 'shown').map(({ device }) => device))].flatMap((device) =>
    repeatsOf(device, history),
  );
}

function repeatsOf(device: string, history: History): Violation[] {
  const known = new Set<string>();
  let newest: string[] = [];
  let mayComeAgain = new Set<string>();
  return history.flatMap((line) => {
    if (line.kind === 'fault' && line.name === 'start' && line.target === device) {
      mayComeAgain = new Set(newest);
    }
    if (line.kind === 'had' && line.device === device) {
      newest = newest.filter((id) => !line.innerIds.includes(id));
    }
    if (line.kind !== 'shown' || line.device !== device) return [];
    const { innerId, sender } = line;
    const isRepeat = known.has(innerId) && !mayComeAgain.delete(innerId);
    known.add(innerId);
    newest = [...newest.filter((id) => id !== innerId), innerId].slice(-unconfirmed);
    const text = `${device} was given ${sender}'s ${innerId} again`;
    return isRepeat ? [{ checker: 'shown-once', text }] : [];
  });
}
