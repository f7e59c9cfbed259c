/**
 * Groups that this node keeps the log of, in a store that was found to be an older copy of itself (docs:
 * protocol/group-log): nothing new is accepted there until members, who are told by the first refusal, had
 * time to bring back what this hub certified and forgot. One hub of three waits where another one forgot as well (groups-set.ts).
 */
import { UnavailableError } from '@quicprochat/proto';
import type { Operations, QueryContext } from '../operations.ts';
import { groupBounds } from './groups-log.ts';

interface HeldRow {
  readonly isForgetful: number;
  readonly held_since_ms: number | null;
}

export interface RestoredHubQueries extends Pick<Operations, 'restoredGroups'> {
  /** Throws UnavailableError HUB_RESTORED while the group takes no change. Only reads. */
  needWhole(nowMs: number, group: number): void;
  /** Counts from the first who asks: how long the group takes no change (ms). */
  hold(nowMs: number, group: number): number;
  /** The same without beginning to count; undefined: nobody asked yet. */
  rest(nowMs: number, group: number): number | undefined;
  /** A group that was begun anew: what came behind that is not known. */
  restored(group: number): void;
  /** Its time is over, and a change is accepted. */
  whole(group: number): void;
}

export function restoredHubQueries({ db }: Pick<QueryContext, 'db'>): RestoredHubQueries {
  const held = db.prepare<[number], HeldRow>(
    `SELECT max(is_restored, is_learner) AS isForgetful, held_since_ms FROM hub_group WHERE id = ?`,
  );
  const count = db
    .prepare<[], number>('SELECT count(*) FROM hub_group WHERE is_restored = 1')
    .pluck();
  const begin = db.prepare<[number, number]>(
    'UPDATE hub_group SET held_since_ms = ? WHERE id = ? AND held_since_ms IS NULL',
  );
  const set = db.prepare<[number]>(
    'UPDATE hub_group SET is_restored = 1, held_since_ms = NULL WHERE id = ?',
  );
  const clear = db.prepare<[number]>(
    'UPDATE hub_group SET is_restored = 0 WHERE id = ? AND is_restored = 1',
  );

  function restMs(nowMs: number, group: number): number {
    const { isForgetful, held_since_ms: sinceMs } = held.get(group) ?? {};
    if (isForgetful !== 1) return 0;
    const { heldMs } = groupBounds;
    // A clock that went back makes nobody wait longer than the whole time.
    return sinceMs === null || sinceMs === undefined
      ? heldMs
      : Math.min(heldMs, Math.max(0, sinceMs + heldMs - nowMs));
  }

  return {
    restoredGroups: () => count.get() ?? 0,
    needWhole(nowMs, group) {
      const retryAfterMs = restMs(nowMs, group);
      if (retryAfterMs === 0) return;
      const what = 'this hub is an older copy of itself, and waits for what it lost';
      throw new UnavailableError('HUB_RESTORED', what, { retryAfterMs });
    },
    hold(nowMs, group) {
      if (restMs(nowMs, group) > 0) begin.run(nowMs, group);
      return restMs(nowMs, group);
    },
    rest(nowMs, group) {
      const sinceMs = held.get(group)?.held_since_ms ?? undefined;
      return sinceMs === undefined ? undefined : restMs(nowMs, group);
    },
    restored: (group) => void set.run(group),
    whole: (group) => void clear.run(group),
  };
}
