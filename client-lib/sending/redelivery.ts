/**
 * What happens to copies after the own node took them (docs/protocol/delivery.md, "End-to-end re-send"):
 * sent again after 24 and 72 hours without a receipt, sealed anew when the group's epoch has moved on,
 * and the own node is asked, sparsely, whether it passed them on.
 */
import { jitter, methods, parseUserId, QpcError, sameBytes } from '@quicprochat/proto';
import { RelayState, type MessageStatus } from '@quicprochat/proto/messages';
import { fullReason, takeBounce, type Bounced } from './bounces.ts';
import { encodeContent } from '../content.ts';
import type { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import type { Identity } from '../mls/index.ts';
import type { Outbox } from './outbox.ts';
import { mayCome, withPrekeys } from '../account/prekeys.ts';
import { askForPrekeys, putOffLacking } from './prekey-waits.ts';
import { noPrekey, targetOf, type Recipient } from './fan-out.ts';
import { isOvertaken, recipientsOf, sealContent } from './sealing.ts';
import { waitMsOf } from '../store/due.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { OutboxRow } from '../store/outbox-copies.ts';
import type { Batch } from '../writer.ts';
import type { SendingParts } from './sending-parts.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

export const redeliveryLimits = {
  /** How often it is looked whether a copy is to be sent again (ms). */
  sweepMs: 30 * minuteMs,
  /** The same when copies are due at once (ms): some more may be. */
  soonMs: 1_000,
  rowsPerSweep: 256,
  /** Epochs after which a copy is sealed anew: members keep the keys of 8. */
  epochsBehind: 4n,
  /** Wait before another try at sealing anew (ms). */
  sealRetryMs: 6 * hourMs,
  /** Wait before the node is asked about new copies (ms), half of it random, and between two questions. */
  pollMinMs: minuteMs,
  pollMaxMs: hourMs,
  /** Before the first question while somebody waits for the answer (ms); then twice as long each time. */
  watchedMinMs: 250,
  /** Messages in one question. */
  midsPerPoll: 256,
  /** What the node passed on it remembers for 72 hours; who asks later learns nothing (ms). */
  knownMs: 71 * hourMs,
} as const;

export interface RedeliveryParts extends Omit<SendingParts, 'onOutbox'> {
  readonly events: EventBus;
  readonly identity: Identity;
  readonly outbox: Pick<Outbox, 'reopen' | 'kick' | 'writeMarks'>;
  /** A channel refused a post though its group stands where it was sealed. */
  readonly onStuckPost?: (groupId: Uint8Array, cid: Uint8Array) => void;
  /** The own node has not reached a domain since then, by its clock (ms); 0: it does. */
  readonly onAway?: (domain: string, sinceMs: number) => void;
}

export class Redelivery {
  readonly #parts: RedeliveryParts;
  #timer: { cancel(): void } | undefined;
  #sweeping: Promise<void> | undefined;
  #isStopped = false;
  /** Copies became due while others are looked at. */
  #isWoken = false;
  /** How many wait for what the node says. */
  #watchers = 0;
  /** Ends the pause before the next question. */
  #watched = new AbortController();

  constructor(parts: RedeliveryParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#sweepIn(jitter(this.#parts.runtime.random, minuteMs));
  }

  /** Copies are due now. */
  wake(): void {
    this.#isWoken = true;
    if (this.#sweeping === undefined) this.#sweepIn(redeliveryLimits.soonMs);
  }

  /** The group is in another epoch: posts of it that came back need not wait. */
  moved(groupId: Uint8Array): void {
    const { store, runtime } = this.#parts;
    const nowMs = runtime.clock.now();
    if (store.transaction(() => store.outbox.postsDue(groupId, nowMs)) > 0) this.wake();
  }

  /** Until it is disposed of somebody waits for word of copies: the node is asked about them soon. */
  watch(): Disposable {
    this.#watchers += 1;
    this.#watched.abort();
    return {
      [Symbol.dispose]: () => {
        this.#watchers -= 1;
      },
    };
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#sweeping;
  }

  /** Asks the node of this session about copies for other nodes, until the session ends. */
  async follow(session: Session): Promise<void> {
    const { clock, log } = this.#parts.runtime;
    const { pollMinMs, pollMaxMs, watchedMinMs } = redeliveryLimits;
    let newest = 0;
    let waitMs: number = pollMinMs;
    let watchedMs: number = watchedMinMs;
    let nextMs = clock.monotonic();
    for (;;) {
      const isWatched = await this.#pause(session, watchedMs);
      if (session.signal.aborted) return;
      if (!isWatched) watchedMs = watchedMinMs;
      const [row] = this.#unrelayed(1);
      if (row === undefined) continue;
      if (isWatched) {
        watchedMs = Math.min(2 * watchedMs, pollMinMs);
      } else {
        if (row.id > newest) waitMs = pollMinMs;
        else if (clock.monotonic() < nextMs) continue;
        newest = row.id;
        nextMs = clock.monotonic() + waitMs;
        waitMs = Math.min(2 * waitMs, pollMaxMs);
      }
      try {
        await this.poll(session);
      } catch (error) {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        log.debug('the node does not tell of copies', { reason });
      }
    }
  }

  /** The time until the next question; true when somebody waits for its answer. */
  async #pause(session: Session, watchedMs: number): Promise<boolean> {
    const { clock, random } = this.#parts.runtime;
    const { pollMinMs } = redeliveryLimits;
    if (this.#watchers === 0) {
      this.#watched = new AbortController();
      const signal = AbortSignal.any([session.signal, this.#watched.signal]);
      // Half of it at random: clients that came back together do not ask together.
      const sleepMs = pollMinMs / 2 + jitter(random, pollMinMs / 2);
      await clock.sleep(sleepMs, signal).catch(() => undefined);
      if (!this.#watched.signal.aborted) return false;
    }
    await clock.sleep(watchedMs, session.signal).catch(() => undefined);
    return true;
  }

  /** One question about everything that is not known to be relayed. Throws what the calls throw. */
  async poll(session: Pick<Session, 'call' | 'signal'>): Promise<void> {
    const byDomain = Map.groupBy(
      this.#unrelayed(redeliveryLimits.midsPerPoll),
      ({ domain }) => domain,
    );
    for (const [domain, rows] of byDomain) {
      const mids = uniqueMids(rows);
      const { statuses, awaySinceMs } = await session.call(
        methods.relayStatus,
        { domain, mids },
        { signal: session.signal },
      );
      this.#take(rows, statuses);
      this.#parts.onAway?.(domain, Number(awaySinceMs));
    }
  }

  /** Sends again what is due. Never fails. */
  async sweep(): Promise<void> {
    const { runtime } = this.#parts;
    try {
      const lacking = putOffLacking(this.#parts);
      await this.#sendDue();
      if (lacking.length === 0) return;
      await askForPrekeys(this.#parts, lacking);
      await this.#sendDue();
    } catch (error) {
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      runtime.log.info('sending again waits', { reason, error: String(error) });
    }
  }

  async #sendDue(): Promise<void> {
    const { store, runtime } = this.#parts;
    for (;;) {
      const rows = store.outbox.due(runtime.clock.now(), redeliveryLimits.rowsPerSweep);
      if (rows.length === 0) return;
      await this.#sendAgain(rows);
    }
  }

  #sweepIn(delayMs: number): void {
    const { clock, random } = this.#parts.runtime;
    this.#timer?.cancel();
    if (this.#isStopped) return;
    this.#timer = clock.timer(Math.min(delayMs, this.#untilSealedMs()), () => {
      this.#isWoken = false;
      this.#sweeping = this.sweep().finally(() => {
        this.#sweeping = undefined;
        const { sweepMs, soonMs } = redeliveryLimits;
        this.#sweepIn(this.#isWoken ? soonMs : sweepMs / 2 + jitter(random, sweepMs));
      });
    });
  }

  /** How long it is until a post that came back, or a copy that waits for a prekey, is due (ms). Never fails. */
  #untilSealedMs(): number {
    const { store, runtime } = this.#parts;
    try {
      const nextMs = store.outbox.nextDueMs('unsealed');
      if (nextMs === undefined) return Number.POSITIVE_INFINITY;
      return Math.max(redeliveryLimits.soonMs, waitMsOf(nextMs, runtime.clock.now()));
    } catch (error) {
      // The store itself fails: the next sweep meets it.
      runtime.log.error('copies that are to be sealed', { error: String(error) });
      return Number.POSITIVE_INFINITY;
    }
  }

  #unrelayed(limit: number): readonly OutboxRow[] {
    const { store, runtime, identity } = this.#parts;
    const { domain } = parseUserId(identity.userId);
    const nowMs = runtime.clock.now();
    return store.outbox.unrelayed(domain, nowMs - redeliveryLimits.knownMs, limit);
  }

  /** What the node knows of these copies; what it does not, of those that it took, it has lost. */
  #take(rows: readonly OutboxRow[], statuses: readonly MessageStatus[]): void {
    const { store, events, outbox } = this.#parts;
    const relayed = new Set<number>();
    const bounced: Bounced[] = [];
    const nowMs = this.#parts.runtime.clock.now();
    outbox.reopen(() =>
      store.transaction(() => {
        for (const { mid, rid, state, reason } of statuses) {
          const copies = rows.filter((row) => sameBytes(row.mid, mid));
          if (state === RelayState.RELAYED) {
            if (store.outbox.markRelayed(mid, rid) === 0) continue;
            for (const { messageId } of copies) if (messageId !== undefined) relayed.add(messageId);
          } else if (state === RelayState.BOUNCED) {
            bounced.push(takeBounce(store, mid, rid, reason, nowMs));
          } else if (state === RelayState.UNSPECIFIED) {
            for (const { id, resends } of copies) {
              if (resends < outboxBounds.resendAfterMs.length) store.outbox.sendAgain(id);
            }
          }
        }
      }),
    );
    for (const { told } of bounced) for (const one of told) events.emit(one);
    for (const { groupId, cid } of bounced.flatMap(({ stuck }) => stuck)) {
      this.#parts.onStuckPost?.(groupId, cid);
    }
    if (bounced.some(({ hasDue }) => hasDue)) this.wake();
    for (const messageId of relayed) {
      if (store.messages.sendState(messageId) === 'relayed') {
        events.emit({ type: 'relayed', messageId });
      }
    }
  }

  async #sendAgain(rows: readonly OutboxRow[]): Promise<void> {
    const { store, outbox } = this.#parts;
    const behind = rows.filter((row) => this.#isBehind(row));
    outbox.reopen(() =>
      store.transaction(() => {
        for (const row of rows) if (!behind.includes(row)) store.outbox.sendAgain(row.id);
      }),
    );
    for (const copies of Map.groupBy(behind, ({ messageId }) => messageId).values()) {
      await this.#sealAnew(copies);
    }
    outbox.kick();
  }

  /** Whether its device may not be able to open a message any more, or not much longer. */
  #isBehind({ messageId, groupId, epoch, generation, rid, post, payload }: OutboxRow): boolean {
    // Its channel takes it no more, or it was never sealed.
    if (post !== undefined || payload.length === 0) return true;
    if (messageId === undefined || groupId === undefined || epoch === undefined) return false;
    const { store } = this.#parts;
    const now = store.groups.epoch(groupId);
    if (now !== undefined && BigInt(epoch) + redeliveryLimits.epochsBehind < now) return true;
    return isOvertaken(store, { groupId, epoch, generation }, rid);
  }

  /**
   * One message for those devices whose copies these are: another mid, the same inner id. What cannot be sealed now, for
   * want of a prekey or because of a blocked member, waits; what never could, for 30 days.
   */
  async #sealAnew(copies: readonly OutboxRow[]): Promise<void> {
    const { writer, store, runtime } = this.#parts;
    try {
      await withPrekeys(this.#parts, (fetched) =>
        writer.run((batch) => this.#sealAnewIn(batch, copies, mayCome(fetched))),
      );
    } catch (error) {
      runtime.log.info('sealing anew waits', { error: String(error) });
      const nowMs = runtime.clock.now();
      const isOver = ({ payload, createdMs }: OutboxRow): boolean =>
        payload.length === 0 && nowMs - createdMs >= outboxBounds.bytesKeptMs;
      const over = copies.filter(isOver);
      store.transaction(() => {
        for (const { id } of copies) {
          store.outbox.setResend(id, nowMs + redeliveryLimits.sealRetryMs);
        }
        for (const { id } of over) store.outbox.markFailed(id, noPrekey);
      });
      for (const { messageId, rid } of over) {
        this.#parts.events.emit({ type: 'sendFailed', messageId, rid, reason: noPrekey });
      }
    }
  }

  async #sealAnewIn(batch: Batch, copies: readonly OutboxRow[], mayFetch: boolean): Promise<void> {
    const { store, mls, contacts, runtime } = this.#parts;
    const [{ messageId, groupId } = { messageId: undefined, groupId: undefined }] = copies;
    const message = messageId === undefined ? undefined : store.messages.message(messageId);
    const group = groupId === undefined ? undefined : batch.group(groupId);
    const recipients =
      group?.isActive === true
        ? recipientsOf(group).filter(({ identityPub }) =>
            copies.some(({ rid, post }) => post !== undefined || sameBytes(rid, identityPub)),
          )
        : [];
    const hasText = message !== undefined && message.goneMs === undefined;
    // Nothing takes its place; one that no node has is over: a post that its channel took no more, a copy for which an
    // inbox was full, or one that was never sealed.
    const leave = ({ id, rid, post, payload }: OutboxRow): void => {
      store.outbox.setResend(id, undefined);
      const isUnsealed = payload.length === 0;
      const reason =
        post === undefined && !isUnsealed ? fullReason : this.#whyOver(groupId, hasText);
      if (!store.outbox.markFailed(id, reason)) return;
      batch.after(() => this.#parts.events.emit({ type: 'sendFailed', messageId, rid, reason }));
    };
    if (group === undefined || !hasText || recipients.length === 0) {
      batch.write(() => {
        for (const copy of copies) leave(copy);
      });
      return;
    }
    const { random } = runtime;
    contacts.requireUnblocked(group.members().map(({ userId }) => userId));
    const sealed = await sealContent(
      { store, mls, contacts, random },
      group,
      encodeContent(message),
      recipients,
      // No key is used where nobody would get anything.
      mayFetch || recipients.every(({ identityPub }) => contacts.prekey(identityPub) === undefined),
    );
    batch.useKeys(sealed.next, sealed.epoch, sealed.wipe);
    batch.write(() => {
      const { groupId: id } = group;
      const about = {
        kind: 'MESSAGE',
        groupId: id,
        epoch: sealed.epoch,
        generation: sealed.generation,
      } as const;
      const isIn = (some: readonly Recipient[], rid: Uint8Array): boolean =>
        some.some(({ identityPub }) => sameBytes(identityPub, rid));
      for (const copy of copies) {
        if (copy.post === undefined && isIn(sealed.missing, copy.rid)) {
          store.outbox.setResend(copy.id, batch.nowMs + redeliveryLimits.sealRetryMs);
          continue;
        }
        const isReplaced = copy.post !== undefined || isIn(recipients, copy.rid);
        // Who has left gets nothing anew.
        if (isReplaced) store.outbox.replaced(copy.id);
        else leave(copy);
      }
      for (const copy of sealed.copies) {
        const resends = Math.max(
          ...copies
            .filter(
              ({ rid, post }) =>
                (post ?? copy.post) !== undefined ||
                copy.targets.some((target) => sameBytes(target.rid, rid)),
            )
            .map(resendsAfter),
        );
        store.outbox.add({ ...copy, messageId, about: { ...about, resends } }, batch.nowMs);
      }
      // Of a post that is sealed for each device by itself now.
      const missing = sealed.missing.filter(
        ({ identityPub }) => !copies.some(({ rid }) => sameBytes(rid, identityPub)),
      );
      if (missing.length > 0) {
        const entry = { mid: random.bytes(16), targets: missing.map(targetOf), messageId, about };
        store.outbox.addUnsealed(entry, noPrekey, batch.nowMs);
      }
    });
  }

  /** Why a post is not sealed anew: its text has disappeared, this device is out of the group, or nobody else is in it. */
  #whyOver(groupId: Uint8Array | undefined, hasText: boolean): string {
    if (!hasText) return 'TIMEOUT';
    const { groups } = this.#parts.store;
    const conversation = groupId === undefined ? undefined : groups.conversationOfGroup(groupId);
    return conversation?.ended ?? 'UNKNOWN_DEVICE';
  }
}

/** One that was never sealed is sent for the first time. */
const resendsAfter = ({ resends, payload }: OutboxRow): number =>
  payload.length === 0 ? resends : resends + 1;

function uniqueMids(rows: readonly OutboxRow[]): Uint8Array[] {
  return [...new Map(rows.map(({ mid }) => [Buffer.from(mid).toString('hex'), mid])).values()];
}
