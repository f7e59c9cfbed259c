/**
 * Arithmetic of the implicit search tree (protocol section 4.1) as far as the harness plans with it:
 * which entries are distinguished, and where the two view updates agree. Written apart from kt-log's.
 */
const level = (position: number): number => {
  let weight = 1;
  for (let rest = position; rest % 2 === 1; rest = (rest - 1) / 2) weight *= 2;
  return weight;
};
const root = (size: number): number => 2 ** Math.floor(Math.log2(size)) - 1;
const left = (position: number): number => position - level(position) / 2;
function right(position: number, size: number): number {
  let child = position + level(position) / 2;
  while (child >= size) child = left(child);
  return child;
}

/** Section 6.1: the distinguished entries of a log with these timestamps, ascending. */
export function distinguishedEntries(timesMs: readonly number[], windowMs: number): number[] {
  const size = timesMs.length;
  const found: number[] = [];
  const visit = (position: number, leftMs: number, rightMs: number): void => {
    if (rightMs - leftMs < windowMs) return;
    const ms = timesMs[position] ?? Number.NaN;
    if (level(position) > 1) visit(left(position), leftMs, ms);
    found.push(position);
    if (level(position) > 1 && position < size - 1) visit(right(position, size), ms, rightMs);
  };
  if (size > 0) visit(root(size), 0, timesMs.at(-1) ?? 0);
  return found;
}

/**
 * Section 4.2: whether a user who goes from `last` to `size` entries needs the same timestamps with
 * and without the rule that katie lacks: when no entry right of the old last one is on its direct
 * path, go on from that entry itself. katie asks for the newest entry in any case.
 */
export function viewUpdatesAgree(size: number, last: number | undefined): boolean {
  if (last === undefined || last === size) return true;
  let at = root(size);
  let hasRightParent = false;
  while (at !== last - 1) {
    if (at > last - 1) hasRightParent = true;
    at = at > last - 1 ? left(at) : right(at, size);
  }
  return hasRightParent || right(last - 1, size) === size - 1;
}

/** The root, its right child, and so on to the last entry; none for an empty log. */
export function frontierEntries(size: number): number[] {
  const found: number[] = size > 0 ? [root(size)] : [];
  for (let at = found[0]; at !== undefined && at !== size - 1; found.push(at)) at = right(at, size);
  return found;
}
