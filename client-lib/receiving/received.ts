/**
 * Received messages as an async iterator over the store: what the application has not had yet
 * waits there, so nothing is lost between two iterators or two runs of the program.
 */
import type { Runtime } from '@quicprochat/proto';
import type { Verification } from '../contacts/contact.ts';
import type { Contacts } from '../contacts/contacts.ts';
import type { MessageRecord } from '../store/message-rows.ts';
import type { OtherPath } from '../store/paths.ts';
import type { ClientStore } from '../store/store.ts';

export const receivedLimits = {
  /** Messages read from the store at once, and marked as had at once. */
  batch: 16,
} as const;

/** A message of somebody else. */
export interface ReceivedMessage {
  /** Inner id (16 bytes), once per message as the user sees it. */
  readonly id: Uint8Array;
  readonly conversationId: Uint8Array;
  readonly senderUserId: string;
  readonly senderDeviceId: string;
  readonly text: string;
  /** Sender's clock (ms); a claim. */
  readonly sentMs: number;
  /** Our clock when it became durable here (ms). */
  readonly receivedMs: number;
  /** Order on screen: (lamport, id). */
  readonly lamport: number;
  /** By which path it came. */
  readonly via: 'node' | OtherPath;
  /** How sure we are of the sender's keys now. */
  readonly verification: Verification;
}

/** Wakes iterators when there is something new. */
export class News {
  readonly #waiting = new Set<() => void>();
  #isClosed = false;
  #restarts = 0;

  /** How often what was passed over has become something to show. */
  get restarts(): number {
    return this.#restarts;
  }
  get isClosed(): boolean {
    return this.#isClosed;
  }
  /** Messages that were hidden are to be shown, older ones than the newest. */
  restart(): void {
    this.#restarts += 1;
    this.ring();
  }
  ring(): void {
    for (const wake of this.#waiting) wake();
  }
  close(): void {
    this.#isClosed = true;
    this.ring();
  }
  /** Resolves at the next ring or abort. */
  async next(signal?: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal?.addEventListener('abort', wake);
    });
  }
}

export interface ReceivedParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly news: News;
  readonly contacts: Contacts;
  /** The application had these messages (row ids); durable already. */
  readonly onHad: (messageIds: readonly number[]) => void;
}

/** Ends at the signal or when the client closes. */
export async function* receivedMessages(
  { store, runtime, news, contacts, onHad }: ReceivedParts,
  signal?: AbortSignal,
): AsyncIterableIterator<ReceivedMessage> {
  let after = 0;
  let { restarts } = news;
  const had: number[] = [];
  const isOver = (): boolean => signal?.aborted === true || news.isClosed;
  const markHad = (): void => {
    if (had.length === 0) return;
    const ids = had.splice(0);
    store.messages.markDisplayed(ids, runtime.clock.now());
    onHad(ids);
  };
  try {
    while (!isOver()) {
      if (restarts !== news.restarts) {
        ({ restarts } = news);
        after = 0;
      }
      const rows = store.messages.undisplayed(after, receivedLimits.batch);
      if (rows.length === 0) {
        await news.next(signal);
        continue;
      }
      for (const row of rows) {
        after = row.id;
        // Since the rows were read.
        if (store.tokens.isBlocked(row.senderUser)) continue;
        had.push(row.id);
        yield receivedOf(row, contacts);
        if (isOver()) return;
      }
      markHad();
    }
  } finally {
    // The store may be closed already when the client ended first; then the last ones come again.
    if (!news.isClosed) markHad();
  }
}

function receivedOf(row: MessageRecord, contacts: Contacts): ReceivedMessage {
  return {
    id: row.innerId,
    conversationId: row.conversationId,
    senderUserId: row.senderUser,
    senderDeviceId: row.senderDevice,
    text: row.text,
    sentMs: row.sentMs,
    receivedMs: row.receivedMs ?? row.sentMs,
    lamport: row.lamport,
    via: row.via ?? 'node',
    verification: contacts.verificationOf(row.senderUser, row.senderDevice),
  };
}
