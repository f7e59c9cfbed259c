/**
 * What a transaction of a node wrote into logs and outboxes, read from its database right behind it, and whether each
 * log it touched is still what a log has to be (I3 of docs/simulator.md).
 */
import { RowKind } from '@quicprochat/proto';
import { numberIn, rowsIn } from './memo.ts';

/** A node whose database is open. */
interface OpenNode {
  readonly domain: string;
  readonly path: string;
}

/** A row that is new in a log. */
export interface WrittenRow {
  /** Device key or cid, in hex. */
  readonly log: string;
  readonly seq: number;
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
}

export interface Written {
  readonly rows: readonly WrittenRow[];
  /** Copies that are new in outboxes and become rows at their peer: one for each device or channel. */
  readonly relayed: readonly {
    readonly peer: string;
    readonly place: Uint8Array;
    readonly tag: Uint8Array;
  }[];
  /** What is wrong with the logs now. */
  readonly faults: readonly string[];
}

interface Log {
  readonly id: number;
  readonly head: number;
  readonly acked: number;
}
interface Stream {
  readonly peer: number;
  readonly lane: number;
  readonly domain: string;
  readonly stream_id: Uint8Array;
  readonly next_seq: number;
}
/** What was there at the look before. */
interface Known {
  readonly counter: number;
  readonly logs: ReadonlyMap<number, Log>;
  readonly streams: ReadonlyMap<string, Stream>;
}

const nothing: Written = { rows: [], relayed: [], faults: [] };
const ridBytes = 32;

/**
 * Another number after each transaction that gave out a seq or took an ack: of logs in the lower 32 bits, of streams
 * above. One question, since it is asked after every transaction.
 */
const counterSql = `SELECT total(2 * head + acked) +
    4294967296 * (SELECT total(next_seq) FROM peer_stream) FROM log`;
const streamUnit = 2 ** 32;
const logsSql = 'SELECT id, head, acked FROM log ORDER BY id';
const nameSql = 'SELECT lower(hex(key)) AS name FROM log WHERE id = ?';
const streamsSql = `SELECT peer, lane, domain, stream_id, next_seq
    FROM peer_stream JOIN peer ON peer.id = peer_stream.peer`;
const rowsSql = `SELECT lower(hex(key)) AS log, seq, mid, tag
    FROM entry JOIN log ON log.id = entry.log WHERE log = ? AND seq > ? ORDER BY seq`;
const extentSql = `SELECT count(*) AS count, min(seq) AS least, max(seq) AS greatest FROM entry
    WHERE log = ?`;
// These change something at the peer and become no row there.
const outboxSql = `SELECT rids, tag FROM outbox WHERE peer = ? AND lane = ? AND seq >= ?
    AND kind NOT IN (${RowKind.ChannelUpdate}, ${RowKind.ExpiredReport})`;

export class LogWatch {
  readonly #mayExpire: boolean;
  readonly #known = new Map<string, Known>();

  /** `mayExpire`: messages live so shortly that rows go by themselves. */
  constructor(mayExpire: boolean) {
    this.#mayExpire = mayExpire;
  }

  /** A life begins. Returns what its file forgot of the life before; `isOlder`: it is an older one. */
  opened(node: OpenNode, isOlder: boolean): readonly string[] {
    const before = this.#known.get(node.domain);
    if (isOlder) this.#known.delete(node.domain);
    const now = this.#look(node);
    if (before === undefined || isOlder) return [];
    return [...before.logs.values()].flatMap((was) => {
      const is = now.logs.get(was.id);
      if (is?.head === was.head && is.acked === was.acked) return [];
      const name = nameOf(node, was);
      return [`${name} was at ${was.acked} to ${was.head}, and is at ${is?.acked} to ${is?.head}`];
    });
  }

  /** After a transaction of this node that may have written. */
  written(node: OpenNode): Written {
    const before = this.#known.get(node.domain);
    const now = this.#look(node);
    if (now === before) return nothing;
    const rows: WrittenRow[] = [];
    const faults: string[] = [];
    for (const log of now.logs.values()) {
      const known = before?.logs.get(log.id);
      if (known?.head === log.head && known.acked === log.acked) continue;
      const fresh =
        known?.head === log.head
          ? []
          : rowsIn<WrittenRow>(node.path, rowsSql, log.id, known?.head ?? 0);
      rows.push(...fresh);
      const fault = this.#faultOf(node, log, known, fresh);
      if (fault !== undefined) faults.push(`${nameOf(node, log)}: ${fault}`);
    }
    if (now.streams === before?.streams) return { rows, relayed: [], faults };
    const relayed = [...now.streams.values()].flatMap((stream) => {
      const known = before?.streams.get(streamOf(stream));
      const isSame = known !== undefined && Buffer.compare(known.stream_id, stream.stream_id) === 0;
      const from = isSame ? known.next_seq : 1;
      return from >= stream.next_seq ? [] : relayedFrom(node, stream, from);
    });
    return { rows, relayed, faults };
  }

  /** The same as before where nothing changed. */
  #look({ domain, path }: OpenNode): Known {
    const before = this.#known.get(domain);
    const counter = numberIn(path, counterSql);
    if (before?.counter === counter) return before;
    const hasLogs = before !== undefined && before.counter % streamUnit === counter % streamUnit;
    const hasStreams =
      before !== undefined &&
      Math.floor(before.counter / streamUnit) === Math.floor(counter / streamUnit);
    const known = {
      counter,
      logs: hasLogs ? before.logs : new Map(rowsIn<Log>(path, logsSql).map((log) => [log.id, log])),
      streams: hasStreams
        ? before.streams
        : new Map(rowsIn<Stream>(path, streamsSql).map((one) => [streamOf(one), one])),
    };
    this.#known.set(domain, known);
    return known;
  }

  /** No seq is left out or given twice, none goes but by an ack, and the rows are those behind it. */
  #faultOf(
    { path }: OpenNode,
    { id, head, acked }: Log,
    known: Log | undefined,
    fresh: readonly WrittenRow[],
  ): string | undefined {
    const { head: headBefore = 0, acked: ackedBefore = 0 } = known ?? {};
    if (head < headBefore || acked < ackedBefore || acked > head) {
      return `acked ${ackedBefore}, head ${headBefore} became acked ${acked}, head ${head}`;
    }
    if (fresh.length !== head - Math.max(headBefore, acked)) {
      return `head went from ${headBefore} to ${head} with rows ${fresh.map(({ seq }) => seq).join()}`;
    }
    if (this.#mayExpire) return undefined;
    const [extent] = rowsIn<{
      readonly count: number;
      readonly least: number | null;
      readonly greatest: number | null;
    }>(path, extentSql, id);
    const { count = 0, least = null, greatest = null } = extent ?? {};
    const isWhole =
      count === head - acked && (count === 0 || (least === acked + 1 && greatest === head));
    return isWhole
      ? undefined
      : `acked ${acked}, head ${head}, ${count} rows ${least} to ${greatest}`;
  }
}

function relayedFrom(
  { path }: OpenNode,
  { peer, lane, domain }: Stream,
  from: number,
): Written['relayed'] {
  const rows = rowsIn<{ readonly rids: Uint8Array; readonly tag: Uint8Array }>(
    path,
    outboxSql,
    peer,
    lane,
    from,
  );
  return rows.flatMap(({ rids, tag }) =>
    Array.from({ length: rids.length / ridBytes }, (_, index) => ({
      peer: domain,
      place: rids.subarray(index * ridBytes, (index + 1) * ridBytes),
      tag,
    })),
  );
}

function streamOf({ peer, lane }: Stream): string {
  return `${peer} ${lane}`;
}

function nameOf({ path }: OpenNode, { id }: Log): string {
  const [log] = rowsIn<{ readonly name: string }>(path, nameSql, id);
  return `log ${log?.name.slice(0, 8) ?? 'that is gone'}`;
}
