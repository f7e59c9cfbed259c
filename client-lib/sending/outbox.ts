/**
 * Durable sends (docs/protocol/delivery.md, states SEALED and ACCEPTED): every SEALED row goes
 * to the own node until it says OK or refuses for good. One request in flight per device, with more
 * rows the more got through before, in order, always the same bytes; several devices at once. A row
 * leaves SEALED only by the node's word, so a restart goes on where this stopped.
 */
import { jitter, parseUserId } from '@quicprochat/proto';
import { ClosedError } from '../link.ts';
import type { Session } from '../session.ts';
import type { OutboxEntry, OutboxRow } from '../store/outbox-copies.ts';
import type { PeerPath } from '../store/paths.ts';
import { Attempts, isOfMessageSize, type AttemptParts, type OwnNode } from './attempts.ts';
import { Courier } from './courier.ts';
import type { DeliveryProofs } from './delivery-proofs.ts';
import { OutboxMarks } from './outbox-marks.ts';
import { ProvenOk } from './proven-ok.ts';
import { mostAfter, rowsTogether } from './rows-together.ts';
import type { SealedReceipt } from './sealed-sender.ts';
import { bareTriesMax, TokenWaits } from './token-waits.ts';

export const outboxLimits = {
  /** Devices that are sent to at the same time: by single calls, and by batches. */
  targetsInParallel: 32,
  targetsInBatches: 512,
  /** First and longest wait after a temporary refusal (ms). */
  backOffMinMs: 200,
  backOffMaxMs: 30_000,
  /** Other tokens that a copy goes with in a row: a node may name one after the other. */
  renewals: 2,
} as const;

export interface OutboxParts extends Omit<AttemptParts, 'proven' | 'marks' | 'waits' | 'domain'> {
  /** Of the own account; its domain is the own node's. */
  readonly userId: string;
  readonly proofs: Pick<DeliveryProofs, 'isProven'>;
}

export class Outbox {
  readonly #parts: OutboxParts;
  readonly #domain: string;
  readonly #attempts: Attempts;
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
  /** A rate limit holds for the whole device, not for one recipient. */
  #pausedUntilMs = 0;
  readonly #idleWaiters = new Set<() => void>();
  #isClosed = false;

  constructor(parts: OutboxParts) {
    const { store, runtime, events, userId, onDueAgain } = parts;
    this.#parts = parts;
    this.#proven = new ProvenOk(parts.proofs, events);
    const onWritten = (): void => this.#settle();
    this.#marks = new OutboxMarks({ store, runtime, events, userId, onWritten });
    const onDue = (): void => this.#kickAgain();
    this.#waits = new TokenWaits({ store, runtime, events, onDue, onDueAgain });
    this.#domain = parseUserId(userId).domain;
    this.#attempts = new Attempts({
      ...parts,
      domain: this.#domain,
      marks: this.#marks,
      proven: this.#proven,
      waits: this.#waits,
    });
  }

  /** Sends over this session; `storeId` names the node's store that its OKs are about. */
  open(session: Session, storeId: Uint8Array): void {
    this.#session = session;
    this.#courier = new Courier(session);
    this.#storeId = storeId;
    this.kick();
  }

  /**
   * Copies that another store of the node had accepted are sent once more, and soon those for its devices that came
   * there another way, as an invitation does that a hub elsewhere brought. Other invitations too: nobody misses one, and a
   * node that forgot tells nobody that others forgot with it. Returns how many of the first.
   */
  storeChanged(storeId: Uint8Array): number {
    const { store, runtime, onDueAgain } = this.#parts;
    const reopened = this.reopen(() =>
      store.transaction(() => {
        const count = store.outbox.reopen(storeId);
        store.outbox.resendTo(this.#domain, runtime.clock.now(), 'invitations');
        return count;
      }),
    );
    onDueAgain();
    return reopened;
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
    this.#attempts.close();
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
    let most = 1;
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
      const entries = this.#together(target, entry, most);
      const own: OwnNode = { session, courier, storeId: this.#storeId };
      const { verdict, upTo, quietMs } = await this.#attempts.send(entries, own);
      const nowMs = this.#parts.runtime.clock.monotonic();
      this.#pausedUntilMs = Math.max(this.#pausedUntilMs, nowMs + quietMs);
      const isAll = upTo === entries.at(-1)?.id;
      most = isAll ? mostAfter(entries.length) : 1;
      if (upTo !== undefined) {
        this.#failures.delete(target);
        renewals = 0;
        if (reopenings === this.#reopenings) this.#sentUpTo.set(target, upTo);
      }
      // An older row wants to be sent, or one got through past another: only the store tells which ones still do.
      if (reopenings !== this.#reopenings || (!isAll && entries.length > 1)) this.writeMarks();
      switch (verdict) {
        case 'done':
        case 'waits':
          // Held now, unless its token came meanwhile.
          break;
        case 'renewed':
          renewals += 1;
          if (renewals <= outboxLimits.renewals) break;
          this.#rest(target, session);
          return;
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

  /** The next copy for a device, and those behind it if its inbox is open to them. */
  #together(target: string, first: OutboxRow, most: number): readonly OutboxRow[] {
    const { outbox, tokens } = this.#parts.store;
    const isPlain = (row: OutboxRow): boolean => row.tokenWaits === 0 && isOfMessageSize(row);
    if (first.post !== undefined || !isPlain(first) || !tokens.hasGood(first.rid)) return [first];
    return rowsTogether(first, most, (after) => {
      const row = outbox.next(target, after);
      return row === undefined || !isPlain(row) ? undefined : row;
    });
  }

  #sendable(): number {
    const { store, runtime } = this.#parts;
    return store.outbox.sendableCount(runtime.clock.now());
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
