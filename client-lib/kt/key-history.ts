/**
 * A person's keys over time, for people to read: every version that the log of its home still shows,
 * verified and judged as the successor of the one before.
 */
import { parseUserId, QpcError, Status } from '@quicprochat/proto';
import type { Caller } from '../dial.ts';
import { labelOf, type Logs } from './logs.ts';
import { describeChange, historyBetween, type VersionChange } from './manifest-history.ts';

/** Versions that are shown: the newest ones. */
const versionsMax = 256;

export interface DatedChange extends VersionChange {
  /** Not after this time (ms), by the log's entry. */
  readonly atMs: number;
  /** In words. */
  readonly text: string;
}

/** Oldest first. Throws as Contacts.resolve; nothing is kept but the log's state. */
export async function keyHistory(
  userId: string,
  logs: Logs,
  caller: Caller,
  signal?: AbortSignal,
): Promise<readonly DatedChange[]> {
  const log = await logs.of(parseUserId(userId).domain, caller);
  const transport = log.transport(caller);
  const options = signal === undefined ? {} : { signal };
  const newest = await log.client.search(transport, labelOf(userId), options);
  const from = Math.max(0, newest.version - versionsMax + 1);
  const dated: DatedChange[] = [];
  let before: { readonly version: number; readonly value: Uint8Array } | undefined;
  for (let version = from; version <= newest.version; version += 1) {
    let found = newest;
    try {
      if (version < newest.version) {
        found = await log.client.search(transport, labelOf(userId), { ...options, version });
      }
    } catch (error) {
      // Erased after the account was deleted: what is left is shown.
      if (!(error instanceof QpcError) || error.status !== Status.NotFound) throw error;
      continue;
    }
    const changes = await historyBetween(userId, before, found, undefined);
    for (const change of changes) {
      dated.push({ ...change, atMs: found.entryTimeMs, text: describeChange(change) });
    }
    before = found;
  }
  return dated;
}
