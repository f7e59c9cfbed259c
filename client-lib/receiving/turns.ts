/** In which order those are asked for whom there may be no place: nobody is left out for ever. */
import { jitter, type Random } from '@quicprochat/proto';

/** One of each list after the other, as long as both have some; each list in random order. */
export function byTurns<T>(
  random: Random,
  first: readonly T[],
  second: readonly T[],
): readonly T[] {
  const lists = [[...first], [...second]];
  const ordered: T[] = [];
  for (let left = first.length + second.length; left > 0;) {
    for (const list of lists) {
      if (list.length === 0) continue;
      ordered.push(...list.splice(jitter(random, list.length), 1));
      left -= 1;
    }
  }
  return ordered;
}
