/**
 * Delivery Service, the receiving half: Fetch, FetchWait, Peek, Ack and Subscribe on the inbox and
 * the channels of the calling device, and RelayStatus of what it sent (which enqueue.ts takes in).
 */
import {
  DataLossError,
  InvalidArgumentError,
  maxFetchBytes,
  maxFetchRows,
  maxPeekRows,
  PermissionDeniedError,
  UnauthenticatedError,
  type CallContext,
  type Clock,
  type Handlers,
} from '@quicprochat/proto';
import {
  RelayState,
  type FetchResponseSchema,
  type LogCursor,
  type LogRef,
  type MessageInitShape,
  type PeekResponseSchema,
} from '@quicprochat/proto/messages';
import { LogReader, wakeKey } from '../log-reader.ts';
import type { PushHub } from '../push.ts';
import type { Sessions } from '../sessions.ts';
import type { LogPosition, ReadLog } from '../store/channel-store.ts';
import type { Fetched, MessageStatus, Peeked } from '../store/message-store.ts';
import type { NodeStore } from '../store/store.ts';
import type { LogWaiters } from '../waiters.ts';
import { deviceOf } from './caller.ts';

export interface DeliveryParts {
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly push: PushHub;
  readonly waiters: LogWaiters;
  readonly sessions: Sessions;
}

export function deliveryHandlers(
  parts: DeliveryParts,
): Pick<
  Handlers,
  | 'setDeliveryTokens'
  | 'readTokenRenewals'
  | 'fetch'
  | 'peek'
  | 'fetchWait'
  | 'ack'
  | 'subscribe'
  | 'relayStatus'
> {
  const { store, push, waiters } = parts;
  const logs = new LogReader(store);

  function checkStore(storeId: Uint8Array): void {
    if (storeId.length > 0 && Buffer.compare(storeId, store.storeId) !== 0) {
      throw new DataLossError('STORE_CHANGED', 'cursor of another store: start at 0', {
        details: store.storeId,
      });
    }
  }

  /** Sessions end while calls wait and streams run: is the connection still the device's? */
  async function isEntitled({ connection, caller }: CallContext): Promise<boolean> {
    const now = await parts.sessions.identify(connection);
    const { identityPub } = deviceOf({ caller });
    return now.class === 'device' && Buffer.compare(now.identityPub, identityPub) === 0;
  }

  /** The cursors of a request, each of this store and for a log of its own. */
  function positionsOf(cursors: readonly LogCursor[]): readonly LogPosition[] {
    for (const { storeId } of cursors) checkStore(storeId);
    const positions = cursors.map(({ log, after }) => positionOf(log, after));
    const cids = new Set(positions.map(({ cid }) => Buffer.from(cid).toString('hex')));
    if (cids.size === positions.length) return positions;
    throw new InvalidArgumentError('BAD_FIELD', 'cursors: need each log once');
  }

  /** What there is in these logs now: of one alone also that it is empty. */
  async function readLogs(
    rid: Uint8Array,
    positions: readonly LogPosition[],
  ): Promise<readonly ReadLog[]> {
    const [position, second] = positions;
    if (position === undefined || second !== undefined) {
      return store.fetchLogs(rid, positions, maxFetchRows, maxFetchBytes);
    }
    const fetched = await logs.fetch(rid, position, maxFetchRows, maxFetchBytes);
    return [{ cid: position.cid, fetched }];
  }

  return {
    async fetch(request, context) {
      const fetched = await logs.fetch(
        deviceOf(context).identityPub,
        positionOf(request.log, request.after),
        request.maxRows || maxFetchRows,
        request.maxBytes || maxFetchBytes,
      );
      return wireFetched(fetched, store.storeId);
    },

    async peek(request, context) {
      const { identityPub } = deviceOf(context);
      const maxRows = request.maxRows || maxPeekRows;
      const position = positionOf(request.log, request.after);
      const peeked = await logs.peek(identityPub, position, maxRows);
      return wirePeeked(peeked, store.storeId, parts.clock.now());
    },

    async fetchWait(request, context) {
      const { identityPub } = deviceOf(context);
      const positions = positionsOf(request.cursors);
      const keys = positions.map(({ cid }) => wakeKey(identityPub, cid));
      // The wait is armed before the read, so that no row falls between the two.
      using wait = waiters.wait(identityPub, keys, request.waitMs, context.signal);
      let found = await readLogs(identityPub, positions);
      if (found.every(isEmpty) && request.waitMs > 0) {
        await wait.done;
        if (!(await isEntitled(context))) {
          throw new UnauthenticatedError('NOT_LOGGED_IN', 'the session ended: log in');
        }
        found = await readLogs(identityPub, positions);
      }
      return {
        logs: found.map(({ cid, fetched }) => ({
          log: { cid },
          fetched: wireFetched(fetched, store.storeId),
        })),
      };
    },

    async ack(request, context) {
      checkStore(request.storeId);
      const { identityPub } = deviceOf(context);
      const { cid, after: upTo } = positionOf(request.log, request.upTo);
      await logs.ack(identityPub, cid, upTo);
      push.acked(identityPub, cid, upTo);
      return {};
    },

    async subscribe(request, context) {
      const { identityPub } = deviceOf(context);
      const positions = positionsOf(request.cursors);
      // A cursor beyond the head must fail here, where the caller sees it; so must a foreign channel.
      await Promise.all(positions.map((position) => logs.peek(identityPub, position, 1)));
      const { connection } = context;
      const stillEntitled = (): Promise<boolean> => isEntitled(context);
      const { ephemeralLane: hasLane, subscription: number } = request;
      const lanes = hasLane ? { number } : undefined;
      push.subscribe({ rid: identityPub, positions, connection, isEntitled: stillEntitled, lanes });
      return { storeId: store.storeId };
    },

    async setDeliveryTokens({ hashes, renewals }, context) {
      const { identityPub } = deviceOf(context);
      return { wantsRenewals: await store.setDeliveryTokens(identityPub, hashes, renewals) };
    },

    async readTokenRenewals({ rid, token }) {
      const found = await store.tokenRenewals(rid, token);
      if (found !== undefined) return found;
      // One answer for a wrong token, no such device and nothing that is kept.
      throw new PermissionDeniedError('BLOCKED', 'token: nothing is kept for it');
    },

    async relayStatus(request, context) {
      const { identityPub } = deviceOf(context);
      const { domain, mids } = request;
      const { awaySinceMs, statuses } = await store.relayStatus(identityPub, domain, mids);
      return {
        awaySinceMs: BigInt(awaySinceMs),
        statuses: statuses.map((status) => ({ ...status, state: relayStates[status.state] })),
      };
    },
  };
}

const relayStates: Readonly<Record<MessageStatus['state'], RelayState>> = {
  unknown: RelayState.UNSPECIFIED,
  queued: RelayState.QUEUED,
  deferred: RelayState.DEFERRED,
  relayed: RelayState.RELAYED,
  bounced: RelayState.BOUNCED,
};

function positionOf(log: LogRef | undefined, after: bigint): LogPosition {
  return { cid: log?.cid ?? new Uint8Array(0), after: Number(after) };
}

function isEmpty({ fetched: { rows, gap } }: ReadLog): boolean {
  return rows.length === 0 && gap === undefined;
}

export function wirePeeked(
  { rows, ...peeked }: Peeked,
  storeId: Uint8Array,
  nowMs: number,
): MessageInitShape<typeof PeekResponseSchema> {
  return {
    ...wireRead(peeked, storeId),
    rows: rows.map(({ receivedMs, seq, ...header }) => ({
      ...header,
      seq: BigInt(seq),
      ageMs: BigInt(Math.max(0, nowMs - receivedMs)),
    })),
  };
}

export function wireFetched(
  fetched: Fetched,
  storeId: Uint8Array,
): MessageInitShape<typeof FetchResponseSchema> {
  return {
    ...wireRead(fetched, storeId),
    acked: BigInt(fetched.acked ?? 0),
    rows: fetched.rows.map((row) => ({
      ...row,
      seq: BigInt(row.seq),
      receivedMs: BigInt(row.receivedMs),
    })),
  };
}

/** What Fetch and Peek say of the log beside its rows. */
function wireRead({ floor, head, gap }: Omit<Fetched, 'rows'>, storeId: Uint8Array) {
  return {
    storeId,
    floor: BigInt(floor),
    head: BigInt(head),
    ...(gap === undefined ? {} : { gap: { from: BigInt(gap.from), to: BigInt(gap.to) } }),
  };
}
