/**
 * What a device wants changed in a group ends: done by a commit of its own that was accepted, superseded,
 * or refused with a reason that says why.
 */
import { linesOf, type History, type Violation } from './history.ts';

/** Reasons of a refusal that a person can be told; any other means that something broke. */
const reasons: ReadonlySet<string> = new Set([
  'EPOCH_CONFLICT',
  'LAST_OWNER',
  'NOT_ALLOWED',
  'REMOVED',
  'UNKNOWN_MEMBER',
]);

export function intentsEnd(history: History): readonly Violation[] {
  const ends = new Map(
    linesOf(history, 'settled').map((line) => [`${line.device} ${line.intent}`, line]),
  );
  return linesOf(history, 'wanted').flatMap(({ device, intent, what, group }) => {
    const end = ends.get(`${device} ${intent}`);
    const find = (text: string): Violation[] => [
      { checker: 'intents', text: `${device}: ${what} ${intent} of ${group} ${text}` },
    ];
    if (end === undefined) return find('has no end');
    const { reason = 'without a reason', commits } = end;
    if (end.end === 'REFUSED' && !reasons.has(reason)) return find(`was refused: ${reason}`);
    // Who leaves is taken out by others.
    if (end.end === 'DONE' && commits === 0 && what !== 'leave')
      return find('is done by no commit');
    return [];
  });
}
