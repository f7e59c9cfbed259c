/**
 * Whether a node counts a row as a stranger's exactly when its sender showed none of the delivery tokens that are
 * in force at the inbox (docs/protocol/delivery.md). Looked at in the database right after the transaction.
 */
import type { BatchOutcome, OperationRequest } from '@quicprochat/nodes/store/simulation';
import type { Enqueued, TargetOutcome } from '@quicprochat/nodes';
import { deliveryTokenHash, hex } from '@quicprochat/proto';
import { numberIn } from './memo.ts';
import type { SimNode } from './node.ts';

const none = new Uint8Array(0);

interface Taken {
  readonly rid: Uint8Array;
  readonly tag: Uint8Array;
  readonly token: Uint8Array | undefined;
}

/** Of the rows that the batch put into inboxes the wrongly marked ones, as text. */
export function wronglyMarked(
  node: SimNode,
  requests: readonly OperationRequest[],
  outcome: BatchOutcome,
): readonly string[] {
  // Which tokens were in force at each row is not known of a batch that changes them.
  if (requests.some(({ name }) => name === 'setDeliveryTokens')) return [];
  const taken = requests.flatMap((request, index) => {
    const one = outcome.outcomes[index];
    return one?.isOk === true ? takenOf(request, one.value) : [];
  });
  return taken
    .filter((row) => isWronglyMarked(node.path, row))
    .map(({ rid, token = none }) => {
      const shown = token.length === 0 ? 'without a token' : 'with a token';
      return `a row ${shown} in ${hex(rid).slice(0, 8)} is not marked as it should be`;
    });
}

/** Rows that are new with this request; the operations of these names returned the outcomes. */
function takenOf(request: OperationRequest, value: unknown): Taken[] {
  if (request.name === 'enqueue') {
    const [{ rid, token }] = request.args;
    const { outcome, tag } = value as Enqueued;
    return outcome === 'stored' ? [{ rid, tag, token }] : [];
  }
  if (request.name !== 'enqueueBatch') return [];
  const [{ targets }] = request.args;
  const outcomes = value as readonly TargetOutcome[];
  return targets.flatMap(({ peer, rid, token }, index) => {
    const one = outcomes[index];
    return peer === undefined && one?.outcome === 'stored' ? [{ rid, tag: one.tag, token }] : [];
  });
}

/** An inbox without tokens knows no strangers; a row that is gone again is not judged. */
function isWronglyMarked(path: string, { rid, tag, token = none }: Taken): boolean {
  const shown = token.length === 0 ? null : deliveryTokenHash(token);
  return numberIn(path, wrongSql, shown, rid, tag) === 1;
}

/** 1 for a wrong mark. */
const wrongSql = `SELECT stranger <>
      (token_set.hashes IS NOT NULL AND ifnull(instr(token_set.hashes, ?) = 0, 1))
    FROM entry JOIN log ON log.id = entry.log LEFT JOIN token_set ON token_set.log = log.id
    WHERE log.key = ? AND entry.tag = ?`;
