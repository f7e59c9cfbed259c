/** I8: within a stated time after the last fault nothing is left over that should have moved. */
import { linesOf, type History, type Violation } from './history.ts';

export function live(history: History, withinMs: number): readonly Violation[] {
  const healedMs = linesOf(history, 'healed').at(-1)?.atMs;
  const rests = linesOf(history, 'rest');
  if (healedMs === undefined || rests.length === 0) {
    return [{ checker: 'live', text: 'the history does not say how it ended' }];
  }
  const left = rests
    .filter(({ unsent, parked }) => unsent + parked > 0)
    .map(({ device, unsent, parked }) => ({
      checker: 'live',
      text: `${device}: ${unsent} copies unsent, ${parked} rows parked`,
    }));
  const late = linesOf(history, 'stored')
    .filter(({ atMs }) => atMs > healedMs + withinMs)
    .map(({ device, innerId, atMs }) => ({
      checker: 'live',
      text: `${device} got ${innerId} ${atMs - healedMs} ms after the last fault`,
    }));
  return [...left, ...late];
}
