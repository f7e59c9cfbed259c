/**
 * Relay batches between the rows of a store and their wire form, with every bound that a batch
 * keeps (docs/protocol/federation.md). Pure: no store, no time.
 */
import {
  deliveryTokenBytes,
  ed25519SignatureBytes,
  InvalidArgumentError,
  maxControlBytes,
  maxRelayBytes,
  maxRelayItems,
  maxTtlS,
  midBytes,
  RowKind,
} from '@quicprochat/proto';
import type {
  ChannelHeader,
  FedRelayRequest,
  MessageInitShape,
  RelayItem,
  RelayItemSchema,
  RelayReject,
} from '@quicprochat/proto/messages';
import { laneFromWire, laneOfKind, streamIdBytes } from './lane.ts';
import type { ChannelMark, LaneName, OutboxRow, Reject, RelayBatch, RelayItemIn } from './store.ts';

export const relayItemLimits = {
  ridBytes: 32,
  /** Devices that one item may be for. */
  rids: 2_048,
  /** ...and all items of a batch together: as many verdicts must fit into its reply, twice. */
  copies: 8_192,
  payloadBytes: maxControlBytes,
  reasonBytes: 64,
  slipBytes: 64,
} as const;

/** Bytes of one item beyond payload and rids on the wire, rounded up. */
const itemOverheadBytes = 48;
/** What an item for a channel adds: epoch, signature, and the cid in a message of its own. */
const channelWireBytes = 96;
/** One rid, and one token, each with its tag and length. */
export const ridWireBytes = relayItemLimits.ridBytes + 2;
const tokenWireBytes = deliveryTokenBytes + 2;

/** Rows that travel together. */
export interface OutBatch {
  readonly firstSeq: number;
  readonly lastSeq: number;
  /** As counted against credit and the batch bound; at least the bytes on the wire. */
  readonly bytes: number;
  readonly rows: readonly OutboxRow[];
}

/**
 * The longest run of rows without gap behind `after` that fits in `roomBytes`. A lone first row may
 * use a whole batch when `isAlone`. Undefined when not even one row fits or the first is missing.
 */
export function takeBatch(
  rows: readonly OutboxRow[],
  after: number,
  roomBytes: number,
  isAlone: boolean,
): OutBatch | undefined {
  const taken: OutboxRow[] = [];
  let bytes = 0;
  let copies = 0;
  for (const row of rows) {
    const channelBytes = row.channel === undefined ? 0 : channelWireBytes;
    const tokenBytes = (row.tokens?.length ?? 0) * tokenWireBytes;
    const slipBytes = (row.slips?.length ?? 0) * (relayItemLimits.slipBytes + 2);
    const headerBytes = itemOverheadBytes + channelBytes + tokenBytes + slipBytes;
    const withRow = bytes + row.payload.length + row.rids.length * ridWireBytes + headerBytes;
    const boundBytes = taken.length === 0 && isAlone ? maxRelayBytes : roomBytes;
    if (row.seq !== after + 1 + taken.length || withRow > Math.min(boundBytes, maxRelayBytes))
      break;
    copies += row.rids.length;
    if (copies > relayItemLimits.copies) break;
    bytes = withRow;
    taken.push(row);
  }
  if (taken.length === 0) return undefined;
  return { firstSeq: after + 1, lastSeq: after + taken.length, bytes, rows: taken };
}

export function itemToWire(row: OutboxRow): MessageInitShape<typeof RelayItemSchema> {
  // A row that expires on the way still takes its place in the stream: one second, not none.
  const ttlS = Math.min(maxTtlS, Math.max(1, Math.floor(row.ttlLeftMs / 1000)));
  const { kind, mid, payload, rids, channel } = row;
  const [cid] = rids;
  if (channel === undefined || cid === undefined) {
    const { tokens = [], slips = [] } = row;
    return { kind, mid, payload, rids: [...rids], ttlS, tokens: [...tokens], slips: [...slips] };
  }
  const { epoch, signature } = channel;
  return { kind, mid, payload, ttlS, channel: { cid, epoch: BigInt(epoch), signature } };
}

/** The rejects of a reply that concern rows in (acked, cursor]; others are settled or unknown. */
export function rejectsFromWire(
  rejects: readonly RelayReject[],
  acked: number,
  cursor: number,
): Reject[] {
  return rejects
    .filter(
      ({ seq, rid }) => seq > acked && seq <= cursor && rid.length === relayItemLimits.ridBytes,
    )
    .map(({ seq, rid, reason, temporary }) => ({
      seq: Number(seq),
      rid,
      reason: reason.slice(0, relayItemLimits.reasonBytes),
      temporary,
    }));
}

/**
 * Checks every field of a request. Throws InvalidArgumentError BAD_FIELD for what breaks the
 * protocol; an item that this node merely cannot take is marked `refused` and passes.
 */
export function parseRelay(request: FedRelayRequest, kinds: ReadonlySet<number>): RelayBatch {
  const lane = laneFromWire(request.lane);
  if (lane === undefined) throw bad(`lane: ${request.lane}, need 1 or 2`);
  const { streamId, items } = request;
  if (streamId.length !== streamIdBytes) {
    throw bad(`streamId: ${streamId.length} bytes, need ${streamIdBytes}`);
  }
  if (items.length < 1 || items.length > maxRelayItems) {
    throw bad(`items: ${items.length}, need 1-${maxRelayItems}`);
  }
  const firstSeq = Number(request.firstSeq);
  const acked = Number(request.acked);
  if (firstSeq < 1 || firstSeq + items.length > Number.MAX_SAFE_INTEGER) {
    throw bad('firstSeq: need 1 to 2^53 - 1');
  }
  if (acked >= firstSeq) throw bad(`acked: ${acked}, need less than firstSeq ${firstSeq}`);
  const payloadBytes = items.reduce((sum, { payload }) => sum + payload.length, 0);
  if (payloadBytes > maxRelayBytes) {
    throw bad(`items: ${payloadBytes} payload bytes, at most ${maxRelayBytes}`);
  }
  const copies = copiesOf(items);
  if (copies > relayItemLimits.copies) {
    throw bad(`items: for ${copies} devices, at most ${relayItemLimits.copies}`);
  }
  const parsed = items.map((item, index) => parseItem(item, index, lane, kinds));
  return { lane, streamId, acked, firstSeq, items: parsed };
}

/** Devices of some items, each as often as an item names it. */
export function copiesOf(items: readonly { readonly rids: readonly unknown[] }[]): number {
  return items.reduce((sum, { rids }) => sum + rids.length, 0);
}

function parseItem(
  item: RelayItem,
  index: number,
  lane: LaneName,
  kinds: ReadonlySet<number>,
): RelayItemIn {
  const { kind, mid, payload, ttlS, channel } = item;
  const field = (name: string, what: string): InvalidArgumentError =>
    bad(`items[${index}].${name}: ${what}`);
  if (mid.length !== midBytes) throw field('mid', `${mid.length} bytes, need ${midBytes}`);
  if (payload.length === 0) throw field('payload', 'is empty');
  const rids = channel === undefined ? item.rids : [channel.cid];
  if (rids.length < 1 || rids.length > relayItemLimits.rids) {
    throw field('rids', `${rids.length}, need 1-${relayItemLimits.rids}`);
  }
  if (channel !== undefined && item.rids.length > 0) {
    throw field('rids', `${item.rids.length} beside a channel`);
  }
  if (rids.some((rid) => rid.length !== relayItemLimits.ridBytes)) {
    throw field('rids', `need ${relayItemLimits.ridBytes} bytes each`);
  }
  const { tokens } = item;
  if (tokens.length > rids.length) {
    throw field('tokens', `${tokens.length} for ${rids.length} rids`);
  }
  if (tokens.some(({ length }) => length !== 0 && length !== deliveryTokenBytes)) {
    throw field('tokens', `need ${deliveryTokenBytes} bytes each, or none`);
  }
  const { slips } = item;
  if (slips.length > rids.length) throw field('slips', `${slips.length} for ${rids.length} rids`);
  if (slips.some(({ length }) => length > relayItemLimits.slipBytes)) {
    throw field('slips', `at most ${relayItemLimits.slipBytes} bytes each`);
  }
  if (ttlS === 0) throw field('ttlS', 'is missing');
  if (kind === 0 || kind > 255) throw field('kind', `${kind}, need 1-255`);
  const ttlMs = Math.min(ttlS, maxTtlS) * 1000;
  const mark = channel && channelMark(channel, field);
  const refused = refusalOf({ kind, payload, isForChannel: mark !== undefined }, lane, kinds);
  return {
    ...{ kind, mid, payload, rids, ttlMs, tokens },
    ...(mark === undefined ? {} : { channel: mark }),
    ...(slips.length === 0 ? {} : { slips }),
    ...(refused === undefined ? {} : { refused }),
  };
}

/** A post bears its signature here, a ChannelUpdate in its payload; the store verifies either. */
function channelMark(
  { epoch, signature }: ChannelHeader,
  field: (name: string, what: string) => InvalidArgumentError,
): ChannelMark {
  if (epoch > BigInt(Number.MAX_SAFE_INTEGER)) throw field('channel.epoch', 'above 2^53 - 1');
  if (signature.length !== 0 && signature.length !== ed25519SignatureBytes) {
    throw field('channel.signature', `${signature.length} bytes, need ${ed25519SignatureBytes}`);
  }
  return { epoch: Number(epoch), signature };
}

function refusalOf(
  item: { readonly kind: number; readonly payload: Uint8Array; readonly isForChannel: boolean },
  lane: LaneName,
  kinds: ReadonlySet<number>,
): RelayItemIn['refused'] {
  const { kind, payload, isForChannel } = item;
  if (payload.length > relayItemLimits.payloadBytes)
    return { reason: 'TOO_LARGE', temporary: false };
  // A later version of this node may know the kind: the sender keeps the row for a while.
  if (!kinds.has(kind)) return { reason: 'UNIMPLEMENTED', temporary: true };
  if (laneOfKind(kind) !== lane) return { reason: 'BAD_FIELD', temporary: false };
  if (kind === RowKind.ChannelUpdate && !isForChannel) {
    return { reason: 'BAD_FIELD', temporary: false };
  }
  return undefined;
}

function bad(message: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', message);
}

/** The kinds that this version takes from a peer. */
export const acceptedKinds: ReadonlySet<number> = new Set([
  RowKind.Envelope,
  RowKind.GroupControl,
  RowKind.ChannelUpdate,
  RowKind.ExpiredReport,
]);
