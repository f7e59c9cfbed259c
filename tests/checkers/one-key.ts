/**
 * A device seals one commit in an epoch. A second one would be sealed with the same handshake key, unless it gave
 * the first one up, which spends that key (docs/protocol/group-log.md, "At a member").
 */
import type { History, Violation } from './history.ts';

export function oneKey(history: History): readonly Violation[] {
  const sealed = new Map<string, string>();
  const spent = new Set<string>();
  return history.flatMap((line) => {
    if (line.kind === 'spent') spent.add(`${line.device} ${line.commit}`);
    if (line.kind !== 'sealed') return [];
    const { device, group, parent, commit } = line;
    const place = `${device} ${group} ${parent}`;
    const before = sealed.get(place);
    sealed.set(place, commit);
    const isFirst = before === undefined || before === commit;
    if (isFirst || spent.has(`${device} ${before}`)) return [];
    return [{ checker: 'one-key', text: `${device} sealed two commits with one key of ${group}` }];
  });
}
