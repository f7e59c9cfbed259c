/**
 * Asking for what is missing (docs/protocol/delivery.md, "End-to-end re-send"): holes in the numbers of a
 * sending device, and everything after the newest one when a node may have lost rows. The sending
 * device is asked first, then other members too, less and less often; what nobody gives is told.
 */
import { deviceIdOf, jitter, QpcError, type SigningKey, hex, sameBytes } from '@quicprochat/proto';
import type { EventBus } from '../events.ts';
import { reachableCopies, requirePrekeys, type Recipient } from '../sending/fan-out.ts';
import type { MlsGroup } from '../mls/index.ts';
import { isAskedQuestion, takeOut } from './number-ranges.ts';
import { byTurns } from './turns.ts';
import { withPrekeys } from '../account/prekeys.ts';
import {
  encodeRequest,
  openEnd,
  parseGone,
  requestLimits,
  ResendError,
  type NumberRange,
} from '../sending/resend-request.ts';
import { receiptLimits } from './receipts.ts';
import { recipientsOf } from '../sending/sealing.ts';
import { isDue, waitMsOf } from '../store/due.ts';
import type { Hole } from '../store/resend-rows.ts';
import type { ConversationRecord } from '../store/group-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { SendingParts } from '../sending/sending-parts.ts';
import type { Batch } from '../writer.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

export const askLimits = {
  /** Waits after each time that a hole was asked for (ms); the last one repeats. */
  againAfterMs: [2 * minuteMs, 10 * minuteMs, hourMs, 6 * hourMs, dayMs],
  /** A hole this old (ms) is given up: nobody keeps anything for longer. */
  givenUpMs: 30 * dayMs,
  /** Nobody's prekey could be fetched (ms). */
  retryMs: minuteMs,
  /** Requests start this much apart at most (ms), so that not all who miss something ask at once. */
  jitterMs: 5_000,
  /** Other members that are asked besides the sending device. */
  othersMax: 2,
  holesPerPass: 256,
  /** Devices that are asked for everything new when a node lost rows, newest conversations first. */
  catchUpDevices: 256,
  /** Wait before that (ms): what the node still has comes first. */
  catchUpDelayMs: 10_000,
  /**
   * One device answers so many requests of another at a time and in an hour (answerLimits), and drops the rest: of more
   * conversations with it so many are asked for at once, and as many after each such time (ms).
   */
  catchUpAtOnce: 8,
  catchUpPaceMs: 20 * minuteMs,
  /** Such a question, of which nobody knows whether it has an answer, is asked again so much later (ms), if nothing came. */
  questionAgainMs: 75 * minuteMs,
  /** In large groups only devices that were heard in this time are asked (ms). */
  catchUpHeardMs: 7 * dayMs,
} as const;

export interface HolesParts extends Omit<SendingParts, 'mls'> {
  readonly events: EventBus;
  /** Signs requests. */
  readonly identityKey: SigningKey;
}

export class Holes {
  readonly #parts: HolesParts;
  #timer: { cancel(): void } | undefined;
  #asking: Promise<void> | undefined;
  #isStopped = true;

  constructor(parts: HolesParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.wake();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#asking;
  }

  /** There are new holes, or their times changed. */
  wake(): void {
    const { store, runtime } = this.#parts;
    if (this.#isStopped || this.#asking !== undefined) return;
    this.#timer?.cancel();
    const nextMs = store.resend.nextHoleMs();
    if (nextMs === undefined) return;
    const waitMs = waitMsOf(nextMs, runtime.clock.now());
    const delayMs = waitMs + jitter(runtime.random, askLimits.jitterMs);
    this.#timer = runtime.clock.timer(delayMs, () => {
      this.#asking = this.askDue().finally(() => {
        this.#asking = undefined;
        this.wake();
      });
    });
  }

  /** Asks for all holes whose time has come. Never fails. */
  async askDue(): Promise<void> {
    const { store, runtime } = this.#parts;
    try {
      const due = store.resend.dueHoles(runtime.clock.now(), askLimits.holesPerPass);
      const asked = new Set<string>();
      for (const { groupId, sender } of due) {
        const key = hex(groupId) + hex(sender);
        if (this.#isStopped && this.#asking !== undefined) return;
        if (asked.has(key)) continue;
        asked.add(key);
        await this.#ask(groupId, sender).catch((error: unknown) => {
          this.#warn(error);
          this.#putOff(groupId, sender);
        });
      }
    } catch (error) {
      this.#warn(error);
    }
  }

  #warn(error: unknown): void {
    const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
    this.#parts.runtime.log.warn('asking for holes failed', { reason, error: String(error) });
  }

  /** What cannot be asked for holds up no other. */
  #putOff(groupId: Uint8Array, sender: Uint8Array): void {
    const { store, runtime } = this.#parts;
    const nowMs = runtime.clock.now();
    store.transaction(() => {
      for (const hole of this.#dueAt(groupId, sender, nowMs))
        this.#scheduleNext(hole, false, nowMs);
    });
  }

  #dueAt(groupId: Uint8Array, sender: Uint8Array, nowMs: number): readonly Hole[] {
    return this.#parts.store.resend
      .holesOf(groupId, sender)
      .filter(
        ({ state, nextMs }) => state === 'OPEN' && nextMs !== undefined && isDue(nextMs, nowMs),
      );
  }

  /**
   * Rows may have been lost that no number tells of: every sending device is asked for what follows
   * its newest number here; of one group alone also those that were not heard lately. Durable on return.
   */
  async catchUp(only?: Uint8Array): Promise<void> {
    const { store, runtime, writer } = this.#parts;
    let left: number = askLimits.catchUpDevices;
    const places = this.#placesInTurn();
    const newestFirst = (): readonly Uint8Array[] =>
      [...store.groups.conversations()].reverse().map(({ groupId }) => groupId);
    for (const groupId of only === undefined ? newestFirst() : [only]) {
      if (left <= 0) break;
      await writer.run(async (batch) => {
        const group = batch.group(groupId);
        if (group === undefined || !group.isActive) return;
        const senders = this.#sendersOf(group, only !== undefined).slice(0, left);
        left -= senders.length;
        const { nowMs } = batch;
        const nextMs =
          nowMs + askLimits.catchUpDelayMs + jitter(runtime.random, askLimits.catchUpDelayMs);
        batch.write(() => {
          for (const sender of senders) {
            const known = store.resend.holeAt(groupId, sender, openEnd);
            if (known !== undefined && !isAskedQuestion(known)) continue;
            if (known !== undefined) store.resend.deleteHole(known);
            const from = store.resend.top(groupId, sender) + 1;
            const hole = { groupId, sender, from, to: openEnd, state: 'OPEN' } as const;
            const round = Math.floor(places.take(sender) / askLimits.catchUpAtOnce);
            const atMs = nextMs + round * askLimits.catchUpPaceMs;
            store.resend.putHole({ ...hole, foundMs: nowMs, asks: 0, nextMs: atMs });
          }
        });
      });
    }
    this.wake();
  }

  /** By device: how many questions for everything new wait to be asked already. */
  #placesInTurn(): { take(sender: Uint8Array): number } {
    const taken = new Map<string, number>();
    const take = (sender: Uint8Array): number => {
      const place = taken.get(hex(sender)) ?? 0;
      taken.set(hex(sender), place + 1);
      return place;
    };
    for (const hole of this.#parts.store.resend.holes()) {
      if (hole.to === openEnd && !isAskedQuestion(hole)) take(hole.sender);
    }
    return { take };
  }

  /** Takes a gone notice in. Throws ResendError; the result makes the changes. */
  takeGone(bytes: Uint8Array, batch: Batch): () => void {
    const { store, identityKey } = this.#parts;
    const gone = parseGone(bytes);
    if (!sameBytes(gone.asker, identityKey.publicKey)) throw new ResendError('for another device');
    return () => {
      const ended: Hole[] = [];
      batch.write(() => {
        for (const range of gone.ranges) {
          for (const hole of store.resend.holesOf(gone.groupId, gone.sender)) {
            // Only what was asked for, and is known to be missing.
            if (hole.state !== 'OPEN' || hole.asks === 0 || hole.to === openEnd) continue;
            const part = takeOut(store.resend, hole, range);
            if (part !== undefined && !gone.neverYours) ended.push(this.#end(hole, part, 'GONE'));
          }
        }
      });
      batch.after(() => this.#tell(ended));
    };
  }

  #sendersOf(group: MlsGroup, isAll: boolean): readonly Uint8Array[] {
    const { store, runtime } = this.#parts;
    const devices = recipientsOf(group).map(({ identityPub }) => identityPub);
    if (devices.length < receiptLimits.devices) return devices;
    const sinceMs = runtime.clock.now() - askLimits.catchUpHeardMs;
    const heard = store.resend.heardSince(group.groupId, sinceMs);
    const isHeard = (rid: Uint8Array): boolean => heard.some((one) => sameBytes(one, rid));
    const senders = devices.filter(isHeard);
    if (!isAll) return senders;
    const others = devices.filter((rid) => !senders.includes(rid));
    return byTurns(runtime.random, senders, others);
  }

  async #ask(groupId: Uint8Array, sender: Uint8Array): Promise<void> {
    const { writer } = this.#parts;
    await withPrekeys(this.#parts, (fetched) =>
      writer.run((batch) => this.#askIn(batch, groupId, sender, fetched === undefined)),
    );
  }

  async #askIn(
    batch: Batch,
    groupId: Uint8Array,
    sender: Uint8Array,
    mayFetch: boolean,
  ): Promise<void> {
    const { store, runtime, contacts, onOutbox } = this.#parts;
    const { nowMs } = batch;
    const open = this.#dueAt(groupId, sender, nowMs).slice(0, requestLimits.ranges);
    if (open.length === 0) return;
    const group = batch.group(groupId);
    // The first answer to a question opens as well as another one: what it is about was never tried here.
    const asks = Math.min(...open.map((hole) => (hole.to === openEnd ? 0 : hole.asks)));
    const targets = group?.isActive === true ? this.#targets(group, sender, asks) : [];
    const isOld = (hole: Hole): boolean => nowMs - hole.foundMs > askLimits.givenUpMs;
    const ending = targets.length === 0 ? open : open.filter(isOld);
    const asked = open.filter((hole) => !ending.includes(hole));
    const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
    const wanted = asked.length === 0 ? [] : targets;
    if (mayFetch) requirePrekeys(wanted, prekeyOf);
    const copies = wanted.flatMap((target) => {
      const bytes = this.#request(groupId, sender, target.identityPub, asked, asks > 0);
      const content = { kind: 'resendRequest', bytes } as const;
      return reachableCopies(content, [target], prekeyOf, runtime.random, mayFetch).copies;
    });
    const ended: Hole[] = [];
    batch.write(() => {
      for (const hole of ending) {
        const part = takeOut(store.resend, hole, hole);
        // Beyond the newest number nothing is known to be missing.
        if (part !== undefined && hole.to !== openEnd) {
          ended.push(this.#end(hole, part, 'UNANSWERED'));
        }
      }
      for (const hole of asked) this.#scheduleNext(hole, copies.length > 0, nowMs);
      const about = { kind: 'RESEND', groupId, epoch: group?.epoch ?? 0n } as const;
      for (const copy of copies) store.outbox.add({ ...copy, messageId: undefined, about }, nowMs);
    });
    batch.after(() => {
      onOutbox();
      this.#tell(ended);
    });
  }

  /** The sending device, and from the second time on others; others at once when it has left. */
  #targets(group: MlsGroup, sender: Uint8Array, asks: number): readonly Recipient[] {
    const { random } = this.#parts.runtime;
    const devices = recipientsOf(group);
    const targets = devices.filter(({ identityPub }) => sameBytes(identityPub, sender));
    const others = devices.filter(({ identityPub }) => !sameBytes(identityPub, sender));
    const wanted = Math.min(askLimits.othersMax, targets.length === 0 ? asks + 1 : asks);
    for (let n = 0; n < wanted && others.length > 0; n += 1) {
      targets.push(...others.splice(jitter(random, others.length), 1));
    }
    return targets;
  }

  #request(
    groupId: Uint8Array,
    sender: Uint8Array,
    to: Uint8Array,
    ranges: readonly NumberRange[],
    sealAnew: boolean,
  ): Uint8Array {
    const { runtime, identityKey } = this.#parts;
    const asker = identityKey.publicKey;
    const id = runtime.random.bytes(requestLimits.idBytes);
    return encodeRequest({ id, groupId, sender, asker, to, ranges, sealAnew }, identityKey);
  }

  #scheduleNext(hole: Hole, wasAsked: boolean, nowMs: number): void {
    const { store } = this.#parts;
    if (!wasAsked) {
      store.resend.putHole({ ...hole, nextMs: nowMs + askLimits.retryMs });
    } else if (isAskedQuestion(hole)) {
      // Nothing says that there is an answer: twice is enough.
      store.resend.deleteHole(hole);
    } else if (hole.to === openEnd) {
      store.resend.putHole({ ...hole, asks: 1, nextMs: nowMs + this.#untilAgain(hole.sender) });
    } else {
      const waits = askLimits.againAfterMs;
      const waitMs = waits[Math.min(hole.asks, waits.length - 1)] ?? dayMs;
      store.resend.putHole({ ...hole, asks: hole.asks + 1, nextMs: nowMs + waitMs });
    }
  }

  /** Behind the first questions for this device, of which it answers so many in an hour. */
  #untilAgain(sender: Uint8Array): number {
    const { questionAgainMs, catchUpAtOnce, catchUpPaceMs } = askLimits;
    const questions = this.#parts.store.resend
      .holes()
      .filter((hole) => hole.to === openEnd && sameBytes(hole.sender, sender));
    return questionAgainMs + Math.floor((questions.length - 1) / catchUpAtOnce) * catchUpPaceMs;
  }

  #end(hole: Hole, part: NumberRange, state: 'GONE' | 'UNANSWERED'): Hole {
    const ended: Hole = { ...hole, ...part, state, nextMs: undefined };
    this.#parts.store.resend.putHole(ended);
    return ended;
  }

  #tell(ended: readonly Hole[]): void {
    const { store, events } = this.#parts;
    for (const { groupId, sender, from, to, state } of ended) {
      const conversationId = store.groups.conversationOfGroup(groupId)?.id;
      if (conversationId === undefined) continue;
      const reason = state === 'GONE' ? 'gone' : 'unanswered';
      const senderDeviceId = deviceIdOf(sender);
      events.emit({ type: 'missing', conversationId, senderDeviceId, from, to, reason });
    }
  }
}

/** Numbers of a device's messages in a conversation that are not here. */
export interface MissingMessages {
  readonly conversationId: Uint8Array;
  readonly senderDeviceId: string;
  readonly from: number;
  readonly to: number;
  /** Still asked for, or ended: see the event `missing`. */
  readonly reason: 'asked' | 'gone' | 'unanswered';
}

const reasons = { OPEN: 'asked', GONE: 'gone', UNANSWERED: 'unanswered' } as const;

/** What is known to be missing; not what may follow the newest number. */
export function missingOf(
  store: ClientStore,
  { id, groupId }: ConversationRecord,
): readonly MissingMessages[] {
  return store.resend
    .holes()
    .filter((hole) => sameBytes(hole.groupId, groupId) && hole.to !== openEnd)
    .map(({ sender, from, to, state }) => ({
      conversationId: id,
      senderDeviceId: deviceIdOf(sender),
      from,
      to,
      reason: reasons[state],
    }));
}
