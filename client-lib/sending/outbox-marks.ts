/**
 * What is known of copies and not written down yet: OKs wait a moment for company, since each costs a
 * transaction, and a copy whose OK is lost is only sent once more.
 */
import type { Runtime } from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import { completed } from '../receiving/receipts.ts';
import type { SendState } from '../store/message-rows.ts';
import type { OutboxEntry } from '../store/outbox-copies.ts';
import type { PeerPath } from '../store/paths.ts';
import type { ClientStore } from '../store/store.ts';

export const markLimits = {
  /** How long an OK waits for others (ms). */
  delayMs: 10,
  /** Wait after a store that failed (ms). */
  retryMs: 30_000,
} as const;

/** A node's OK to a copy. */
export interface Acceptance {
  readonly storeId: Uint8Array;
  readonly proof: Uint8Array;
  readonly receivedMs: number;
  /** What it was when it went. */
  readonly tokenWaits: number;
  /** With which that node has it, as far as that is known (16 bytes). */
  readonly token: Uint8Array | undefined;
  /** `guest`: of the recipient's own node, so that it is as good as relayed. */
  readonly via: 'node' | 'guest';
}

type Mark =
  | { readonly kind: 'accepted'; readonly atMs: number; readonly ok: Acceptance }
  /** The device itself has it on its disk. */
  | { readonly kind: 'delivered'; readonly atMs: number; readonly via: PeerPath };

/** A node or the device has every copy, and maybe more is known by now. */
const arrivedStates: ReadonlySet<SendState | undefined> = new Set([
  'accepted',
  'relayed',
  'delivered',
  'read',
]);

export interface OutboxMarksParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  /** Of the own account. */
  readonly userId: string;
  /** They are written down. */
  readonly onWritten: () => void;
}

export class OutboxMarks {
  readonly #parts: OutboxMarksParts;
  /** By row id. */
  readonly #marks = new Map<number, Mark>();
  readonly #messages = new Map<number, number>();
  #isTimed = false;
  #isClosed = false;

  constructor(parts: OutboxMarksParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#marks.size;
  }

  accepted(entry: OutboxEntry, ok: Acceptance): void {
    this.#add(entry, { kind: 'accepted', atMs: this.#parts.runtime.clock.now(), ok });
  }

  delivered(entry: OutboxEntry, via: PeerPath): void {
    this.#add(entry, { kind: 'delivered', atMs: this.#parts.runtime.clock.now(), via });
  }

  /** Writes down everything that came in. Durable on return. */
  write(): void {
    const { store, events, onWritten, userId } = this.#parts;
    if (this.#marks.size === 0 || this.#isClosed) return;
    const marks = [...this.#marks];
    const complete = new Set<number>();
    store.transaction(() => {
      for (const [id, mark] of marks) {
        const messageId = this.#messages.get(id);
        if (mark.kind === 'accepted') this.#writeAccepted(id, mark.ok, mark.atMs);
        else {
          store.outbox.markDelivered(id, mark.atMs, mark.via);
          if (messageId === undefined) continue;
          if (completed(store, userId, messageId, mark.atMs)) complete.add(messageId);
        }
      }
    });
    const messages = new Set<number>();
    for (const [id] of marks) {
      this.#marks.delete(id);
      const messageId = this.#messages.get(id);
      this.#messages.delete(id);
      if (messageId !== undefined) messages.add(messageId);
    }
    for (const messageId of messages) {
      if (arrivedStates.has(store.messages.sendState(messageId))) {
        events.emit({ type: 'accepted', messageId, via: store.outbox.paths(messageId) });
      }
      if (complete.has(messageId)) events.emit({ type: 'delivered', messageId });
    }
    onWritten();
  }

  /** Writes the last ones. Whatever comes after is asked for again by the next run. */
  close(): void {
    this.write();
    this.#isClosed = true;
  }

  #writeAccepted(id: number, ok: Acceptance, atMs: number): void {
    const { outbox } = this.#parts.store;
    const { storeId, tokenWaits, token, via, proof, receivedMs } = ok;
    const isNew = outbox.markAccepted(id, storeId, atMs, { tokenWaits, token, via });
    if (isNew) outbox.putProof(id, proof, receivedMs);
    if (via === 'guest') outbox.markArrived(id);
  }

  #add({ id, messageId }: OutboxEntry, mark: Mark): void {
    if (this.#isClosed) return;
    // What the device said outdoes what a node said.
    if (this.#marks.get(id)?.kind === 'delivered') return;
    this.#marks.set(id, mark);
    if (messageId !== undefined) this.#messages.set(id, messageId);
    this.#writeIn(markLimits.delayMs);
  }

  #writeIn(delayMs: number): void {
    const { clock, log } = this.#parts.runtime;
    if (this.#isTimed) return;
    this.#isTimed = true;
    clock.timer(delayMs, () => {
      this.#isTimed = false;
      try {
        this.write();
      } catch (error) {
        // The OKs are still here; without them the same bytes are sent again, to no effect.
        log.error('outbox: OKs are not written down', { error: String(error) });
        this.#writeIn(markLimits.retryMs);
      }
    });
  }
}
