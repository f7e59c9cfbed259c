/**
 * What follows from an accepted commit (docs: protocol/group-log): a post to the channel, rows for
 * listed devices, Welcomes for joiners, and a ChannelUpdate for each domain. First everything that
 * can refuse it is checked, then all of it is written. Who cannot be reached is told to the committer.
 */
import {
  groupChannelSeed,
  InvalidArgumentError,
  isOfItsChannel,
  messageTag,
  parseChannelUpdate,
  QpcError,
  RowKind,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  toBinary,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { needBytes, storeBounds } from '../bounds.ts';
import type { GroupTarget, OfferedCommit } from '../group-store.ts';
import type { ChannelQueries } from './channels.ts';
import type { InboxQueries } from './inbox.ts';
import type { LogAppend } from './log-append.ts';
import type { NoticeQueries } from './notices.ts';
import { encodeChannel, type NewOutboxRow, type OutboxAppend } from './outbox.ts';
import { IncomingPayload } from './payloads.ts';
import { joinSlips, type ReturnReports, type ReturnSlips } from './return-slips.ts';
import { joinTokens } from './row-tokens.ts';

export interface PreparedDelivery {
  /** Writes all rows; `control` carries the commit. */
  deliver(control: IncomingPayload): void;
}

export interface GroupDelivery {
  /**
   * Throws InvalidArgumentError BAD_FIELD or BAD_SIGNATURE; writes nothing. `isDecided`: a majority of
   * hubs has the commit, so what this node's own channel refuses it does without.
   */
  prepare(
    nowMs: number,
    offered: Omit<OfferedCommit, 'certified'>,
    isDecided?: boolean,
  ): PreparedDelivery;
}

export interface GroupDeliveryParts {
  readonly logs: LogAppend;
  readonly inbox: InboxQueries;
  readonly outbox: OutboxAppend;
  readonly channels: ChannelQueries;
  readonly notices: NoticeQueries;
  readonly slips: Pick<ReturnSlips, 'open'>;
  readonly reports: Pick<ReturnReports, 'send'>;
}

export function groupDeliveryQueries({
  logs,
  inbox,
  outbox,
  channels,
  notices,
  slips,
  reports,
}: GroupDeliveryParts): GroupDelivery {
  /** Log of the committing device, if it is one of this node, which may hear that from another hub only. */
  function committerOf({
    sender,
    returnTo,
    domain,
    welcomes,
  }: Omit<OfferedCommit, 'certified'>): number | undefined {
    if (sender !== undefined) return logs.byKey(sender)?.id;
    const [first] = returnTo === domain ? welcomes : [];
    if (first?.target.slip === undefined) return undefined;
    return slips.open({ mid: first.mid, rid: first.target.rid }, first.target.slip)?.sender;
  }

  /** The committer's own checks of what it sent along; returns the own node's update, if any. */
  function checkUpdates(
    nowMs: number,
    offered: Omit<OfferedCommit, 'certified'>,
    isDecided: boolean,
  ): (() => void) | undefined {
    const { parsed, updates, domain, channelNonce } = offered;
    const seed = groupChannelSeed(parsed.entry.group, channelNonce);
    let own: (() => void) | undefined;
    for (const { peer, payload } of updates) {
      const update = parseChannelUpdate(payload);
      const { removal } = update.update;
      const isOfCommit =
        channelNonce.length > 0 &&
        Buffer.compare(update.update.seed, seed) === 0 &&
        isOfItsChannel(update.update) &&
        update.epoch === parsed.epoch &&
        removal === parsed.entry.removal;
      if (!isOfCommit) throw bad('updates: one is not of this commit');
      if (peer !== undefined) continue;
      if (own !== undefined) throw bad('updates: two for this node');
      own = tolerate(isDecided, () => channels.prepareUpdate(nowMs, domain, update));
    }
    return own;
  }

  return {
    prepare(nowMs, offered, isDecided = false) {
      const { parsed, commit, mid, channel, targets, welcomes, updates, ttlMs } = offered;
      const { sharedWelcome, returnTo } = offered;
      needBytes(mid, storeBounds.midBytes, 'mid');
      for (const { rid } of targets) needBytes(rid, storeBounds.ridBytes, 'rid');
      for (const { target, mid: welcomeMid } of welcomes) {
        needBytes(target.rid, storeBounds.ridBytes, 'rid');
        needBytes(welcomeMid, storeBounds.midBytes, 'mid');
      }
      if (channel !== undefined) {
        if (channel.epoch !== parsed.epoch - 1) throw bad('channel: not of the parent epoch');
      }
      const isPosted =
        channel !== undefined &&
        tolerate(isDecided, () => channels.isWritable(nowMs, channel.cid, channel, mid, commit)) ===
          true;
      const ownUpdate = checkUpdates(nowMs, offered, isDecided);
      const senderLog = committerOf(offered);
      const kind = RowKind.GroupControl;

      const row = (rowMid: Uint8Array, payload: IncomingPayload) => ({
        ...{ kind, mid: rowMid, payload, ttlMs, sender: senderLog },
        tag: messageTag(rowMid, payload.bytes),
      });
      type Row = ReturnType<typeof row>;

      function bounce(
        { mid: lostMid, tag }: Pick<Row, 'mid' | 'tag'>,
        rid: Uint8Array,
        domain: string,
        reason: string,
      ) {
        if (senderLog === undefined) return;
        const lost = { sender: senderLog, mid: lostMid, tag, rid, domain, createdMs: nowMs };
        notices.bounced(nowMs, lost, reason);
      }

      /** One row of the peer's outbox, or a bounce for each device, or channel, that it was for. */
      function relay(
        peer: string,
        sent: Omit<Row, 'kind'> & { readonly kind: number },
        rids: readonly Uint8Array[],
        extra: Pick<NewOutboxRow, 'tokens' | 'channel' | 'returns'>,
      ): void {
        if (outbox.refusal(nowMs, peer, sent.payload.bytes.length, senderLog) === undefined) {
          outbox.append(nowMs, peer, { ...sent, rids: Buffer.concat(rids), ...extra });
          return;
        }
        for (const rid of rids) bounce(sent, rid, peer, 'PEER_UNREACHABLE');
      }

      function toDevices(sent: Row, devices: readonly GroupTarget[]): void {
        const remote = new Map<string, GroupTarget[]>();
        for (const target of devices) {
          const { rid, peer, token, slip } = target;
          if (peer !== undefined) {
            remote.set(peer, [...(remote.get(peer) ?? []), target]);
            continue;
          }
          const { outcome } = inbox.deliver(nowMs, rid, sent, token);
          if (outcome === 'unknownDevice') bounce(sent, rid, '', 'UNKNOWN_DEVICE');
          if (outcome !== 'queueFull') continue;
          bounce(sent, rid, '', 'QUEUE_FULL');
          if (senderLog !== undefined || returnTo === undefined || slip === undefined) continue;
          const lost = { peer: returnTo, mid: sent.mid, tag: sent.tag, rid, slip };
          reports.send(nowMs, { ...lost, reason: 'QUEUE_FULL' });
        }
        for (const [peer, ofPeer] of remote) {
          for (let from = 0; from < ofPeer.length; from += storeBounds.ridsPerRow) {
            const some = ofPeer.slice(from, from + storeBounds.ridsPerRow);
            const rids = some.map(({ rid }) => rid);
            const toTell = joinSlips(senderLog === undefined ? some : []);
            const returns =
              returnTo === undefined || toTell.length === 0
                ? undefined
                : { to: returnTo, slips: toTell };
            const tokens = joinTokens(some.map(({ token }) => token));
            relay(peer, sent, rids, { tokens, returns });
          }
        }
      }

      return {
        deliver(control) {
          const sent = row(mid, control);
          if (channel !== undefined) {
            const { cid, epoch, signature, peers, denied } = channel;
            // Before the update, so that who leaves may still read why.
            if (isPosted) channels.append(nowMs, cid, sent);
            const mark = encodeChannel(epoch, signature);
            for (const peer of peers) relay(peer, sent, [cid], { channel: mark });
            for (const peer of denied) bounce(sent, cid, peer, 'PEER_DENIED');
          }
          ownUpdate?.();
          const none = encodeChannel(parsed.epoch, new Uint8Array(0));
          for (const { peer, payload } of updates) {
            if (peer === undefined) continue;
            const { cid } = parseChannelUpdate(payload).update;
            const update = new IncomingPayload(payload);
            // One mid for all: with the bytes it makes the tag, and each domain has its own.
            const updateRow = { ...row(mid, update), kind: RowKind.ChannelUpdate };
            relay(peer, updateRow, [cid], { channel: none });
          }
          toDevices(sent, targets);
          const { entry } = fromBinary(GroupControlSchema, control.bytes);
          const welcomeRow = (
            rowMid: Uint8Array,
            more: MessageInitShape<typeof GroupControlSchema>,
          ) => {
            const fields = create(GroupControlSchema, { ...(entry && { entry }), ...more });
            return row(rowMid, new IncomingPayload(toBinary(GroupControlSchema, fields)));
          };
          const [first] = welcomes;
          if (first !== undefined && sharedWelcome.length > 0) {
            const welcomeKeys = welcomes.map(({ welcome }) => welcome);
            const shared = welcomeRow(first.mid, { welcome: sharedWelcome, welcomeKeys });
            toDevices(
              shared,
              welcomes.map(({ target }) => target),
            );
            return;
          }
          for (const { target, mid: welcomeMid, welcome } of welcomes) {
            toDevices(welcomeRow(welcomeMid, { welcome }), [target]);
          }
        },
      };
    },
  };
}

/** Undefined for a refusal, where that does not matter any more. */
function tolerate<T>(isTolerant: boolean, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!isTolerant || !(error instanceof QpcError)) throw error;
    return undefined;
  }
}

function bad(what: string): InvalidArgumentError {
  return new InvalidArgumentError('BAD_FIELD', what);
}
