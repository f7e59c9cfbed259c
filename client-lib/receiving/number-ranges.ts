/**
 * Which numbers of a sending device are missing here (docs/protocol/delivery.md, "End-to-end re-send"):
 * what each arriving number changes, as part of the transaction that keeps its message.
 */
import { openEnd, type NumberRange } from '../sending/resend-request.ts';
import type { Hole, ResendRows } from '../store/resend-rows.ts';

export const holeLimits = {
  /** A hole is asked for when it is this old (ms): what is only late closes it before. */
  patienceMs: 60_000,
  /** Open holes of one sending device; more are recorded and not asked for. */
  openPerSender: 64,
} as const;

interface Numbered {
  readonly groupId: Uint8Array;
  /** Sending device (32 bytes). */
  readonly sender: Uint8Array;
  readonly n: number;
}

/** A number arrived; 0 counts nothing. Returns whether a hole is new. */
export function noteNumber(
  rows: ResendRows,
  { groupId, sender, n }: Numbered,
  nowMs: number,
): boolean {
  if (n === 0) return false;
  const top = rows.top(groupId, sender);
  let covering = rows.holeAt(groupId, sender, n);
  if (covering !== undefined && isAskedQuestion(covering)) {
    // It was heard: what is missing before this number is a hole like any other.
    rows.deleteHole(covering);
    covering = undefined;
  }
  const openHoles = (): number =>
    rows.holesOf(groupId, sender).filter(({ state }) => state === 'OPEN').length;
  let isNew = false;
  if (covering !== undefined) {
    takeOut(rows, covering, { from: n, to: n });
    const isSplit = covering.from < n && n < covering.to;
    // What others answer to us is bounded: one sender must not use it up with a number here and there.
    if (isSplit && covering.state === 'OPEN' && openHoles() > holeLimits.openPerSender) {
      rows.putHole({ ...covering, to: n - 1, state: 'UNANSWERED', nextMs: undefined });
    }
  } else if (n > top + 1) {
    isNew = openHoles() < holeLimits.openPerSender;
    rows.putHole({
      groupId,
      sender,
      from: top + 1,
      to: n - 1,
      state: isNew ? 'OPEN' : 'UNANSWERED',
      foundMs: nowMs,
      asks: 0,
      nextMs: isNew ? nowMs + holeLimits.patienceMs : undefined,
    });
  }
  rows.setTop(groupId, sender, n, nowMs);
  return isNew;
}

/** A question for everything new that was asked, and is asked once more unless something comes. */
export function isAskedQuestion({ to, asks }: Pick<Hole, 'to' | 'asks'>): boolean {
  return to === openEnd && asks > 0;
}

/** The part of a hole that lies in the range is none any more. Returns that part. */
export function takeOut(rows: ResendRows, hole: Hole, range: NumberRange): NumberRange | undefined {
  const from = Math.max(hole.from, range.from);
  const to = Math.min(hole.to, range.to);
  if (from > to) return undefined;
  rows.deleteHole(hole);
  if (hole.from < from) rows.putHole({ ...hole, to: from - 1 });
  if (to < hole.to) rows.putHole({ ...hole, from: to + 1 });
  return { from, to };
}

/** The numbers of a range that are not in the list, which is ascending. */
export function without(range: NumberRange, numbers: readonly number[]): readonly NumberRange[] {
  const rest: NumberRange[] = [];
  let { from } = range;
  for (const n of numbers) {
    if (n < from || n > range.to) continue;
    if (from < n) rest.push({ from, to: n - 1 });
    from = n + 1;
  }
  if (from <= range.to) rest.push({ from, to: range.to });
  return rest;
}

/** Ascending numbers as ranges. */
export function rangesOf(numbers: readonly number[]): readonly NumberRange[] {
  const ranges: { from: number; to: number }[] = [];
  for (const n of numbers) {
    const last = ranges.at(-1);
    if (last !== undefined && n === last.to + 1) last.to = n;
    else ranges.push({ from: n, to: n });
  }
  return ranges;
}
