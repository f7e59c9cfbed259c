/**
 * I5 to I7: a group has one history. Each parent has one accepted child, but for those that a later one
 * rejects; devices at the same entry are at the same keys, and nobody stands at an entry before a hub
 * accepted it, by a commit or by a Welcome.
 */
import {
  linesOf,
  type EntryAccepted,
  type History,
  type Restored,
  type Violation,
} from './history.ts';

/** So long a restored hub of one takes nothing new (docs: protocol/group-log). Not asked of the product: it is judged by this. */
const heldMs = 2 * 60_000;

export interface OneLogOptions {
  /** Times of hubs and devices are of one clock that nobody moves: unless told, they are. */
  readonly isOneClock?: boolean;
}

export function oneLog(
  history: History,
  { isOneClock = true }: OneLogOptions = {},
): readonly Violation[] {
  return [...forks(history), ...keys(history), ...unaccepted(history, isOneClock)];
}

/** I5. */
function forks(history: History): Violation[] {
  const restores = linesOf(history, 'restored');
  const children = new Map<string, Map<string, EntryAccepted[]>>();
  for (const line of linesOf(history, 'entry')) {
    const parent = `${line.group} ${line.parent}`;
    const siblings = children.get(parent) ?? new Map<string, EntryAccepted[]>();
    children.set(parent, siblings);
    siblings.set(line.hash, [...(siblings.get(line.hash) ?? []), line]);
  }
  return [...children].flatMap(([parent, siblings]) => {
    const all = [...siblings.values()];
    return all.flatMap((one, index) =>
      all.slice(index + 1).flatMap((other) => {
        const isRejected =
          one[0]?.rejects.includes(other[0]?.hash ?? '') === true ||
          other[0]?.rejects.includes(one[0]?.hash ?? '') === true;
        if (isRejected || areForgotten([...one, ...other], restores)) return [];
        const where = [...one, ...other].map(({ node, hash }) => `${node} ${hash.slice(0, 8)}`);
        return [{ checker: 'I5', text: `two children of ${parent}: ${where.join(', ')}` }];
      }),
    );
  });
}

/**
 * Whether each of these acceptances of two children is one that a hub of one may make: what it had accepted before went with its
 * disk, and it waited for that, or had accepted this child too before it forgot it.
 */
function areForgotten(lines: readonly EntryAccepted[], restores: readonly Restored[]): boolean {
  const nodes = new Set(lines.map(({ node }) => node));
  if (nodes.size > 1 || lines.some(({ hubs }) => hubs !== 1)) return false;
  return lines.every((line) => {
    const before = lines.filter(({ atMs }) => atMs < line.atMs);
    const rivals = before.filter(({ hash }) => hash !== line.hash);
    if (rivals.length === 0) return true;
    const rivalMs = Math.max(...rivals.map(({ atMs }) => atMs));
    const between = restores.filter(
      ({ node, atMs }) => node === line.node && rivalMs <= atMs && atMs <= line.atMs,
    );
    if (!between.some(({ copyMs }) => copyMs < rivalMs)) return false;
    const isBack = before.some(({ hash }) => hash === line.hash);
    return isBack || line.atMs - Math.max(...between.map(({ atMs }) => atMs)) >= heldMs;
  });
}

/** I6. */
function keys(history: History): Violation[] {
  const violations: Violation[] = [];
  const seen = new Map<string, { device: string; authenticator: string }>();
  for (const { device, group, epoch, hash, authenticator } of linesOf(history, 'epoch')) {
    if (authenticator === undefined) continue;
    const key = `${group} ${epoch} ${hash}`;
    const other = seen.get(key);
    if (other === undefined) seen.set(key, { device, authenticator });
    else if (other.authenticator !== authenticator) {
      violations.push({
        checker: 'I6',
        text: `${device} and ${other.device} have other keys at epoch ${epoch} of ${group}`,
      });
    }
  }
  return violations;
}

/** I7. Who makes a group stands at entry 0 before its hub has heard of it. */
function unaccepted(history: History, isOneClock: boolean): Violation[] {
  /** By group and hash: when the first hub had it on disk. */
  const acceptedMs = new Map<string, number>();
  for (const { group, hash, atMs } of linesOf(history, 'entry')) {
    const key = `${group} ${hash}`;
    acceptedMs.set(key, Math.min(atMs, acceptedMs.get(key) ?? atMs));
  }
  return linesOf(history, 'epoch').flatMap(({ device, group, epoch, hash, atMs }) => {
    const sinceMs = acceptedMs.get(`${group} ${hash}`);
    if (epoch === 0 || (sinceMs !== undefined && (sinceMs <= atMs || !isOneClock))) return [];
    const what = sinceMs === undefined ? 'that no hub accepted' : 'before any hub accepted it';
    const text = `${device} stands at an entry of epoch ${epoch} of ${group} ${what}`;
    return [{ checker: 'I7', text }];
  });
}
