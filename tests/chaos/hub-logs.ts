/** The group logs as the hubs have them on disk, and whether these are one log. */
import { loadConfig, openForReading, readKeyFile } from '@quicprochat/nodes';
import { hex, parseEntry } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { linesOf, type EntryAccepted, type History, type Violation } from '../checkers/index.ts';
import type { NodeProcess } from '../cluster/node-process.ts';

/** All entries that a node has accepted, from its database, in the order of each log. The node may run or not. */
export function hubEntries({ domain, configFile }: NodeProcess): EntryAccepted[] {
  const { databasePath, databaseKeyPath } = loadConfig(configFile);
  const db = openForReading(databasePath, readKeyFile(databaseKeyPath));
  try {
    const rows = db
      .prepare<
        [],
        { readonly accepted_ms: number; readonly hubs: string; readonly bytes: Uint8Array }
      >(
        `SELECT accepted_ms, hubs, payload.bytes FROM hub_entry JOIN payload ON payload.id = control
           JOIN hub_group ON hub_group.id = hub_entry.hub_group
         ORDER BY hub_group.id, position`,
      )
      .all();
    return rows.map(({ accepted_ms: atMs, hubs, bytes }) => {
      const control = fromBinary(GroupControlSchema, new Uint8Array(bytes));
      const { entry, epoch, hash } = parseEntry(control.entry?.entry);
      return {
        kind: 'entry',
        atMs,
        node: domain,
        group: hex(entry.group),
        epoch,
        hash: hex(hash),
        parent: hex(entry.parent),
        rejects: entry.rejects.map(hex),
        hubs: hubs.split(' ').length,
      };
    });
  } finally {
    db.close();
  }
}

/**
 * Compares whole logs, entry by entry: two hubs have the same one at each place that both have. One that was away may
 * have less of it; it is told of the rest with the next commit.
 */
export function sameLogs(history: History): readonly Violation[] {
  const logs = new Map<string, Map<string, EntryAccepted[]>>();
  for (const line of linesOf(history, 'entry')) {
    const hubs = logs.get(line.group) ?? new Map<string, EntryAccepted[]>();
    logs.set(line.group, hubs);
    hubs.set(line.node, [...(hubs.get(line.node) ?? []), line]);
  }
  return [...logs].flatMap(([group, hubs]) => {
    const all = [...hubs.values()];
    const longest = all.toSorted((a, b) => b.length - a.length)[0] ?? [];
    return all.flatMap((log) => [...broken(group, log), ...differences(group, log, longest)]);
  });
}

function differences(
  group: string,
  log: readonly EntryAccepted[],
  longest: readonly EntryAccepted[],
): Violation[] {
  const place = log.findIndex(({ hash }, index) => longest[index]?.hash !== hash);
  const [one, other] = [log[place], longest[place]];
  if (one === undefined) return [];
  const names = [one, other].map((entry) => `${entry?.hash.slice(0, 8)} at ${entry?.node}`);
  return [{ checker: 'same-logs', text: `entry ${place} of ${group} is ${names.join(', ')}` }];
}

/**
 * The first entry made the group (hubs drop entries after 1 000, more than a run has); each other one is a child of the
 * one before it, or of the same parent as one that it puts aside.
 */
function broken(group: string, log: readonly EntryAccepted[]): Violation[] {
  return log.flatMap(({ node, epoch, parent, rejects }, index) => {
    const before = log[index - 1];
    const isNext = before === undefined ? epoch === 0 : parent === before.hash;
    if (isNext || rejects.includes(before?.hash ?? '')) return [];
    return [{ checker: 'same-logs', text: `${node}: entry ${index} of ${group} hangs in the air` }];
  });
}

/** Epochs of which the keys of at least two devices could be compared. */
export function comparedEpochs(history: History): number {
  const devices = new Map<string, Set<string>>();
  for (const { group, epoch, device, authenticator } of linesOf(history, 'epoch')) {
    if (authenticator === undefined) continue;
    const key = `${group} ${epoch}`;
    devices.set(key, new Set([...(devices.get(key) ?? []), device]));
  }
  return [...devices.values()].filter(({ size }) => size > 1).length;
}
