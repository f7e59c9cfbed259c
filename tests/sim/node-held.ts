/**
 * What the database of a node holds, read from its file: rows of all logs and the marks of those that are gone, what
 * waits in outboxes and was given up, and what is wrong with the logs by themselves.
 */
import { openForReading } from '@quicprochat/nodes/store/simulation';
import type { SimNode } from './node.ts';

/** A message in one log, of a device or a channel: `<key> <tag>` in hex. */
export type Copy = string;

/** What a database holds. */
export interface Held {
  readonly rows: ReadonlySet<Copy>;
  /** Taken and gone again: acked or expired. */
  readonly gone: ReadonlySet<Copy>;
  /** By peer: waiting, and given up. */
  readonly waiting: ReadonlyMap<string, ReadonlySet<Copy>>;
  readonly faults: readonly string[];
}

interface LogRow {
  readonly id: number;
  readonly key: Buffer;
  readonly head: number;
  readonly acked: number;
}

/** Opens the file a second time: costs some milliseconds. */
export function heldBy(node: SimNode, mayExpire: boolean): Held {
  const db = openForReading(node.path, node.parts.key);
  try {
    const logs = db.prepare<[], LogRow>('SELECT id, key, head, acked FROM log').all();
    const keys = new Map(logs.map(({ id, key }) => [id, key.toString('hex')]));
    const copy = (log: number, tag: Buffer): Copy => `${keys.get(log)} ${tag.toString('hex')}`;
    const entries = db
      .prepare<[], { readonly log: number; readonly seq: number; readonly tag: Buffer }>(
        'SELECT log, seq, tag FROM entry ORDER BY log, seq',
      )
      .all();
    const tombs = db
      .prepare<[], { readonly log: number; readonly tag: Buffer }>('SELECT log, tag FROM tomb')
      .all();
    const waiting = new Map<string, Set<Copy>>();
    const wait = (peer: string, rids: Buffer, tag: Buffer): void => {
      const copies = waiting.get(peer) ?? new Set();
      waiting.set(peer, copies);
      for (let at = 0; at < rids.length; at += 32)
        copies.add(copyOf(rids.subarray(at, at + 32), tag));
    };
    const outbox = db.prepare<
      [],
      { readonly domain: string; readonly rids: Buffer; readonly tag: Buffer }
    >(`SELECT domain, rids, tag FROM outbox JOIN peer ON peer.id = outbox.peer
       UNION ALL
       SELECT domain, rid, tag FROM dead_letter JOIN peer ON peer.id = dead_letter.peer`);
    for (const { domain, rids, tag } of outbox.all()) wait(domain, rids, tag);
    return {
      rows: new Set(entries.map(({ log, tag }) => copy(log, tag))),
      gone: new Set(tombs.map(({ log, tag }) => copy(log, tag))),
      waiting,
      faults: [...seqFaults(logs, entries, mayExpire), ...doubles(entries, tombs, copy)],
    };
  } finally {
    db.close();
  }
}

/** Where nothing expires a log holds exactly what is not acked, and else a part of it. */
function seqFaults(
  logs: readonly LogRow[],
  entries: readonly { readonly log: number; readonly seq: number }[],
  mayExpire: boolean,
): string[] {
  const faults: string[] = [];
  for (const { id, key, head, acked } of logs) {
    const seqs = entries.filter(({ log }) => log === id).map(({ seq }) => seq);
    const isGapless = mayExpire
      ? seqs.every((seq) => acked < seq && seq <= head)
      : seqs.every((seq, index) => seq === acked + 1 + index) && seqs.length === head - acked;
    if (!isGapless) {
      faults.push(
        `log ${key.toString('hex').slice(0, 8)}: acked ${acked}, head ${head}, rows ${seqs.join()}`,
      );
    }
  }
  return faults;
}

/** Rows with the bytes of another row of the same log, also of one that is acked. */
function doubles(
  entries: readonly { readonly log: number; readonly tag: Buffer }[],
  tombs: readonly { readonly log: number; readonly tag: Buffer }[],
  copy: (log: number, tag: Buffer) => Copy,
): string[] {
  const seen = new Set<Copy>();
  return [...entries, ...tombs].flatMap(({ log, tag }) => {
    const one = copy(log, tag);
    if (seen.has(one)) return [`two rows of ${one}`];
    seen.add(one);
    return [];
  });
}

export function copyOf(place: Uint8Array, tag: Uint8Array): Copy {
  return `${Buffer.from(place).toString('hex')} ${Buffer.from(tag).toString('hex')}`;
}
