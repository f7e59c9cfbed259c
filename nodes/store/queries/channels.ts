/**
 * Channels as operations of the store: a post, an update and a read of several logs, put together
 * from subscribers (channels-members.ts), the shared log (channels-log.ts) and the outboxes of peers.
 * Posts and updates of other nodes come in through `relay`.
 */
import {
  messageTag,
  parseChannelUpdate,
  PayloadTooLargeError,
  QpcError,
  RowKind,
} from '@quicprochat/proto';
import type { RelayItemIn } from '@quicprochat/federation';
import type { ReadLog } from '../channel-store.ts';
import { needBytes, needSeq, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import { channelLogQueries, type ChannelLogQueries } from './channels-log.ts';
import { channelMemberQueries, type ChannelMemberQueries } from './channels-members.ts';
import type { TokenQueries } from './delivery-tokens.ts';
import type { InboxQueries } from './inbox.ts';
import type { LogAppend } from './log-append.ts';
import { logReadQueries } from './log-read.ts';
import { logTrimQueries } from './log-trim.ts';
import type { NoticeQueries } from './notices.ts';
import { encodeChannel, type OutboxAppend } from './outbox.ts';
import { IncomingPayload } from './payloads.ts';

type ChannelOperations = Pick<
  Operations,
  | 'createChannel'
  | 'postToChannel'
  | 'applyChannelUpdate'
  | 'channelMembers'
  | 'fetchChannel'
  | 'peekChannel'
  | 'ackChannel'
  | 'fetchLogs'
>;

/** For the hub of a group, which checks everything before it writes anything. */
type HubQueries = Pick<ChannelLogQueries, 'isWritable' | 'append'> &
  Pick<ChannelMemberQueries, 'prepareUpdate'>;

export interface ChannelQueries extends ChannelOperations, HubQueries {
  /** Takes an item of a peer for the channel `cid`; returns why not. Nothing is written then. */
  relay(
    nowMs: number,
    from: string,
    cid: Uint8Array,
    item: RelayItemIn,
    tag: Uint8Array,
  ): { readonly reason: string; readonly temporary: boolean } | undefined;
  sweep(nowMs: number): void;
}

export interface ChannelParts {
  readonly logs: LogAppend;
  readonly inbox: InboxQueries;
  readonly outbox: OutboxAppend;
  readonly notices: NoticeQueries;
  readonly tokens: TokenQueries;
}

export function channelQueries(
  context: QueryContext,
  { logs, inbox, outbox, notices, tokens }: ChannelParts,
): ChannelQueries {
  const { db } = context;
  const members = channelMemberQueries(context, logs, tokens);
  const log = channelLogQueries(context, members, logs, logReadQueries(db), logTrimQueries(db));

  function update(nowMs: number, from: string, payload: Uint8Array): void {
    members.prepareUpdate(nowMs, from, parseChannelUpdate(payload))();
  }

  return {
    isWritable: (nowMs, cid, proof, mid, signed) => log.isWritable(nowMs, cid, proof, mid, signed),
    append: (nowMs, cid, delivery) => log.append(nowMs, cid, delivery),
    prepareUpdate: (nowMs, from, parsed) => members.prepareUpdate(nowMs, from, parsed),

    createChannel: (nowMs, rid, channel) => members.create(nowMs, rid, channel),
    applyChannelUpdate: update,
    channelMembers: (_nowMs, rid, cid) => members.members(rid, cid),

    postToChannel(nowMs, post) {
      const { cid, epoch, signature, kind, mid, payload, ttlMs, peers, denied } = post;
      needBytes(cid, storeBounds.keyBytes, 'cid');
      needBytes(mid, storeBounds.midBytes, 'mid');
      needSeq(epoch, 'epoch');
      if (payload.length > storeBounds.payloadBytes) {
        throw new PayloadTooLargeError(
          `payload: ${payload.length} bytes, at most ${storeBounds.payloadBytes}`,
        );
      }
      const tag = messageTag(mid, payload);
      const incoming = new IncomingPayload(payload);
      const delivery = { kind, mid, tag, payload: incoming, ttlMs };
      const known = log.post(nowMs, cid, { epoch, signature }, delivery);
      // Whoever has read the post can repeat it, and would have it sent anywhere.
      if (known?.isSigned === false) {
        return { outcome: 'duplicate', tag, receivedMs: known.receivedMs };
      }
      // A repeat may name domains that the first try did not know of: each is asked for itself.
      const sender = post.sender && logs.byKey(post.sender)?.id;
      const bounce = (domain: string, reason: string): void => {
        const lost = { sender: sender ?? null, mid, tag, rid: cid, domain, createdMs: nowMs };
        notices.bounced(nowMs, lost, reason);
      };
      for (const domain of peers) {
        const isFull = outbox.refusal(nowMs, domain, payload.length, sender) !== undefined;
        if (!isFull) {
          const channel = encodeChannel(epoch, signature);
          outbox.append(nowMs, domain, { ...delivery, rids: cid, sender, channel });
        } else if (outbox.receivedMs(domain, tag, cid) === undefined) {
          bounce(domain, 'PEER_UNREACHABLE');
        }
      }
      for (const domain of denied) if (known === undefined) bounce(domain, 'PEER_DENIED');
      return known === undefined
        ? { outcome: 'stored', tag, receivedMs: nowMs }
        : { outcome: 'duplicate', tag, receivedMs: known.receivedMs };
    },

    fetchChannel(nowMs, rid, { cid, after }, maxRows, maxBytes) {
      return log.fetch(nowMs, rid, cid, after, maxRows, maxBytes);
    },
    peekChannel: (_nowMs, rid, { cid, after }, maxRows) => log.peek(rid, cid, after, maxRows),
    ackChannel: (nowMs, rid, cid, upTo) => log.ack(nowMs, rid, cid, upTo),

    fetchLogs(nowMs, rid, positions, maxRows, maxBytes) {
      const found: ReadLog[] = [];
      let roomRows = maxRows;
      let roomBytes = maxBytes;
      for (const { cid, after } of positions) {
        if (roomRows <= 0 || roomBytes <= 0) break;
        const fetched =
          cid.length === 0
            ? inbox.fetch(nowMs, rid, after, roomRows, roomBytes)
            : log.fetch(nowMs, rid, cid, after, roomRows, roomBytes);
        const bytes = fetched.rows.reduce((sum, { payload }) => sum + payload.length, 0);
        // The first row of a log comes whatever its size: not behind others.
        if (bytes > roomBytes && found.length > 0) break;
        if (fetched.rows.length === 0 && fetched.gap === undefined) continue;
        found.push({ cid, fetched });
        roomRows -= fetched.rows.length;
        roomBytes -= bytes;
      }
      return found;
    },

    relay(nowMs, from, cid, { kind, mid, payload, ttlMs, channel }, tag) {
      if (channel === undefined) throw new TypeError('an item for devices is no channel item');
      try {
        if (kind === RowKind.ChannelUpdate) update(nowMs, from, payload);
        else {
          // What stands in such a row beside the signed commit is a hub's word: whoever has one
          // signed post could make as many of them as a log holds.
          if (kind === RowKind.GroupControl) members.needHub(from, cid);
          const delivery = { kind, mid, tag, payload: new IncomingPayload(payload), ttlMs };
          log.post(nowMs, cid, channel, delivery);
        }
        return undefined;
      } catch (error) {
        // A full disk is not the item's fault: the whole batch comes again.
        if (!(error instanceof QpcError) || error.reason === 'STORE_FULL') throw error;
        return { reason: error.reason, temporary: error.reason === 'UNKNOWN_CHANNEL' };
      }
    },

    sweep: (nowMs) => log.sweep(nowMs),
  };
}
