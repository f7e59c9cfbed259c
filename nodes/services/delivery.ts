/**
 * Delivery Service, the receiving half: Fetch, FetchWait, Peek, Ack and Subscribe on the inbox of
 * the calling device, and RelayStatus of what it sent (which enqueue.ts takes in).
 */
import {
  DataLossError,
  maxFetchBytes,
  maxFetchRows,
  maxPeekRows,
  NotFoundError,
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
} from '@quicprochat/proto/messages';
import type { PushHub } from '../push.ts';
import type { Sessions } from '../sessions.ts';
import type { Fetched, MessageStatus, NodeStore } from '../store/store.ts';
import type { InboxWaiters } from '../waiters.ts';
import { deviceOf } from './caller.ts';

export interface DeliveryParts {
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly push: PushHub;
  readonly waiters: InboxWaiters;
  readonly sessions: Sessions;
}

export function deliveryHandlers(
  parts: DeliveryParts,
): Pick<
  Handlers,
  'setDeliveryTokens' | 'fetch' | 'peek' | 'fetchWait' | 'ack' | 'subscribe' | 'relayStatus'
> {
  const { store, push, waiters } = parts;

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

  async function fetchResponse(
    rid: Uint8Array,
    after: number,
    maxRows: number,
    maxBytes: number,
  ): Promise<MessageInitShape<typeof FetchResponseSchema>> {
    return wireFetched(await store.fetch(rid, after, maxRows, maxBytes), store.storeId);
  }

  return {
    async fetch(request, context) {
      inboxOnly(request.log);
      return fetchResponse(
        deviceOf(context).identityPub,
        Number(request.after),
        request.maxRows || maxFetchRows,
        request.maxBytes || maxFetchBytes,
      );
    },

    async peek(request, context) {
      inboxOnly(request.log);
      const { identityPub } = deviceOf(context);
      const maxRows = request.maxRows || maxPeekRows;
      const { rows, ...peeked } = await store.peek(identityPub, Number(request.after), maxRows);
      const nowMs = parts.clock.now();
      return {
        ...wireRead(peeked, store.storeId),
        rows: rows.map(({ receivedMs, seq, ...header }) => ({
          ...header,
          seq: BigInt(seq),
          ageMs: BigInt(Math.max(0, nowMs - receivedMs)),
        })),
      };
    },

    async fetchWait(request, context) {
      const { identityPub } = deviceOf(context);
      const cursor = inboxCursor(request.cursors);
      checkStore(cursor.storeId);
      const after = Number(cursor.after);
      // The wait is armed before the read, so that no row falls between the two.
      using wait = waiters.wait(identityPub, request.waitMs, context.signal);
      let fetched = await fetchResponse(identityPub, after, maxFetchRows, maxFetchBytes);
      if (fetched.rows?.length === 0 && fetched.gap === undefined && request.waitMs > 0) {
        await wait.done;
        if (!(await isEntitled(context))) {
          throw new UnauthenticatedError('NOT_LOGGED_IN', 'the session ended: log in');
        }
        fetched = await fetchResponse(identityPub, after, maxFetchRows, maxFetchBytes);
      }
      return { logs: [{ log: {}, fetched }] };
    },

    async ack(request, context) {
      inboxOnly(request.log);
      checkStore(request.storeId);
      const { identityPub } = deviceOf(context);
      const upTo = Number(request.upTo);
      await store.ack(identityPub, upTo);
      push.acked(identityPub, upTo);
      return {};
    },

    async subscribe(request, context) {
      const { identityPub } = deviceOf(context);
      const cursor = inboxCursor(request.cursors);
      checkStore(cursor.storeId);
      const after = Number(cursor.after);
      // A cursor beyond the head must fail here, where the caller sees it.
      await store.fetch(identityPub, after, 1, 1);
      const { connection } = context;
      const stillEntitled = (): Promise<boolean> => isEntitled(context);
      push.subscribe({ rid: identityPub, after, connection, isEntitled: stillEntitled });
      return { storeId: store.storeId };
    },

    async setDeliveryTokens({ hashes }, context) {
      await store.setDeliveryTokens(deviceOf(context).identityPub, hashes);
      return {};
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

function inboxOnly(log: LogRef | undefined): void {
  if (log !== undefined && log.cid.length > 0) {
    throw new NotFoundError('UNKNOWN_CHANNEL', 'this node has no such channel');
  }
}

/** The one cursor of a request that may only be about the own inbox. */
function inboxCursor(cursors: readonly LogCursor[]): LogCursor {
  for (const cursor of cursors) inboxOnly(cursor.log);
  const [cursor, second] = cursors;
  if (cursor === undefined || second !== undefined) {
    throw new NotFoundError('UNKNOWN_CHANNEL', 'need one cursor: the own inbox');
  }
  return cursor;
}

function wireFetched(
  fetched: Fetched,
  storeId: Uint8Array,
): MessageInitShape<typeof FetchResponseSchema> {
  return {
    ...wireRead(fetched, storeId),
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
