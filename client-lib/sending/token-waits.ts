/**
 * Copies that wait for a delivery token (docs/protocol/delivery.md, "Delivery tokens"): their device's
 * inbox takes nothing more of strangers, which is what they were taken for. Nothing goes to the device meanwhile, so that the order stays.
 */
import type { Runtime } from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import { isOvertaken } from './sealing.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { OutboxEntry, OutboxRow } from '../store/outbox-copies.ts';
import type { ClientStore } from '../store/store.ts';

/** Copies that waited for a token and are tried without, before the others wait on: below what an inbox takes of strangers. */
export const bareTriesMax = 32;

export interface TokenWaitsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  /** It is time to try the next copies without the token that they wait for. */
  readonly onDue: () => void;
  /** Copies that waited were overtaken meanwhile: they are due to be sealed anew. */
  readonly onDueAgain: () => void;
}

export class TokenWaits {
  readonly #parts: TokenWaitsParts;
  #timer: { cancel(): void } | undefined;

  constructor(parts: TokenWaitsParts) {
    this.#parts = parts;
  }

  close(): void {
    this.#timer?.cancel();
  }

  /** Devices (hex of rid) that nothing goes to now, and those whose wait is over; wakes at the next end. */
  look(): { readonly held: ReadonlySet<string>; readonly free: readonly string[] } {
    const { store, runtime, onDue } = this.#parts;
    this.#timer?.cancel();
    this.#timer = undefined;
    const nowMs = runtime.clock.now();
    const waits = store.outbox.tokenWaits(nowMs);
    const held = waits.filter(({ isHeld }) => isHeld);
    const nextMs = Math.min(...held.map(({ atMs }) => atMs));
    if (held.length > 0) {
      this.#timer = runtime.clock.timer(Math.max(1, nextMs - nowMs), onDue);
    }
    return {
      held: new Set(held.map(({ target }) => target)),
      free: waits.filter(({ isHeld }) => !isHeld).map(({ target }) => target),
    };
  }

  isHeld(target: string): boolean {
    const { store, runtime } = this.#parts;
    return store.outbox.isHeld(target, runtime.clock.now());
  }

  /**
   * A copy was refused for want of a token, or with one (16 bytes; empty for none) that its device has
   * replaced. False when it has waited for one for long enough.
   */
  wait({ id, messageId, rid, tokenWaits }: OutboxEntry, token: Uint8Array): boolean {
    const { store, events, runtime } = this.#parts;
    const nowMs = runtime.clock.now();
    if (!store.transaction(() => store.outbox.waitForToken(id, token, nowMs))) return false;
    if (tokenWaits === 0) events.emit({ type: 'waitsForToken', messageId, rid });
    return true;
  }

  /**
   * What was sent after a message that came back has its device drop the key: then another ciphertext
   * takes its place. True if so.
   */
  handOver({ id, rid, messageId, groupId, epoch, generation, tokenWaits }: OutboxRow): boolean {
    const { store, runtime, onDueAgain } = this.#parts;
    if (tokenWaits === 0 || messageId === undefined) return false;
    if (groupId === undefined || epoch === undefined) return false;
    if (!isOvertaken(store, { groupId, epoch, generation }, rid)) return false;
    store.transaction(() => store.outbox.setResend(id, runtime.clock.now()));
    onDueAgain();
    return true;
  }

  /** What else waits for a token of this device is not tried without one for a while. */
  postpone(target: string): void {
    const { store, runtime } = this.#parts;
    const atMs = runtime.clock.now() + outboxBounds.tokenWaitMinMs;
    store.transaction(() => store.outbox.postponeTokenWaits(target, atMs));
  }
}
