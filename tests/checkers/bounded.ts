/**
 * What a process holds stays within its bound whenever it is looked at, and at the end, when all has
 * drained, nothing is left of what is only on its way.
 */
import { linesOf, type History, type Violation } from './history.ts';

export function bounded(history: History): readonly Violation[] {
  const lines = linesOf(history, 'held');
  const rested = new Set(lines.filter(({ isAtRest }) => isAtRest).map(({ process }) => process));
  const unseen = [...new Set(lines.map(({ process }) => process))]
    .filter((process) => !rested.has(process))
    .map((process) => ({ checker: 'bounded', text: `${process}: nothing was seen at the end` }));
  if (lines.length === 0) return [{ checker: 'bounded', text: 'nothing was looked at' }];
  const over = lines
    .filter(({ count, bound }) => count > bound)
    .map(({ process, what, count, bound, isAtRest, atMs }) => {
      const when = isAtRest ? 'at rest' : `at ${Math.round(atMs)} ms`;
      const text = `${process}: ${count} ${what} ${when}, at most ${bound}`;
      return { checker: 'bounded', text };
    });
  return [...over, ...unseen];
}
