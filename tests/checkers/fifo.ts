/**
 * Order and gaplessness of logs at a node: one sender's rows stand in the order in which they were
 * acknowledged, and the seqs of one log in one store have no hole and no second row.
 */
import { linesOf, type History, type Violation } from './history.ts';

export function fifo(history: History): readonly Violation[] {
  const violations: Violation[] = [];
  const placeOf = new Map<string, number>();
  const seqs = new Map<string, Map<number, string>>();
  for (const { node, log, storeId, seq, tag } of linesOf(history, 'row')) {
    const key = [node, log, storeId].join(' ');
    const rows = seqs.get(key) ?? new Map<number, string>();
    seqs.set(key, rows);
    const other = rows.get(seq);
    if (other !== undefined && other !== tag) {
      violations.push({ checker: 'fifo', text: `${key}: two rows have seq ${seq}` });
    }
    rows.set(seq, tag);
    placeOf.set(`${node} ${log} ${tag}`, seq);
  }
  for (const [key, rows] of seqs) {
    const numbers = [...rows.keys()].sort((a, b) => a - b);
    const hole = numbers.findIndex(
      (seq, index) => index > 0 && seq !== (numbers[index - 1] ?? 0) + 1,
    );
    if (hole > 0) {
      violations.push({
        checker: 'fifo',
        text: `${key}: no row between ${numbers[hole - 1]} and ${numbers[hole]}`,
      });
    }
  }
  const last = new Map<string, number>();
  for (const { node, device, log, tag, isDuplicate } of linesOf(history, 'acknowledged')) {
    const seq = placeOf.get(`${node} ${log} ${tag}`);
    // A repeat keeps its place; a row of another node has one over there.
    if (seq === undefined || isDuplicate) continue;
    const lane = [node, device, log].join(' ');
    if (seq < (last.get(lane) ?? 0)) {
      violations.push({
        checker: 'fifo',
        text: `${lane}: seq ${seq} was acknowledged after ${last.get(lane)}`,
      });
    }
    last.set(lane, Math.max(seq, last.get(lane) ?? 0));
  }
  return violations;
}
