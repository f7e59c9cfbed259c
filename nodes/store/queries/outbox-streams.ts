/** Numbering of the rows for a peer's lane: stream id, seq and hash chain. */
import { storeBounds } from '../bounds.ts';
import type { QueryContext } from '../operations.ts';
import { emptyChain, nextChain } from './chain.ts';

export interface StreamRow {
  readonly stream_id: Uint8Array;
  readonly next_seq: number;
  readonly acked: number;
  readonly chain: Uint8Array;
  readonly tail_chain: Uint8Array;
}

export interface StreamQueries {
  get(peer: number, lane: number): StreamRow | undefined;
  /** The lane's stream, made with a random id when there is none. */
  ensure(peer: number, lane: number): StreamRow;
  /** Takes the next seq for a row with this tag. */
  append(peer: number, lane: number, tag: Uint8Array): { seq: number; chain: Uint8Array };
  settle(peer: number, lane: number, acked: number, chain: Uint8Array): void;
  /** New random id; the rows held are renumbered from 1. */
  restart(peer: number, lane: number): StreamRow;
}

export function streamQueries({ db, random }: QueryContext): StreamQueries {
  const byLane = db.prepare<[number, number], StreamRow>(
    `SELECT stream_id, next_seq, acked, chain, tail_chain FROM peer_stream
      WHERE peer = ? AND lane = ?`,
  );
  const put = db.prepare<[number, number, Uint8Array, number, Uint8Array, Uint8Array]>(
    `INSERT OR REPLACE INTO peer_stream
       (peer, lane, stream_id, next_seq, acked, chain, tail_chain) VALUES (?, ?, ?, ?, 0, ?, ?)`,
  );
  const advance = db.prepare<[Uint8Array, number, number]>(
    `UPDATE peer_stream SET next_seq = next_seq + 1, tail_chain = ? WHERE peer = ? AND lane = ?`,
  );
  const settle = db.prepare<[number, Uint8Array, number, number]>(
    'UPDATE peer_stream SET acked = ?, chain = ? WHERE peer = ? AND lane = ?',
  );
  const heldRows = db.prepare<[number, number], { readonly id: number; readonly tag: Uint8Array }>(
    'SELECT id, tag FROM outbox WHERE peer = ? AND lane = ? AND seq > 0 ORDER BY seq',
  );
  const renumber = db.prepare<[number, Uint8Array, number]>(
    'UPDATE outbox SET seq = ?, chain = ? WHERE id = ?',
  );

  function fresh(peer: number, lane: number, nextSeq: number, tailChain: Uint8Array): StreamRow {
    const stream_id = random.bytes(storeBounds.streamIdBytes);
    put.run(peer, lane, stream_id, nextSeq, emptyChain(), tailChain);
    return { stream_id, next_seq: nextSeq, acked: 0, chain: emptyChain(), tail_chain: tailChain };
  }

  function ensure(peer: number, lane: number): StreamRow {
    return byLane.get(peer, lane) ?? fresh(peer, lane, 1, emptyChain());
  }

  return {
    get: (peer, lane) => byLane.get(peer, lane),
    ensure,
    append(peer, lane, tag) {
      const { next_seq: seq, tail_chain } = ensure(peer, lane);
      const chain = nextChain(tail_chain, tag);
      advance.run(chain, peer, lane);
      return { seq, chain };
    },
    settle(peer, lane, acked, chain) {
      settle.run(acked, chain, peer, lane);
    },
    restart(peer, lane) {
      let seq = 0;
      let chain = emptyChain();
      // In order: a new seq is never above the old one, so no two rows ever share one.
      for (const { id, tag } of heldRows.all(peer, lane)) {
        seq += 1;
        chain = nextChain(chain, tag);
        renumber.run(seq, chain, id);
      }
      return fresh(peer, lane, seq + 1, chain);
    },
  };
}
