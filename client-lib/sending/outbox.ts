/**
 * Durable sends (docs/protocol/delivery.md, states SEALED and ACCEPTED): every SEALED row goes
 * to the own node until it says OK or refuses for good. One request in flight per device, in
 * order, always the same bytes; several devices at once. A row leaves SEALED only by the node's
 * word, so a restart goes on where this stopped.
 */
import {
  hasReason,
  jitter,
  parseUserId,
  QpcError,
  Status,
  TransportError,
  type Runtime,
} from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import type { DeliveryProofs } from './delivery-proofs.ts';
import type { EventBus } from '../events.ts';
import { Courier } from './courier.ts';
import type { Caller } from '../dial.ts';
import { ClosedError } from '../link.ts';
import type { Session } from '../session.ts';
import { OutboxMarks } from './outbox-marks.ts';
import { ProvenOk } from './proven-ok.ts';
import type { SealedReceipt, SealedSender } from './sealed-sender.ts';
import {
  isFullForStrangers,
  isStaleToken,
  sealedVerdict,
  sendVerdict,
  type SendVerdict,
} from './send-verdict.ts';
import { deadPostVerdict, isDeadPost } from '../channels/dead-posts.ts';
import type { OutboxEntry, OutboxRow } from '../store/outbox-copies.ts';
import type { PeerPath } from '../store/paths.ts';
import type { ClientStore } from '../store/store.ts';
import { bareTriesMax, TokenWaits } from './token-waits.ts';

export const outboxLimits = {
  /** Devices that are sent to at the same time: by single calls, and by batches. */
  targetsInParallel: 32,
  targetsInBatches: 512,
  /** First and longest wait after a temporary refusal (ms). */
  backOffMinMs: 200,
  backOffMaxMs: 30_000,
  /** Internal errors of the node on one row before it counts as refused. */
  internalErrors: 8,
  /** Other tokens that a copy goes with in a row: a node may name one after the other. */
  renewals: 2,
} as const;

export interface OutboxParts {
  /** Of the own account; its domain is the own node's. */
  readonly userId: string;
  readonly proofs: Pick<DeliveryProofs, 'isProven'>;
  /** Where senders are sealed: the way to the recipient's node without a login. */
  readonly sealed?: Pick<SealedSender, 'send' | 'caller'> | undefined;
  /** A token of a device was refused: whether another one is known now, asked for at this node if need be. */
  readonly renew?: (at: Caller, rid: Uint8Array, token: Uint8Array) => Promise<boolean>;
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  /** Copies that waited were overtaken meanwhile, or posts died: they are due to be sealed anew. */
  readonly onOvertaken: () => void;
  /** The node does not know the group's channel, or another epoch of it. */
  readonly onStuckPost?: (groupId: Uint8Array, cid: Uint8Array) => void;
  /** The own node says that it cannot reach a domain. */
  readonly onUnreachable?: (domain: string) => void;
}

export class Outbox {
  readonly #parts: OutboxParts;
  readonly #domain: string;
  readonly #marks: OutboxMarks;
  readonly #proven: ProvenOk;
  readonly #waits: TokenWaits;
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
  readonly #internalErrors = new Map<number, number>();
  /** A rate limit holds for the whole device, not for one recipient. */
  #pausedUntilMs = 0;
  readonly #idleWaiters = new Set<() => void>();
  #isClosed = false;

  constructor(parts: OutboxParts) {
    const { store, runtime, events, userId, onOvertaken } = parts;
    this.#parts = parts;
    this.#domain = parseUserId(userId).domain;
    this.#proven = new ProvenOk(parts.proofs, events);
    const onWritten = (): void => this.#settle();
    this.#marks = new OutboxMarks({ store, runtime, events, userId, onWritten });
    const onDue = (): void => this.#kickAgain();
    this.#waits = new TokenWaits({ store, runtime, events, onDue, onOvertaken });
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
   * Copies that waited for a token may be older than what went since: where the wait is over, they are
   * looked for from the start. Returns the devices that nothing goes to now.
   */
  #release(): ReadonlySet<string> {
    const { held, free } = this.#waits.look();
    const idle = free.filter((target) => !this.#busy.has(target));
    // Those whose OK is not written down would be sent once more.
    if (idle.length > 0) this.writeMarks();
    for (const target of idle) if (this.#sentUpTo.delete(target)) this.#reopenings += 1;
    return held;
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
    this.#marks.close();
    this.#waits.close();
    this.#isClosed = true;
    for (const wake of this.#idleWaiters) wake();
  }

  /** Writes down the OKs that came in. Durable on return. */
  writeMarks(): void {
    this.#marks.write();
  }

  /**
   * The recipient's own node said OK to a copy, past the own one. False for an OK that it did not sign:
   * then nothing has changed. Throws what a look-up of that node's record throws.
   */
  async guestAccepted(entry: OutboxEntry, receipt: SealedReceipt): Promise<boolean> {
    const storeId = this.#storeId;
    if (!(await this.#proven.check(entry, receipt, entry.domain))) return false;
    const { proof, receivedMs } = receipt;
    const { tokenWaits } = entry;
    this.#marks.accepted(entry, {
      ...{
        storeId,
        proof,
        receivedMs: Number(receivedMs),
        tokenWaits,
        // Of what the own node did with it, this says nothing.
        token: undefined,
        via: 'guest',
      },
    });
    return true;
  }

  /**
   * The node of `domain` said OK to a copy for a mailbox of its device: one copy more, that takes none off the
   * other ways. Durable on return. False, and throws, as `guestAccepted`.
   */
  async mailboxAccepted(
    entry: OutboxEntry,
    domain: string,
    receipt: SealedReceipt,
  ): Promise<boolean> {
    if (!(await this.#proven.check({ ...entry, domain }, receipt, domain))) return false;
    const { store } = this.#parts;
    if (!this.#isClosed) store.transaction(() => store.mailboxes.took(entry.id, domain));
    return true;
  }

  /** The device itself has a copy on its disk. */
  delivered(entry: OutboxEntry, via: PeerPath): void {
    this.#marks.delivered(entry, via);
  }

  async #sendAll(target: string, session: Session, courier: Courier): Promise<void> {
    let bareTries = 0;
    let renewals = 0;
    for (;;) {
      await this.#pause(session);
      if (session.signal.aborted) return;
      if (bareTries >= bareTriesMax) {
        this.writeMarks();
        this.#waits.postpone(target);
      }
      if (this.#waits.isHeld(target)) return;
      const entry = this.#parts.store.outbox.next(target, this.#sentUpTo.get(target) ?? 0);
      if (entry === undefined) return;
      const reopenings = this.#reopenings;
      if (this.#waits.handOver(entry)) continue;
      const isBareTry = entry.tokenWaits > 0 && !this.#parts.store.tokens.hasGood(entry.rid);
      if (isBareTry) bareTries += 1;
      const verdict = await this.#sendOne(entry, session, courier);
      switch (verdict) {
        case 'waits':
          // Held now, unless its token came meanwhile.
          break;
        case 'renewed':
          renewals += 1;
          if (renewals <= outboxLimits.renewals) break;
          this.#rest(target, session);
          return;
        case 'done':
          renewals = 0;
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
    entry: OutboxRow,
    session: Session,
    courier: Courier,
  ): Promise<'done' | 'waits' | 'renewed' | Exclude<SendVerdict, 'permanent'>> {
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
      const by = sealed === undefined ? this.#domain : entry.domain;
      if (!(await this.#proven.check(entry, answer, by))) return 'temporary';
      const { tokenWaits } = entry;
      // The node may have had it without, or with another one: only of what came back before that is known to be over.
      const isFirst = outcome === Outcome.STORED || tokenWaits > 0;
      const sent = token.length > 0 && isFirst ? token : undefined;
      this.#internalErrors.delete(entry.id);
      const via = sealed === undefined ? 'node' : 'guest';
      this.#marks.accepted(entry, {
        ...{ storeId, proof, receivedMs: Number(receivedMs), tokenWaits, token: sent, via },
      });
      return 'done';
    } catch (error) {
      const ageMs = clock.now() - entry.createdMs;
      const verdict = sealed === undefined ? sendVerdict(error) : sealedVerdict(error, ageMs);
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      log.debug('enqueue failed', { reason, verdict });
      if (entry.post !== undefined && isDeadPost(error)) return this.#deadPost(entry, reason);
      if (reason === 'PEER_UNREACHABLE') this.#parts.onUnreachable?.(entry.domain);
      const isRefusedToken = isStaleToken(error) || isFullForStrangers(error);
      if (sealed !== undefined && isRefusedToken && (await this.#renew(sealed, entry, token))) {
        return 'renewed';
      }
      if (isFullForStrangers(error) && this.#waits.wait(entry, token)) return 'waits';
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

  #deadPost(entry: OutboxRow, reason: string): 'done' | 'temporary' {
    const { store, runtime, onOvertaken, onStuckPost } = this.#parts;
    if (deadPostVerdict(store, entry) === 'waits') {
      if (entry.groupId !== undefined) onStuckPost?.(entry.groupId, entry.rid);
      return 'temporary';
    }
    const nowMs = runtime.clock.now();
    if (store.transaction(() => store.outbox.sealPostAnew(entry.id, nowMs))) onOvertaken();
    else this.#fail(entry, reason);
    return 'done';
  }

  #tokenOf({ rid }: OutboxEntry): Uint8Array {
    return this.#parts.store.tokens.of(rid) ?? new Uint8Array(0);
  }

  /** Never fails: there may be one the next time. */
  async #renew(
    sealed: Pick<SealedSender, 'caller'>,
    { domain, rid }: OutboxEntry,
    token: Uint8Array,
  ): Promise<boolean> {
    const { renew, runtime } = this.#parts;
    if (renew === undefined || this.#isClosed) return false;
    try {
      if (await renew(await sealed.caller(domain), rid, token)) return true;
      runtime.log.debug('no new delivery token', { reason: 'NOT_FOUND' });
    } catch (error) {
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      runtime.log.debug('no new delivery token', { reason });
    }
    return false;
  }

  #isPoison(entry: OutboxEntry, error: unknown): boolean {
    if (error instanceof TransportError) return false;
    if (!(error instanceof QpcError) || error.status !== Status.Internal) return false;
    const count = (this.#internalErrors.get(entry.id) ?? 0) + 1;
    this.#internalErrors.set(entry.id, count);
    return count >= outboxLimits.internalErrors;
  }

  #sendable(): number {
    const { store, runtime } = this.#parts;
    return store.outbox.sendableCount(runtime.clock.now());
  }

  #fail(entry: OutboxEntry, reason: string): void {
    const { store, events } = this.#parts;
    this.#internalErrors.delete(entry.id);
    this.#proven.forget(entry.id);
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
