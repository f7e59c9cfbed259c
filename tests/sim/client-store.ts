/**
 * The store of a simulated client: the one of production, watched. What a transaction did becomes
 * history when it is durable, and at the points around it the process can die.
 */
import { hex } from '@quicprochat/proto';
import type { ClientStore } from '@quicprochat/client-lib/store';
import type { CursorMoved, HistoryLine } from '../checkers/index.ts';
import { watchedGroups } from './group-lines.ts';
import type { Process } from './process.ts';

export const clientCrashPoints = ['client:before-commit', 'client:after-commit'] as const;
export type ClientCrashPoint = (typeof clientCrashPoints)[number];

export interface WatchedParts {
  readonly inner: ClientStore;
  readonly process: Process;
  /** Whether the process dies at this point, now. Killing it is the answerer's business. */
  readonly dies: (point: ClientCrashPoint) => boolean;
  readonly tell: (line: HistoryLine) => void;
  readonly nowMs: () => number;
  /** Names of bytes that differ from run to run (`Trace.label`). */
  readonly label: (what: string, bytes: Uint8Array) => string;
  /** This device, and the name of any device by its id or key. */
  readonly device: string;
  readonly user: string;
  readonly nameOf: (deviceIdOrRidHex: string) => string;
  /** Own messages by row id; outlives the process, as the rows do. */
  readonly ownMessages: OwnMessages;
}

/** Inner id of a message, and the devices that it was sealed for. */
export type OwnMessages = Map<
  number,
  { readonly innerId: string; readonly recipients: readonly string[] }
>;

type Line = (atMs: number) => HistoryLine;
type Passed = Pick<CursorMoved, 'storeId' | 'from' | 'seq' | 'isFirst'>;

export function watchedStore(parts: WatchedParts): ClientStore {
  const { inner, process, dies, tell, nowMs, device, user, nameOf, ownMessages, label } = parts;
  let depth = 0;
  /** What the open transaction has done; told when it is durable. */
  let lines: Line[] = [];
  /** Own messages and the devices of their copies, by row id. */
  let sent = new Map<
    number,
    { conversation: string; innerId: string; n: number; recipients: string[]; epoch?: number }
  >();
  let failed: number[] = [];
  /** How far each log was passed, by its name; the inbox has none. */
  let cursors = new Map<string, Passed>();
  /** Where a gap begins whose cursor is not moved yet: that says of which log it is. */
  let gap: { readonly storeId: string; readonly from: number } | undefined;

  const gaveUp = (messageId: number | undefined, rid: Uint8Array, reason: string): void => {
    const own = messageId === undefined ? undefined : ownMessages.get(messageId);
    if (own === undefined) return;
    const { innerId } = own;
    const one = nameOf(hex(rid));
    // A post has one row for all who read the channel.
    const isDevice = own.recipients.includes(one);
    for (const recipient of isDevice ? [one] : own.recipients) {
      lines.push((atMs) => ({ kind: 'gaveUp', atMs, device, innerId, recipient, reason }));
    }
  };
  const settle = (): void => {
    const atMs = nowMs();
    for (const [id, message] of sent) {
      const { innerId, recipients } = message;
      ownMessages.set(id, { innerId, recipients });
      tell({ kind: 'sent', atMs, device, user, ...message });
    }
    if (failed.length > 0) {
      for (const { id, messageId, rid, failure } of inner.outbox.failures()) {
        if (failed.includes(id)) gaveUp(messageId, rid, failure);
      }
    }
    for (const line of lines) tell(line(atMs));
    for (const [log, passed] of cursors) {
      tell({ kind: 'cursor', atMs, device, ...(log !== '' && { log }), ...passed });
    }
  };
  const reset = (): void => {
    lines = [];
    sent = new Map();
    failed = [];
    cursors = new Map();
    gap = undefined;
  };

  return {
    ...inner,
    ...watchedGroups(inner, device, label, (line) => lines.push(line)),
    transaction(work) {
      if (depth > 0) return inner.transaction(work);
      if (!process.isDead) dies('client:before-commit');
      reset();
      depth += 1;
      let result;
      try {
        result = inner.transaction(work);
      } finally {
        depth -= 1;
      }
      if (!process.isDead) {
        settle();
        dies('client:after-commit');
      }
      return result;
    },
    messages: {
      ...inner.messages,
      add(message) {
        const id = inner.messages.add(message);
        if (id === undefined) return id;
        const conversation = hex(message.conversationId);
        const innerId = hex(message.innerId);
        const { n } = message;
        if (message.receivedMs === undefined) {
          sent.set(id, { conversation, innerId, n, recipients: [] });
        } else {
          const senderDevice = nameOf(message.senderDevice);
          lines.push((atMs) => ({
            kind: 'stored',
            atMs,
            device,
            user,
            conversation,
            innerId,
            senderDevice,
            n,
          }));
        }
        return id;
      },
    },
    outbox: {
      ...inner.outbox,
      add(entry, at) {
        inner.outbox.add(entry, at);
        if (entry.messageId === undefined) return;
        const rids = entry.post?.readers ?? entry.targets.map(({ rid }) => rid);
        const recipients = rids.map((rid) => nameOf(hex(rid)));
        const message = sent.get(entry.messageId);
        const own = ownMessages.get(entry.messageId);
        if (message === undefined && own !== undefined) {
          const { innerId } = own;
          lines.push((atMs) => ({ kind: 'sealedAnew', atMs, device, innerId, recipients }));
        }
        if (message === undefined) return;
        message.recipients.push(...recipients);
        if (entry.about !== undefined) message.epoch = Number(entry.about.epoch);
      },
      markFailed(id, failure) {
        const wasSealed = inner.outbox.markFailed(id, failure);
        if (wasSealed) failed.push(id);
        return wasSealed;
      },
      markLost(mid, rid, notice, failure) {
        const messageIds = inner.outbox.markLost(mid, rid, notice, failure);
        for (const messageId of messageIds) gaveUp(messageId, rid, `${notice} ${failure}`);
        return messageIds;
      },
    },
    tokens: {
      ...inner.tokens,
      block(userId, blockedMs) {
        inner.tokens.block(userId, blockedMs);
        lines.push((atMs) => ({ kind: 'blocked', atMs, device, user: userId, isBlocked: true }));
      },
      unblock(userId) {
        inner.tokens.unblock(userId);
        lines.push((atMs) => ({ kind: 'blocked', atMs, device, user: userId, isBlocked: false }));
      },
    },
    inbox: {
      ...inner.inbox,
      putCursor(log, moved) {
        const isFirst = inner.inbox.cursor(log) === undefined;
        inner.inbox.putCursor(log, moved);
        const begun = gap;
        gap = undefined;
        const storeId = hex(moved.storeId);
        const name = log.length === 0 ? '' : label('channel', log);
        const cursor = cursors.get(name);
        const first = begun?.storeId === storeId ? begun.from : moved.seq;
        const goesOn = cursor?.storeId === storeId && !isFirst;
        const from = goesOn ? cursor.from : first;
        const begins = goesOn ? cursor.isFirst === true : isFirst;
        const { seq } = moved;
        cursors.set(name, { storeId, from, seq, ...(begins && { isFirst: true as const }) });
      },
      addGap(storeId, from, to, at) {
        inner.inbox.addGap(storeId, from, to, at);
        gap = { storeId: hex(storeId), from };
        lines.push((atMs) => ({
          kind: 'missing',
          atMs,
          device,
          what: 'gap',
          reason: `${from} to ${to}`,
        }));
      },
      addUndecryptable(row) {
        inner.inbox.addUndecryptable(row);
        const { reason } = row;
        lines.push((atMs) => ({ kind: 'missing', atMs, device, what: 'undecryptable', reason }));
      },
    },
  };
}
