/**
 * Durable sends (docs/protocol/delivery.md, states SEALED and ACCEPTED): every SEALED row goes
 * to the own node until it says OK or refuses for good. One request in flight per device, in
 * order, always the same bytes; several devices at once. A row leaves SEALED only by the node's
 * word, so a restart goes on where this stopped.
 */
import {
  hasReason,
  jitter,
  messageTag,
  QpcError,
  Status,
  TransportError,
  type Runtime,
} from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import { fullReason } from './bounces.ts';
import type { DeliveryProofs } from './delivery-proofs.ts';
import type { EventBus } from './events.ts';
import { Courier } from './courier.ts';
import { ClosedError, type Session } from './link.ts';
import { isOvertaken } from './sealing.ts';
import type { SealedReceipt, SealedSender } from './sealed-sender.ts';
import { outboxBounds } from './store/outbox-rows.ts';
import type { ClientStore, OutboxEntry, OutboxRow, SendState } from './store/store.ts';

export const outboxLimits = {
  /** Devices that are sent to at the same time: by single calls, and by batches. */
  targetsInParallel: 32,
  targetsInBatches: 512,
  /** First and longest wait after a temporary refusal (ms). */
  backOffMinMs: 200,
  backOffMaxMs: 30_000,
  /** How long a copy of a sealed sender waits for a valid delivery token (ms). */
  tokenWaitMs: 24 * 3600 * 1000,
  /** Copies that waited for a token and are tried without, before the others wait on: below what an inbox takes of strangers. */
  bareTries: 32,
  /** Internal errors of the node on one row before it counts as refused. */
  internalErrors: 8,
  /** OKs wait this long for company before they are written down (ms): a repeat is harmless. */
  markDelayMs: 10,
} as const;

/** The node has every copy, and maybe more is known by now. */
const arrivedStates: ReadonlySet<SendState | undefined> = new Set([
  'accepted',
  'relayed',
  'delivered',
  'read',
]);

/** The inbox has no place for strangers, which stays so for us: the node says no time to come back. */
function isFullForStrangers(error: unknown): boolean {
  return hasReason(error, fullReason) && error.retryAfterMs === undefined;
}

/** What an error of Enqueue means for the row. */
export type SendVerdict = 'permanent' | 'temporary' | 'disconnected' | 'expired';

/** Pure: the verdict on an error of Enqueue. */
export function sendVerdict(error: unknown): SendVerdict {
  if (error instanceof TransportError) {
    return error.failure === 'protocol' || error.failure === 'internal'
      ? 'temporary'
      : 'disconnected';
  }
  if (!(error instanceof QpcError)) return 'temporary';
  if (isFullForStrangers(error)) return 'permanent';
  switch (error.status) {
    case Status.Unauthenticated:
      return 'expired';
    case Status.Unavailable:
    case Status.DeadlineExceeded:
    case Status.ResourceExhausted:
    case Status.Internal:
      return 'temporary';
    default:
      return 'permanent';
  }
}

/**
 * Pure: the same for a copy that went without a login. A token that is no longer valid may be followed by
 * another one of its device; the copy does not go with the sender's name instead.
 */
export function sealedVerdict(error: unknown, ageMs: number): SendVerdict {
  if (hasReason(error, 'BLOCKED', 'NOT_LOGGED_IN')) {
    return ageMs < outboxLimits.tokenWaitMs ? 'temporary' : 'permanent';
  }
  return sendVerdict(error);
}

/** The node's OK to a row. */
interface Acceptance {
  readonly storeId: Uint8Array;
  readonly atMs: number;
  readonly proof: Uint8Array;
  readonly receivedMs: number;
  /** What it was when it went. */
  readonly tokenWaits: number;
  readonly withToken: boolean;
}

export interface OutboxParts {
  /** Of the own node. */
  readonly domain: string;
  readonly proofs: Pick<DeliveryProofs, 'isProven'>;
  /** Where senders are sealed: the way to the recipient's node without a login. */
  readonly sealed?: Pick<SealedSender, 'send'> | undefined;
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  /** Copies that waited were overtaken meanwhile: they are due to be sealed anew. */
  readonly onOvertaken: () => void;
}

export class Outbox {
  readonly #parts: OutboxParts;
  #session: Session | undefined;
  #courier: Courier | undefined;
  #storeId: Uint8Array = new Uint8Array(8);
  /** Devices being sent to (hex of rid). */
  readonly #busy = new Set<string>();
  /** Devices whose last copy did not get through, and that wait for another try: they hold no place. */
  readonly #resting = new Set<string>();
  readonly #failures = new Map<string, number>();
  /** Row id up to which a device has everything, written down or not. */
  readonly #sentUpTo = new Map<string, number>();
  /** How often older rows than these became SEALED again. */
  #reopenings = 0;
  /** OKs that are not written down yet: row id -> acceptance. */
  readonly #marks = new Map<number, Acceptance>();
  readonly #messages = new Map<number, number>();
  readonly #internalErrors = new Map<number, number>();
  /** Rows that the recipient's own node took: there is nothing to ask the sender's node about. */
  readonly #isWithRecipient = new Set<number>();
  /** Rows whose OK was not signed, and of which that was told. */
  readonly #unproven = new Set<number>();
  #isMarkTimerSet = false;
  /** For the next copies that are tried without the token that they wait for. */
  #waitTimer: { cancel(): void } | undefined;
  /** A rate limit holds for the whole device, not for one recipient. */
  #pausedUntilMs = 0;
  readonly #idleWaiters = new Set<() => void>();
  #isClosed = false;

  constructor(parts: OutboxParts) {
    this.#parts = parts;
  }

  /** Sends over this session; `storeId` names the node's store that its OKs are about. */
  open(session: Session, storeId: Uint8Array): void {
    this.#session = session;
    this.#courier = new Courier(session);
    this.#storeId = storeId;
    this.kick();
  }

  /** Copies that another store of the node had accepted are sent once more. Returns how many. */
  storeChanged(storeId: Uint8Array): number {
    const { store } = this.#parts;
    return this.reopen(() => store.transaction(() => store.outbox.reopen(storeId)));
  }

  /** `work` makes rows SEALED again that had their OK, which the store must know of before. */
  reopen<T>(work: () => T): T {
    this.writeMarks();
    const result = work();
    this.#sentUpTo.clear();
    this.#reopenings += 1;
    this.kick();
    return result;
  }

  /** New rows are there. */
  kick(): void {
    const [session, courier] = [this.#session, this.#courier];
    if (session === undefined || courier === undefined) return;
    if (session.signal.aborted || this.#isClosed) return;
    const { store } = this.#parts;
    const { targetsInParallel, targetsInBatches } = outboxLimits;
    const targetsMax = courier.takesBatches ? targetsInBatches : targetsInParallel;
    const held = this.#release();
    for (const { target, newestId } of store.outbox.openTargets()) {
      if (this.#busy.size >= targetsMax) return;
      // Rows whose OK is not written down yet are still SEALED in the store.
      if (this.#busy.has(target) || this.#resting.has(target) || held.has(target)) continue;
      if (newestId <= (this.#sentUpTo.get(target) ?? 0)) continue;
      this.#busy.add(target);
      void this.#sendTo(target, session, courier);
    }
    this.#settle();
  }

  /**
   * Copies that waited for a token may be older than what went since: where one is known, or it is time to
   * try without, they are looked for from the start. Returns the devices that nothing goes to now.
   */
  #release(): ReadonlySet<string> {
    const { store, runtime } = this.#parts;
    this.#waitTimer?.cancel();
    this.#waitTimer = undefined;
    const nowMs = runtime.clock.now();
    const waits = store.outbox.tokenWaits(nowMs);
    const held = waits.filter(({ isHeld }) => isHeld);
    const free = waits.filter(({ target, isHeld }) => !isHeld && !this.#busy.has(target));
    // Those whose OK is not written down would be sent once more.
    if (free.length > 0) this.writeMarks();
    for (const { target } of free) if (this.#sentUpTo.delete(target)) this.#reopenings += 1;
    const nextMs = Math.min(...held.map(({ atMs }) => atMs));
    if (held.length > 0) {
      this.#waitTimer = runtime.clock.timer(Math.max(1, nextMs - nowMs), () => this.#kickAgain());
    }
    return new Set(held.map(({ target }) => target));
  }

  #isHeld(target: string): boolean {
    const { store, runtime } = this.#parts;
    return store.outbox.isHeld(target, runtime.clock.now());
  }

  /** Never fails: a store that does is asked again after a while, or by the next start. */
  async #sendTo(target: string, session: Session, courier: Courier): Promise<void> {
    const { clock, log } = this.#parts.runtime;
    try {
      await this.#sendAll(target, session, courier);
      this.#busy.delete(target);
      // Another device may wait for the free slot, a row came at the last moment, or a newer
      // session found this device still busy with the old one.
      this.kick();
      this.#settle();
    } catch (error) {
      log.error('outbox', { error: String(error) });
      clock.timer(outboxLimits.backOffMaxMs, () => {
        this.#busy.delete(target);
        this.#kickAgain();
      });
    }
  }

  #kickAgain(): void {
    try {
      this.kick();
    } catch (error) {
      this.#parts.runtime.log.error('outbox', { error: String(error) });
    }
  }

  /** Resolves when no row is SEALED that can be sent: copies may wait for a token; rejects with the signal's reason, or CLOSED. */
  async flush(signal?: AbortSignal): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.#isClosed) throw new ClosedError();
      this.writeMarks();
      if (this.#sendable() === 0) return;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#idleWaiters.delete(wake);
          signal?.removeEventListener('abort', wake);
          resolve();
        };
        this.#idleWaiters.add(wake);
        signal?.addEventListener('abort', wake);
      });
    }
  }

  /**
   * Writes down the last OKs and lets waiters go. Calls that are still failing over a session that ended
   * do not touch the store any more; an OK that comes now is asked for again.
   */
  close(): void {
    this.writeMarks();
    this.#waitTimer?.cancel();
    this.#isClosed = true;
    for (const wake of this.#idleWaiters) wake();
  }

  /** Writes down the OKs that came in. Durable on return. */
  writeMarks(): void {
    const { store, events } = this.#parts;
    if (this.#marks.size === 0 || this.#isClosed) return;
    const marks = [...this.#marks];
    store.transaction(() => {
      for (const [id, { storeId, atMs, proof, receivedMs, tokenWaits, withToken }] of marks) {
        store.outbox.markAccepted(id, storeId, atMs, { tokenWaits, withToken });
        store.outbox.putProof(id, proof, receivedMs);
        if (this.#isWithRecipient.has(id)) store.outbox.markArrived(id);
      }
    });
    const messages = new Set<number>();
    for (const [id] of marks) {
      this.#marks.delete(id);
      this.#isWithRecipient.delete(id);
      const messageId = this.#messages.get(id);
      this.#messages.delete(id);
      if (messageId !== undefined) messages.add(messageId);
    }
    for (const messageId of messages) {
      if (arrivedStates.has(store.messages.sendState(messageId))) {
        events.emit({ type: 'accepted', messageId });
      }
    }
    this.#settle();
  }

  async #sendAll(target: string, session: Session, courier: Courier): Promise<void> {
    let bareTries = 0;
    for (;;) {
      await this.#pause(session);
      if (session.signal.aborted) return;
      if (bareTries >= outboxLimits.bareTries) this.#postpone(target);
      if (this.#isHeld(target)) return;
      const entry = this.#parts.store.outbox.next(target, this.#sentUpTo.get(target) ?? 0);
      if (entry === undefined) return;
      const reopenings = this.#reopenings;
      if (this.#handOver(entry)) continue;
      const isBareTry = entry.tokenWaits > 0 && this.#tokenOf(entry).length === 0;
      if (isBareTry) bareTries += 1;
      const verdict = await this.#sendOne(entry, session, courier);
      switch (verdict) {
        case 'waits':
          // Held now, unless its token came meanwhile.
          break;
        case 'done':
          if (reopenings === this.#reopenings) this.#sentUpTo.set(target, entry.id);
          // An older row wants to be sent: only the store tells which ones still do.
          else this.writeMarks();
          this.#failures.delete(target);
          break;
        case 'temporary':
        case 'disconnected':
          // The link notices a dead connection by itself; one slow call alone is repeated here.
          this.#rest(target, session);
          return;
        case 'expired':
          this.#session = undefined;
          return;
      }
    }
  }

  async #sendOne(
    entry: OutboxEntry,
    session: Session,
    courier: Courier,
  ): Promise<'done' | 'waits' | 'temporary' | 'disconnected' | 'expired'> {
    const { clock, log } = this.#parts.runtime;
    const storeId = this.#storeId;
    const token = this.#tokenOf(entry);
    // Without a token nobody takes it from somebody unknown: an invitation, as a rule.
    const sealed = token.length === 0 ? undefined : this.#parts.sealed;
    try {
      // STORED or DUPLICATE: both mean that the node has it, and signs for it.
      const answer =
        sealed === undefined
          ? { ...(await courier.send(entry, token)), caller: session }
          : await sealed.send(entry, token);
      const { proof, receivedMs, outcome } = answer;
      const by = sealed === undefined ? this.#parts.domain : entry.domain;
      if (!(await this.#isProven(entry, answer, by))) return 'temporary';
      if (sealed !== undefined) this.#isWithRecipient.add(entry.id);
      const { tokenWaits } = entry;
      // The node may have had it without: only of what came back before that is known to be over.
      const isFirst = outcome === Outcome.STORED || tokenWaits > 0;
      const withToken = token.length > 0 && isFirst;
      this.#accept(entry, {
        ...{ storeId, proof, receivedMs: Number(receivedMs), tokenWaits, withToken },
      });
      return 'done';
    } catch (error) {
      const ageMs = clock.now() - entry.createdMs;
      const verdict = sealed === undefined ? sendVerdict(error) : sealedVerdict(error, ageMs);
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      log.debug('enqueue failed', { reason, verdict });
      if (token.length === 0 && isFullForStrangers(error) && this.#wait(entry)) return 'waits';
      if (verdict === 'permanent' || this.#isPoison(entry, error)) {
        this.#fail(entry, reason);
        return 'done';
      }
      // Only the own node speaks for everything that is sent: another one would stop it all.
      const isAsked = sealed === undefined && hasReason(error, 'RATE_LIMITED', 'OVERLOADED');
      if (isAsked && error.retryAfterMs !== undefined) {
        this.#pausedUntilMs = Math.max(this.#pausedUntilMs, clock.monotonic() + error.retryAfterMs);
      }
      return verdict;
    }
  }

  /** An OK that the node did not sign is none: the row stays, and the application is told once. */
  async #isProven(
    entry: OutboxEntry,
    { proof, receivedMs, caller }: SealedReceipt,
    by: string,
  ): Promise<boolean> {
    const { proofs, events } = this.#parts;
    const { rid, mid, payload, messageId } = entry;
    const isSafe = receivedMs <= BigInt(Number.MAX_SAFE_INTEGER);
    const target = { rid, domain: entry.domain };
    const tag = messageTag(mid, payload);
    const statement = { mid, tag, target, receivedMs: isSafe ? Number(receivedMs) : 0 };
    if (isSafe && (await proofs.isProven(by, statement, proof, caller))) {
      this.#unproven.delete(entry.id);
      return true;
    }
    if (!this.#unproven.has(entry.id)) {
      this.#unproven.add(entry.id);
      const reason = proof.length === 0 ? 'NO_PROOF' : 'BAD_PROOF';
      events.emit({ type: 'unproven', messageId, rid, reason });
    }
    return false;
  }

  #tokenOf({ rid }: OutboxEntry): Uint8Array {
    return this.#parts.store.tokens.of(rid) ?? new Uint8Array(0);
  }

  #isPoison(entry: OutboxEntry, error: unknown): boolean {
    if (error instanceof TransportError) return false;
    if (!(error instanceof QpcError) || error.status !== Status.Internal) return false;
    const count = (this.#internalErrors.get(entry.id) ?? 0) + 1;
    this.#internalErrors.set(entry.id, count);
    return count >= outboxLimits.internalErrors;
  }

  #accept(entry: OutboxEntry, accepted: Omit<Acceptance, 'atMs'>): void {
    const { clock } = this.#parts.runtime;
    this.#internalErrors.delete(entry.id);
    this.#marks.set(entry.id, { ...accepted, atMs: clock.now() });
    if (entry.messageId !== undefined) this.#messages.set(entry.id, entry.messageId);
    this.#markIn(outboxLimits.markDelayMs);
  }

  #markIn(delayMs: number): void {
    const { clock, log } = this.#parts.runtime;
    if (this.#isMarkTimerSet) return;
    this.#isMarkTimerSet = true;
    clock.timer(delayMs, () => {
      this.#isMarkTimerSet = false;
      try {
        this.writeMarks();
      } catch (error) {
        // The OKs are still here; without them the same bytes are sent again, to no effect.
        log.error('outbox: OKs are not written down', { error: String(error) });
        this.#markIn(outboxLimits.backOffMaxMs);
      }
    });
  }

  /** False when it has waited for a token for long enough. */
  #wait({ id, messageId, rid, tokenWaits }: OutboxEntry): boolean {
    const { store, events, runtime } = this.#parts;
    const nowMs = runtime.clock.now();
    if (!store.transaction(() => store.outbox.waitForToken(id, nowMs))) return false;
    if (tokenWaits === 0) events.emit({ type: 'waitsForToken', messageId, rid });
    return true;
  }

  /**
   * What was sent after a message that came back has its device drop the key: then another ciphertext
   * takes its place. True if so.
   */
  #handOver({ id, rid, messageId, groupId, epoch, generation, tokenWaits }: OutboxRow): boolean {
    const { store, runtime, onOvertaken } = this.#parts;
    if (tokenWaits === 0 || messageId === undefined) return false;
    if (groupId === undefined || epoch === undefined) return false;
    if (!isOvertaken(store, { groupId, epoch, generation }, rid)) return false;
    store.transaction(() => store.outbox.setResend(id, runtime.clock.now()));
    onOvertaken();
    return true;
  }

  /** What else waits for a token of this device is not tried without one for a while. */
  #postpone(target: string): void {
    const { store, runtime } = this.#parts;
    this.writeMarks();
    const atMs = runtime.clock.now() + outboxBounds.tokenWaitMinMs;
    store.transaction(() => store.outbox.postponeTokenWaits(target, atMs));
  }

  #sendable(): number {
    const { store, runtime } = this.#parts;
    return store.outbox.sendableCount(runtime.clock.now());
  }

  #fail(entry: OutboxEntry, reason: string): void {
    const { store, events } = this.#parts;
    this.#internalErrors.delete(entry.id);
    this.#unproven.delete(entry.id);
    store.transaction(() => store.outbox.markFailed(entry.id, reason));
    events.emit({ type: 'sendFailed', messageId: entry.messageId, rid: entry.rid, reason });
  }

  #settle(): void {
    if (this.#isClosed) return;
    if (this.#sendable() > this.#marks.size) return;
    for (const wake of this.#idleWaiters) wake();
  }

  /** Its place goes to others meanwhile: one node that is away must not hold up what is for the rest. */
  #rest(target: string, session: Session): void {
    const { clock, random } = this.#parts.runtime;
    const failures = this.#failures.get(target) ?? 0;
    this.#failures.set(target, Math.min(failures + 1, 16));
    this.#resting.add(target);
    const boundMs = Math.min(outboxLimits.backOffMaxMs, outboxLimits.backOffMinMs * 2 ** failures);
    const rested = (): void => {
      this.#resting.delete(target);
      this.#kickAgain();
    };
    clock.sleep(jitter(random, boundMs), session.signal).then(rested, rested);
  }

  async #pause(session: Session): Promise<void> {
    const { clock, random } = this.#parts.runtime;
    while (!session.signal.aborted) {
      const waitMs = this.#pausedUntilMs - clock.monotonic();
      if (waitMs <= 0) return;
      // Jitter, or all devices would ask for the same token at once.
      await clock
        .sleep(waitMs + jitter(random, outboxLimits.backOffMinMs), session.signal)
        .catch(() => undefined);
    }
  }
}
