/**
 * What an answer of a node's store promises, and whether its transaction wrote that: the row of each copy that it
 * took, for a device or a channel of its own or in the outbox of a peer, those that follow from a commit too.
 */
import type { Enqueued, TargetOutcome } from '@quicprochat/nodes';
import type {
  OperationArgs,
  OperationRequest,
  OperationResult,
} from '@quicprochat/nodes/store/simulation';
import { messageTag, RowKind } from '@quicprochat/proto';
import { numberIn } from './memo.ts';
import type { SimNode } from './node.ts';

/** A copy that a node answers for. */
export interface Promised {
  /** Whose node it is for; undefined: here. */
  readonly peer: string | undefined;
  /** Device key or cid. */
  readonly place: Uint8Array;
  readonly tag: Uint8Array;
}

type Committed = OperationArgs<'submitCommit'>[0];

/** Of a call that was answered OK with this value. Of Welcomes nothing: their bytes are the hub's. */
export function promisedBy(request: OperationRequest, value: unknown): Promised[] {
  // The operation of each name returned what is read here.
  switch (request.name) {
    case 'enqueue': {
      const [{ rid }] = request.args;
      return [{ peer: undefined, place: rid, tag: (value as Enqueued).tag }];
    }
    case 'enqueueRemote': {
      const [peer, { rid }] = request.args;
      return [{ peer, place: rid, tag: (value as Enqueued).tag }];
    }
    case 'enqueueBatch': {
      const [{ targets }] = request.args;
      const outcomes = value as readonly TargetOutcome[];
      return targets.flatMap(({ peer, rid }, index) => {
        const one = outcomes[index];
        if (one === undefined || one.outcome === 'refused') return [];
        return [{ peer, place: rid, tag: one.tag }];
      });
    }
    case 'postToChannel': {
      const [{ cid: place, peers }] = request.args;
      const { outcome, tag } = value as Enqueued;
      // A repeat that no live key signed is passed on to nobody.
      const passedOn = outcome === 'stored' ? peers : [];
      return [undefined, ...passedOn].map((peer) => ({ peer, place, tag }));
    }
    case 'submitCommit':
      return promisedByCommit(request.args[0], value);
    case 'acceptPrepared':
      return promisedByCommit(request.args[1], value);
    default:
      return [];
  }
}

function promisedByCommit({ mid, targets, channel }: Committed, value: unknown): Promised[] {
  const { isNew, control } = value as OperationResult<'submitCommit'>;
  if (!isNew) return [];
  const tag = messageTag(mid, control);
  const posts = (channel?.peers ?? []).map((peer) => ({ peer, place: channel?.cid ?? mid, tag }));
  return [...targets.map(({ peer, rid: place }) => ({ peer, place, tag })), ...posts];
}

/**
 * Of a peer's batch that was taken, whose first new item has the seq `start`: what became rows here. Updates of
 * channels and reports change something and leave none.
 */
export function takenFrom(request: OperationRequest, value: unknown, start: number): Promised[] {
  if (request.name !== 'applyRelay') return [];
  const [, { firstSeq, items }] = request.args;
  const { rejects } = value as OperationResult<'applyRelay'>;
  return items.flatMap(({ kind, mid, payload, rids }, index) => {
    const seq = firstSeq + index;
    const isRow = kind !== RowKind.ChannelUpdate && kind !== RowKind.ExpiredReport;
    if (seq < start || !isRow) return [];
    const tag = messageTag(mid, payload);
    return rids
      .filter((rid) => !rejects.some((one) => one.seq === seq && isSame(one.rid, rid)))
      .map((place) => ({ peer: undefined, place, tag }));
  });
}

/** Whether the node has it now, or had it and remembers that. */
export function isKept({ path }: SimNode, { peer, place, tag }: Promised): boolean {
  return peer === undefined
    ? numberIn(path, hereSql, place, tag, place, tag) === 1
    : numberIn(path, thereSql, peer, tag, place, tag, place, tag, place) === 1;
}

/** Whether it is a channel here that no device reads: its posts are answered and leave no row. */
export function isWithoutReaders({ path }: SimNode, place: Uint8Array): boolean {
  return numberIn(path, withoutReadersSql, place) === 1;
}

const hereSql = `SELECT
    EXISTS (SELECT 1 FROM log JOIN entry ON entry.log = log.id WHERE key = ? AND tag = ?) OR
    EXISTS (SELECT 1 FROM log JOIN tomb ON tomb.log = log.id WHERE key = ? AND tag = ?)`;
const thereSql = `SELECT 1 FROM peer WHERE domain = ? AND (
    EXISTS (SELECT 1 FROM outbox WHERE peer = peer.id AND tag = ? AND instr(rids, ?) > 0) OR
    EXISTS (SELECT 1 FROM outbox_tomb WHERE peer = peer.id AND tag = ? AND instr(rids, ?) > 0) OR
    EXISTS (SELECT 1 FROM dead_letter WHERE peer = peer.id AND tag = ? AND rid = ?))`;
const withoutReadersSql = `SELECT 1 FROM log JOIN channel ON channel.log = log.id
    WHERE kind = 2 AND key = ? AND empty_since_ms IS NOT NULL`;

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
