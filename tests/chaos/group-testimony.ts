/**
 * What the closed store of a device says about its groups, as lines of the history: the entries that it stood at, with
 * the epoch authenticators that it showed while it ran, and what became of everything that it wanted changed.
 */
import type { ClientStore } from '@quicprochat/client-lib/store';
import { hex } from '@quicprochat/proto';
import type { HistoryLine } from '../checkers/index.ts';
import { authenticatorAt } from '../sim/group-lines.ts';

/** Authenticators (hex) that a device showed, by conversation (hex) and epoch: one each, unless something is wrong. */
export class Witnessed {
  readonly #seen = new Map<string, Set<string>>();

  add(conversationHex: string, epoch: number, authenticatorHex: string): void {
    const key = `${conversationHex} ${epoch}`;
    this.#seen.set(key, new Set([...(this.#seen.get(key) ?? []), authenticatorHex]));
  }

  of(conversationHex: string, epoch: number): readonly string[] {
    return [...(this.#seen.get(`${conversationHex} ${epoch}`) ?? [])];
  }
}

export function groupLines(
  store: ClientStore,
  device: string,
  atMs: number,
  witnessed: Witnessed,
): HistoryLine[] {
  return [...epochLines(store, device, atMs, witnessed), ...intentLines(store, device, atMs)];
}

function epochLines(
  store: ClientStore,
  device: string,
  atMs: number,
  witnessed: Witnessed,
): HistoryLine[] {
  return store.groups.conversations().flatMap(({ id, groupId }) => {
    const newest = store.groupLog.head(groupId)?.epoch ?? -1;
    const group = hex(groupId);
    return Array.from({ length: newest + 1 }, (_, epoch) => epoch).flatMap(
      (epoch): HistoryLine[] => {
        // Those of epochs whose keys are gone are gone too.
        const head = store.groupLog.headAt(groupId, epoch);
        if (head === undefined) return [];
        const now = authenticatorAt(store, groupId, epoch);
        const shown = new Set(witnessed.of(hex(id), epoch));
        if (now !== undefined) shown.add(hex(now));
        const line = { kind: 'epoch', atMs, device, group, epoch, hash: hex(head.hash) } as const;
        if (shown.size === 0) return [line];
        return [...shown].map((authenticator) => ({ ...line, authenticator }));
      },
    );
  });
}

function intentLines({ groupLog }: ClientStore, device: string, atMs: number): HistoryLine[] {
  const lines: HistoryLine[] = [];
  // They count from 1 without gaps, and stay for 30 days.
  for (let id = 1; ; id += 1) {
    const row = groupLog.intent(id);
    if (row === undefined) return lines;
    const { groupId, kind, state, reason, commits } = row;
    lines.push({ kind: 'wanted', atMs, device, intent: id, group: hex(groupId), what: kind });
    if (state === 'OPEN') continue;
    const why = reason === undefined ? {} : { reason };
    lines.push({ kind: 'settled', atMs, device, intent: id, end: state, commits, ...why });
  }
}
