/**
 * The fan-out of messages in one transaction: rows for inboxes of this node, and for each peer one
 * row with a list of devices per payload. Each payload is stored once. What one target is refused
 * for concerns no other device; for the same device, with the same token, what stands behind it is refused
 * with it, or it would arrive before. So it is with a peer whose outbox is full.
 */
import { messageTag, PayloadTooLargeError, Status } from '@quicprochat/proto';
import { needBytes, storeBounds } from '../bounds.ts';
import type { Operations, QueryContext } from '../operations.ts';
import type { BatchTarget, TargetOutcome } from '../message-store.ts';
import type { TokenQueries } from './delivery-tokens.ts';
import type { InboxQueries } from './inbox.ts';
import type { LogAppend } from './log-append.ts';
import type { MailboxQueries } from './mailboxes.ts';
import type { OutboxAppend } from './outbox.ts';
import { IncomingPayload } from './payloads.ts';
import { joinTokens } from './row-tokens.ts';

const blocked = {
  outcome: 'refused',
  status: Status.PermissionDenied,
  reason: 'BLOCKED',
} as const;

interface BatchPayload {
  readonly mid: Uint8Array;
  readonly tag: Uint8Array;
  readonly incoming: IncomingPayload;
}

/** Targets of one peer that share a payload: one row of its outbox. */
interface Group {
  readonly peer: string;
  readonly payload: BatchPayload;
  readonly rids: Uint8Array[];
  readonly tokens: (Uint8Array | undefined)[];
  /** Where their outcomes go. */
  readonly indexes: number[];
}

export function enqueueBatchQueries(
  context: QueryContext,
  inbox: InboxQueries,
  outbox: OutboxAppend,
  logs: LogAppend,
  tokens: TokenQueries,
  mailboxes: Pick<MailboxQueries, 'logOf'>,
): Pick<Operations, 'enqueueBatch'> {
  /**
   * A device that is not there looks like one that gave no token. Who has one of before is a stranger, as with a
   * login, and does not hear that it was replaced.
   */
  function hasToken(nowMs: number, { rid, token }: BatchTarget): boolean {
    if (token === undefined) return false;
    const inbox = logs.byKey(rid);
    if (inbox !== undefined)
      return tokens.isValid(inbox.id, token) || tokens.isPast(inbox.id, token);
    const mailbox = mailboxes.logOf(nowMs, rid);
    return mailbox !== undefined && tokens.isValid(mailbox.id, token);
  }

  return {
    enqueueBatch(nowMs, { payloads: given, targets, kind, ttlMs, sender, needsTokens }) {
      const payloads = given.map(({ mid, payload }): BatchPayload => {
        needBytes(mid, storeBounds.midBytes, 'mid');
        const { payloadBytes } = storeBounds;
        if (payload.length > payloadBytes) {
          throw new PayloadTooLargeError(
            `payload: ${payload.length} bytes, at most ${payloadBytes}`,
          );
        }
        return { mid, tag: messageTag(mid, payload), incoming: new IncomingPayload(payload) };
      });
      for (const { rid } of targets) needBytes(rid, storeBounds.ridBytes, 'rid');
      const senderLog = sender && logs.byKey(sender)?.id;
      const outcomes: TargetOutcome[] = [];
      const groups = new Groups();
      /** By device of this node and token. */
      const refusals = new Map<string, TargetOutcome>();
      const here = (target: BatchTarget, { mid, tag, incoming }: BatchPayload): TargetOutcome => {
        if (needsTokens === true && !hasToken(nowMs, target)) return blocked;
        const delivery = { kind, mid, tag, payload: incoming, ttlMs, sender: senderLog };
        return inbox.outcomeOf(inbox.deliverHere(nowMs, target.rid, delivery, target.token), tag);
      };

      for (const [index, target] of targets.entries()) {
        const payload = payloads[target.payload];
        if (payload === undefined) throw new RangeError(`payload ${target.payload} of a target`);
        if (target.peer === undefined) {
          const way = textOf(target.rid) + textOf(target.token ?? new Uint8Array(0));
          const outcome = refusals.get(way) ?? here(target, payload);
          if (outcome.outcome === 'refused') refusals.set(way, outcome);
          outcomes[index] = outcome;
          continue;
        }
        // A token opens inboxes here alone.
        if (needsTokens === true) {
          outcomes[index] = blocked;
          continue;
        }
        const { tag } = payload;
        const since = nowMs - storeBounds.repeatMs;
        const receivedMs = outbox.receivedMs(target.peer, tag, target.rid, since);
        if (receivedMs === undefined) groups.add(index, target, target.peer, payload);
        else outcomes[index] = { outcome: 'duplicate', tag, receivedMs };
      }

      const fullPeers = new Set<string>();
      for (const { peer, payload, rids, tokens, indexes } of groups.all) {
        const { mid, tag, incoming } = payload;
        context.needRoom();
        const { length } = incoming.bytes;
        const isFull =
          fullPeers.has(peer) || outbox.refusal(nowMs, peer, length, senderLog) !== undefined;
        if (isFull) fullPeers.add(peer);
        else {
          outbox.append(nowMs, peer, {
            ...{ kind, mid, tag, payload: incoming, ttlMs, sender: senderLog },
            rids: Buffer.concat(rids),
            tokens: joinTokens(tokens),
          });
        }
        for (const index of indexes) {
          outcomes[index] = isFull
            ? { outcome: 'refused', status: Status.Unavailable, reason: 'PEER_UNREACHABLE' }
            : { outcome: 'stored', tag, receivedMs: nowMs };
        }
      }
      return outcomes;
    },
  };
}

/** Rows in the making. A device finds its messages in the order in which the batch names it. */
class Groups {
  readonly all: Group[] = [];
  /** Newest group of a peer and payload. */
  readonly #open = new Map<string, number>();
  /** Newest group that a device is in. */
  readonly #last = new Map<string, number>();
  /** The group that brings a payload to a device. */
  readonly #taken = new Map<string, Group>();

  add(index: number, { rid, token }: BatchTarget, peer: string, payload: BatchPayload): void {
    const device = `${peer} ${textOf(rid)}`;
    const message = `${peer} ${textOf(payload.tag)}`;
    const taken = this.#taken.get(`${device} ${message}`);
    if (taken !== undefined) {
      // The same message for the same device twice: one row, one answer.
      taken.indexes.push(index);
      return;
    }
    const at = this.#groupFor(message, this.#last.get(device) ?? -1, peer, payload);
    const group = this.all[at];
    if (group === undefined) throw new RangeError(`group ${at}`);
    group.rids.push(rid);
    group.tokens.push(token);
    group.indexes.push(index);
    this.#last.set(device, at);
    this.#taken.set(`${device} ${message}`, group);
  }

  /** The open group, unless a device would find it before one that it is in already. */
  #groupFor(message: string, last: number, peer: string, payload: BatchPayload): number {
    const open = this.#open.get(message) ?? -1;
    const group = this.all[open];
    if (group !== undefined && open > last && group.rids.length < storeBounds.ridsPerRow)
      return open;
    const at = this.all.push({ peer, payload, rids: [], tokens: [], indexes: [] }) - 1;
    this.#open.set(message, at);
    return at;
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
