/**
 * Copies for one device that travel together: one goes first, and each time that all got through twice as many follow. A
 * backlog takes few round trips so, and a way that is shut costs one copy.
 */
import type { OutboxRow } from '../store/outbox-copies.ts';

export const togetherLimits = {
  /** Most copies in one request, and bytes of more than one: a node takes no much larger batch without a login. */
  copies: 32,
  bytes: 128 * 1024,
} as const;

/** How many may go together after so many got through. */
export function mostAfter(through: number): number {
  return Math.min(2 * through, togetherLimits.copies);
}

/** The first copy, and those behind it that `next` names, in order; at most `most`. */
export function rowsTogether(
  first: OutboxRow,
  most: number,
  next: (after: number) => OutboxRow | undefined,
): readonly [OutboxRow, ...OutboxRow[]] {
  const rows: [OutboxRow, ...OutboxRow[]] = [first];
  let bytes = first.payload.length;
  while (rows.length < most) {
    const row = next(rows.at(-1)?.id ?? first.id);
    bytes += row?.payload.length ?? 0;
    if (row === undefined || bytes > togetherLimits.bytes) break;
    rows.push(row);
  }
  return rows;
}
