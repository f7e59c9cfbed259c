/** Lanes and stream states between their wire form and the one that the store speaks. */
import { DataLossError, hasReason, RowKind } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  Lane,
  StreamStateSchema,
  toBinary,
  type MessageInitShape,
  type StreamState,
} from '@quicprochat/proto/messages';
import type { InboundStream, LaneName } from './store.ts';

export const laneNames: readonly LaneName[] = ['control', 'bulk'];

export const streamIdBytes = 16;
export const chainBytes = 16;

export function laneToWire(lane: LaneName): Lane {
  return lane === 'control' ? Lane.CONTROL : Lane.BULK;
}

/** Undefined for a lane of a later version. */
export function laneFromWire(lane: number): LaneName | undefined {
  if (lane === Lane.CONTROL) return 'control';
  return lane === Lane.BULK ? 'bulk' : undefined;
}

/** The lane that rows of a kind travel in; undefined for a kind of a later version. */
export function laneOfKind(kind: number): LaneName | undefined {
  if (kind === RowKind.Envelope) return 'bulk';
  return kind >= RowKind.GroupControl && kind <= RowKind.ExpiredReport ? 'control' : undefined;
}

/** What a peer says of one stream, checked: exact lengths, numbers below 2^53. */
export function streamFromWire(
  state: Pick<StreamState, 'lane' | 'streamId' | 'cursor' | 'chain'>,
): InboundStream | undefined {
  const lane = laneFromWire(state.lane);
  const isSound =
    state.streamId.length === streamIdBytes &&
    state.chain.length === chainBytes &&
    state.cursor <= BigInt(Number.MAX_SAFE_INTEGER);
  if (lane === undefined || !isSound) return undefined;
  return { lane, streamId: state.streamId, cursor: Number(state.cursor), chain: state.chain };
}

export function streamToWire(stream: InboundStream): MessageInitShape<typeof StreamStateSchema> {
  return {
    lane: laneToWire(stream.lane),
    streamId: stream.streamId,
    cursor: BigInt(stream.cursor),
    chain: stream.chain,
  };
}

/** The error of a receiver that lacks what comes before a batch; details: where it stands. */
export function streamGap(stream: InboundStream): DataLossError {
  return new DataLossError('STREAM_GAP', `the stream stands at ${stream.cursor}`, {
    details: toBinary(StreamStateSchema, create(StreamStateSchema, streamToWire(stream))),
  });
}

/** Where the receiver stands, by its STREAM_GAP; undefined when the error does not say. */
export function streamFromGap(error: unknown): InboundStream | undefined {
  if (!hasReason(error, 'STREAM_GAP') || error.details === undefined) return undefined;
  try {
    return streamFromWire(fromBinary(StreamStateSchema, error.details));
  } catch {
    // Bytes that are no StreamState say as little as none.
    return undefined;
  }
}
