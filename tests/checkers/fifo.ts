/**
 * Order and gaplessness of logs at a node: the rows of one sender stand there in the order in which a node told it
 * that it has them, and the seqs of one log in one store have no hole and no second row. A message has one row in a
 * store, however often it comes.
 */
import { linesOf, type Acknowledged, type History, type Row, type Violation } from './history.ts';

interface FifoOptions {
  /**
   * What a node took for another one is in order over there too: no disk is lost, and no row comes back for a while,
   * from an inbox that is full for strangers or a channel that is not known yet.
   */
  readonly isRelayedInOrder?: boolean;
}

export function fifo(
  history: History,
  { isRelayedInOrder = false }: FifoOptions = {},
): readonly Violation[] {
  return [
    ...places(history),
    ...orders(history),
    ...(isRelayedInOrder ? relayedOrders(history) : []),
  ];
}

function places(history: History): Violation[] {
  const violations: Violation[] = [];
  const find = (text: string): void => void violations.push({ checker: 'fifo', text });
  for (const [log, rows] of Map.groupBy(linesOf(history, 'row'), logOf)) {
    const tagAt = new Map<number, string>();
    const seqOf = new Map<string, number>();
    for (const { seq, tag } of rows) {
      const other = tagAt.get(seq) ?? tag;
      if (other !== tag) find(`${log}: two rows have seq ${seq}`);
      const before = seqOf.get(tag) ?? seq;
      if (before !== seq) find(`${log}: ${tag} has two rows, ${before} and ${seq}`);
      tagAt.set(seq, tag);
      seqOf.set(tag, seq);
    }
    const seqs = [...tagAt.keys()].sort((a, b) => a - b);
    const hole = seqs.findIndex((seq, index) => index > 0 && seq !== (seqs[index - 1] ?? 0) + 1);
    if (hole > 0) find(`${log}: no row between ${seqs[hole - 1]} and ${seqs[hole]}`);
  }
  return violations;
}

/** Of a node that went on with an older disk each store is a log of its own: what is lost there comes again, later. */
function orders(history: History): Violation[] {
  /** The newest row of each message, as far as the history has come. */
  const rowOf = new Map<string, Row>();
  const lanes = new Lanes();
  for (const line of history) {
    if (line.kind === 'row') rowOf.set(placeOf(line), line);
    if (line.kind !== 'acknowledged') continue;
    const row = rowOf.get(placeOf(line));
    // A repeat keeps its place; a row of another node has one over there.
    if (row !== undefined && !line.isDuplicate) lanes.add(line, row);
  }
  return lanes.violations;
}

/** The row may be over there before its sender has heard of it here. */
function relayedOrders(history: History): Violation[] {
  const rowsOf = Map.groupBy(linesOf(history, 'row'), ({ log, tag }) => `${log} ${tag}`);
  const lanes = new Lanes();
  for (const line of linesOf(history, 'acknowledged')) {
    const row = rowsOf.get(`${line.log} ${line.tag}`)?.find(({ node }) => node !== line.node);
    if (row !== undefined && !line.isDuplicate) lanes.add(line, row);
  }
  return lanes.violations;
}

/** What each sender heard of each log of a store, in the order in which it did. */
class Lanes {
  readonly violations: Violation[] = [];
  readonly #last = new Map<string, number>();
  readonly #told = new Set<string>();

  /** What came back from the other node and was taken anew is told again: the first time counts. */
  add({ device, node }: Acknowledged, row: Row): void {
    const lane = `${device} ${logOf(row)}`;
    const way = node === row.node ? lane : `${lane} by ${node}`;
    if (this.#told.has(`${way} ${row.seq}`)) return;
    this.#told.add(`${way} ${row.seq}`);
    const before = this.#last.get(way) ?? 0;
    if (row.seq < before) {
      const text = `${way}: seq ${row.seq} was acknowledged after ${before}`;
      this.violations.push({ checker: 'fifo', text });
    }
    this.#last.set(way, Math.max(row.seq, before));
  }
}

function logOf({ node, log, storeId }: Row): string {
  return [node, log, storeId].join(' ');
}

function placeOf({ node, log, tag }: Row | Acknowledged): string {
  return [node, log, tag].join(' ');
}
