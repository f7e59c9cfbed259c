/**
 * The store of a simulated client: the one of production, watched. What a transaction did becomes
 * history when it is durable, and at the points around it the process can die.
 */
import { hex } from '@quicprochat/proto';
import type { ClientStore } from '@quicprochat/client-lib/store';
import type { HistoryLine } from '../checkers/index.ts';
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
  /** Inner ids of own messages by row id; outlives the process, as the rows do. */
  readonly ownMessages: Map<number, string>;
  /** Ids of the envelope keys that it ever had, in hex; outlives the process. */
  readonly knownKeys: Set<string>;
}

type Line = (atMs: number) => HistoryLine;

export function watchedStore(parts: WatchedParts): ClientStore {
  const { inner, process, dies, tell, nowMs, device, user, nameOf, ownMessages, knownKeys, label } =
    parts;
  let depth = 0;
  /** What the open transaction has done; told when it is durable. */
  let lines: Line[] = [];
  /** Own messages and the devices of their copies, by row id. */
  let sent = new Map<
    number,
    { conversation: string; innerId: string; n: number; recipients: string[]; epoch?: number }
  >();
  let failed: number[] = [];
  let cursor: { storeId: string; from: number; seq: number } | undefined;

  const gaveUp = (messageId: number | undefined, rid: Uint8Array, reason: string): void => {
    const innerId = messageId === undefined ? undefined : ownMessages.get(messageId);
    if (innerId === undefined) return;
    const recipient = nameOf(hex(rid));
    lines.push((atMs) => ({ kind: 'gaveUp', atMs, device, innerId, recipient, reason }));
  };
  const settle = (): void => {
    const atMs = nowMs();
    for (const [id, message] of sent) {
      ownMessages.set(id, message.innerId);
      tell({ kind: 'sent', atMs, device, user, ...message });
    }
    if (failed.length > 0) {
      for (const { id, messageId, rid, failure } of inner.outbox.failures()) {
        if (failed.includes(id)) gaveUp(messageId, rid, failure);
      }
    }
    for (const line of lines) tell(line(atMs));
    if (cursor !== undefined) tell({ kind: 'cursor', atMs, device, ...cursor });
  };
  const reset = (): void => {
    lines = [];
    sent = new Map();
    failed = [];
    cursor = undefined;
  };

  return {
    ...inner,
    ...watchedGroups(inner, device, knownKeys, label, (line) => lines.push(line)),
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
        const recipients = entry.targets.map(({ rid }) => nameOf(hex(rid)));
        const message = sent.get(entry.messageId);
        if (message === undefined) return;
        message.recipients.push(...recipients);
        if (entry.about !== undefined) message.epoch = Number(entry.about.epoch);
      },
      markFailed(id, failure) {
        inner.outbox.markFailed(id, failure);
        failed.push(id);
      },
      markLost(mid, rid, notice, failure) {
        const messageIds = inner.outbox.markLost(mid, rid, notice, failure);
        for (const messageId of messageIds) gaveUp(messageId, rid, `${notice} ${failure}`);
        return messageIds;
      },
    },
    inbox: {
      ...inner.inbox,
      putCursor(log, moved) {
        inner.inbox.putCursor(log, moved);
        if (log.length > 0) return;
        const storeId = hex(moved.storeId);
        const from = cursor?.storeId === storeId ? cursor.from : moved.seq;
        cursor = { storeId, from, seq: moved.seq };
      },
      addGap(storeId, from, to, at) {
        inner.inbox.addGap(storeId, from, to, at);
        cursor = { storeId: hex(storeId), from, seq: to };
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
