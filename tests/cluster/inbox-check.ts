/**
 * Judges one inbox after a run of raw calls: every acknowledged message is in it exactly once, in
 * the order of its sender, behind gapless numbers, and nothing else is. Pure; the rows are what
 * its reader received together with what the node still holds.
 */
import { messageTag } from '@quicprochat/proto';

/** One message that was handed to a node. */
export interface SentMessage {
  /** Hex tag of (mid, payload): equal tags are equal bytes. */
  readonly tag: string;
  /** Senders keep one request in flight per lane, so a lane has an order. */
  readonly lane: number;
  readonly n: number;
  /** False when the last answer got lost and nobody asked again: it may be there or not. */
  isAcknowledged: boolean;
}

export interface LogRow {
  readonly seq: number;
  readonly tag: string;
}

export interface InboxVerdict {
  readonly acknowledged: number;
  /** Rows that are the bytes of one sent message. */
  readonly found: number;
  readonly lost: number;
  readonly doubled: number;
  /** Rows whose bytes nobody sent. */
  readonly unknown: number;
  /** Numbers from 1 to the head without a row, and numbers with two. */
  readonly seqFaults: number;
  /** Rows that stand behind a later message of their lane. */
  readonly outOfOrder: number;
  readonly isClean: boolean;
}

/** `rows` in any order; `head` is the newest seq that the node ever assigned. */
export function checkInbox(
  sent: readonly SentMessage[],
  rows: readonly LogRow[],
  head: number,
): InboxVerdict {
  const byTag = new Map(sent.map((message) => [message.tag, message]));
  const counts = new Map<string, number>();
  const lastOfLane = new Map<number, number>();
  let unknown = 0;
  let outOfOrder = 0;
  for (const { tag } of rows.toSorted((a, b) => a.seq - b.seq)) {
    const message = byTag.get(tag);
    if (message === undefined) {
      unknown += 1;
      continue;
    }
    counts.set(tag, (counts.get(tag) ?? 0) + 1);
    const { lane, n } = message;
    if (n < (lastOfLane.get(lane) ?? 0)) outOfOrder += 1;
    lastOfLane.set(lane, Math.max(n, lastOfLane.get(lane) ?? 0));
  }
  const seqs = new Set(rows.map(({ seq }) => seq));
  const holes = Array.from({ length: head }, (_, index) => index + 1).filter((s) => !seqs.has(s));
  const seqFaults = holes.length + (rows.length - seqs.size) + Math.max(0, seqs.size - head);
  const acknowledged = sent.filter(({ isAcknowledged }) => isAcknowledged);
  const lost = acknowledged.filter(({ tag }) => !counts.has(tag)).length;
  const found = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const doubled = found - counts.size;
  return {
    acknowledged: acknowledged.length,
    found,
    lost,
    doubled,
    unknown,
    seqFaults,
    outOfOrder,
    isClean: lost + doubled + unknown + seqFaults + outOfOrder === 0,
  };
}

/** Hex tag of a message. */
export function tagOf(mid: Uint8Array, payload: Uint8Array): string {
  return Buffer.from(messageTag(mid, payload)).toString('hex');
}
