/**
 * Mailboxes for devices of peers' users (docs: protocol/p2p, "Mailboxes"): method 211, by which a device
 * proves who it is, and 201 to 204 for guests, who read what lies there as others read an inbox. Where
 * rows come from is enqueue.ts's business.
 */
import {
  checkManifest,
  DataLossError,
  FailedPreconditionError,
  manifestOfValue,
  maxFetchBytes,
  maxFetchRows,
  maxPeekRows,
  NotFoundError,
  parseUserId,
  PermissionDeniedError,
  sameBytes,
  UnauthenticatedError,
  verifyGuestProof,
  type CallContext,
  type Clock,
  type Handlers,
} from '@quicprochat/proto';
import type { LogCursor, LogRef, RequestMailboxRequest } from '@quicprochat/proto/messages';
import { wakeKey } from '../log-reader.ts';
import type { PeerAudits } from '../peer-audits.ts';
import type { Sessions } from '../sessions.ts';
import type { MailboxLimits } from '../store/mailbox-store.ts';
import type { NodeStore } from '../store/store.ts';
import type { LogWaiters } from '../waiters.ts';
import { guestOf } from './caller.ts';
import { wireFetched, wirePeeked } from './delivery.ts';

export interface MailboxParts {
  readonly clock: Clock;
  readonly store: NodeStore;
  readonly waiters: LogWaiters;
  readonly sessions: Sessions;
  readonly audits: Pick<PeerAudits, 'openCredential'>;
  readonly nodeSpki: Uint8Array;
  readonly limits: MailboxLimits | undefined;
}

type Reads = Pick<Handlers, 'fetch' | 'peek' | 'fetchWait' | 'ack'>;

/** Guests get their mailbox, everybody else what `others` gives. */
export function withMailboxes<H extends Reads>(
  parts: MailboxParts,
  others: H,
): H & Pick<Handlers, 'requestMailbox'> {
  const { clock, store, waiters, sessions, audits } = parts;

  /** Throws unless it is this device that calls. */
  function needDevice(request: RequestMailboxRequest, { connection }: CallContext): void {
    const { device, issuedMs, signature } = request;
    const binding = {
      clientSpki: connection.peer.spkiSha256,
      nodeSpki: parts.nodeSpki,
      issuedMs: Number(issuedMs),
    };
    if (!verifyGuestProof(binding, signature, device, clock.now())) {
      throw new UnauthenticatedError(
        'BAD_CREDENTIAL',
        'signature: not the device of this connection',
      );
    }
  }

  /** The user whose device it is. Throws what keeps it from being one. */
  async function userOf({ credential, device }: RequestMailboxRequest) {
    const { label, value } = await audits.openCredential(credential);
    const userId = new TextDecoder().decode(label);
    const { devices, closed } = checkManifest(manifestOfValue(value), userId);
    const isOfUser = devices.some(({ identityPub }) => sameBytes(identityPub, device));
    if (closed || !isOfUser) {
      throw new PermissionDeniedError('BLOCKED', 'credential: the device is not in its manifest');
    }
    return parseUserId(userId);
  }

  async function fetch(rid: Uint8Array, after: bigint, maxRows: number, maxBytes: number) {
    const { storeId, ...fetched } = await store.fetchMailbox(rid, Number(after), maxRows, maxBytes);
    return { storeId, fetched };
  }

  /** The mailbox as of now, for a cursor that is of it. */
  async function read(rid: Uint8Array, cursor: LogCursor) {
    const found = await fetch(rid, cursor.after, maxFetchRows, maxFetchBytes);
    const { storeId } = found;
    if (cursor.storeId.length > 0 && !sameBytes(cursor.storeId, storeId)) {
      const details = storeId;
      throw new DataLossError('STORE_CHANGED', 'cursor of another mailbox: start at 0', {
        details,
      });
    }
    return found;
  }

  /** It ends with the connection, and the connection may be another's by now. */
  async function isStillGuest({ connection, caller }: CallContext): Promise<boolean> {
    const now = await sessions.identify(connection);
    return now.class === 'guest' && sameBytes(now.identityPub, guestOf({ caller }).identityPub);
  }

  return {
    ...others,

    async requestMailbox(request, context) {
      const { limits } = parts;
      if (limits === undefined || limits.places === 0) {
        throw new FailedPreconditionError('FEATURE_OFF', 'this node keeps no mailboxes');
      }
      const { device: rid, tokenHashes } = request;
      // The cheaper proof comes first: credentials are known to many, and take longer to verify.
      needDevice(request, context);
      if (request.ends) {
        await store.endMailbox(rid);
        return {};
      }
      const { userId, domain } = await userOf(request);
      await store.grantMailbox({ rid, userId, domain, tokenHashes });
      sessions.bindGuest(context.connection, userId, rid);
      const { lifetimeMs, rows, strangerRows, bytes } = limits;
      return { lifetimeMs: BigInt(lifetimeMs), rows, strangerRows, bytes: BigInt(bytes) };
    },

    async fetch(request, context) {
      if (context.caller.class !== 'guest') return others.fetch(request, context);
      needMailbox(request.log);
      const { identityPub } = guestOf(context);
      const maxRows = request.maxRows || maxFetchRows;
      const maxBytes = request.maxBytes || maxFetchBytes;
      const { fetched, storeId } = await fetch(identityPub, request.after, maxRows, maxBytes);
      return wireFetched(fetched, storeId);
    },

    async peek(request, context) {
      if (context.caller.class !== 'guest') return others.peek(request, context);
      needMailbox(request.log);
      const { identityPub } = guestOf(context);
      const maxRows = request.maxRows || maxPeekRows;
      const after = Number(request.after);
      const { storeId, ...peeked } = await store.peekMailbox(identityPub, after, maxRows);
      return wirePeeked(peeked, storeId, clock.now());
    },

    async fetchWait(request, context) {
      if (context.caller.class !== 'guest') return others.fetchWait(request, context);
      const [cursor] = request.cursors;
      if (cursor === undefined || request.cursors.length > 1) throw noChannel();
      needMailbox(cursor.log);
      const { identityPub } = guestOf(context);
      const keys = [wakeKey(identityPub, new Uint8Array(0))];
      // The wait is armed before the read, so that no row falls between the two.
      using wait = waiters.wait(identityPub, keys, request.waitMs, context.signal);
      let found = await read(identityPub, cursor);
      const isEmpty = found.fetched.rows.length === 0 && found.fetched.gap === undefined;
      if (isEmpty && request.waitMs > 0) {
        await wait.done;
        if (!(await isStillGuest(context))) {
          throw new UnauthenticatedError('NOT_LOGGED_IN', 'ask for the mailbox again');
        }
        found = await read(identityPub, cursor);
      }
      return { logs: [{ log: {}, fetched: wireFetched(found.fetched, found.storeId) }] };
    },

    async ack(request, context) {
      if (context.caller.class !== 'guest') return others.ack(request, context);
      needMailbox(request.log);
      const { identityPub } = guestOf(context);
      await store.ackMailbox(identityPub, request.storeId, Number(request.upTo));
      return {};
    },
  };
}

function needMailbox(log: LogRef | undefined): void {
  if ((log?.cid.length ?? 0) > 0) throw noChannel();
}

function noChannel(): NotFoundError {
  return new NotFoundError('UNKNOWN_CHANNEL', 'a guest has its mailbox alone');
}
