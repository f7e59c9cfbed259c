/**
 * Answers to devices that miss messages (docs/protocol/delivery.md, "End-to-end re-send"). A request is
 * checked and becomes a duty in the transaction that takes its row in; the duty leaves with the answer.
 * Only members are answered, only with what they could read then, and only so much in an hour.
 */
import {
  hasReason,
  jitter,
  QpcError,
  TransportError,
  type SigningKey,
  sameBytes,
} from '@quicprochat/proto';
import { contentLimits, encodeContent, encodeReceipt } from '../content.ts';
import { hybridCopies, type Recipient, type SealedCopy } from './fan-out.ts';
import type { Identity, Member, MlsGroup } from '../mls/index.ts';
import { rangesOf, without } from '../receiving/number-ranges.ts';
import { withPrekeys } from '../account/prekeys.ts';
import {
  encodeGone,
  openEnd,
  parseRequest,
  requestLimits,
  ResendError,
  type NumberRange,
  type ResendRequest,
} from './resend-request.ts';
import { isOvertaken, recipientsOf, sealContent, type Sealed } from './sealing.ts';
import { isDue, waitMsOf } from '../store/due.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { ResendDuty } from '../store/resend-rows.ts';
import type { MessageRecord } from '../store/message-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch } from '../writer.ts';
import type { SendingParts } from './sending-parts.ts';

const hourMs = 3_600_000;

export const answerLimits = {
  /** Requests of one device that count in an hour; beyond, they are dropped. */
  requestsPerHour: 32,
  /** Requests that wait to be answered: of one device, and in all. */
  dutiesPerAsker: 8,
  duties: 256,
  /** Messages that one answer sends, and that go out in an hour: to one device, and in all. */
  messagesPerAnswer: 128,
  messagesPerAskerHour: 1024,
  messagesPerHour: 4096,
  /**
   * Messages sealed anew in a group, after which one goes to all members: each uses up a key that only
   * the asker hears of, and nobody follows a sender over more than 4 096 of them.
   */
  keysPerTick: 512,
  /** Messages of others wait (ms), so that their sender answers first, and then not all at once. */
  othersDelayMs: 5_000,
  othersJitterMs: 60_000,
  /** A question that found nothing left of an hour is answered within so much of the next one (ms), by each device at its own time. */
  nextHourMs: 5 * 60_000,
  /** After a failure, such as a prekey that cannot be fetched (ms). */
  retryMs: 5 * 60_000,
} as const;

export interface ResenderParts extends SendingParts {
  readonly identity: Identity;
  /** Signs gone notices. */
  readonly identityKey: SigningKey;
}

/** What an answer consists of, before it is written down. */
interface Answer {
  readonly copies: readonly SealedCopy[];
  /** Contents sealed anew, in order. */
  readonly sealed: readonly Sealed[];
  readonly messages: number;
}

export class Resender {
  readonly #parts: ResenderParts;
  #timer: { cancel(): void } | undefined;
  #answering: Promise<void> | undefined;
  /** Keys used in a group (hex of its id) since all members heard of one; unknown at the start. */
  readonly #unheardKeys = new Map<string, number>();
  #isStopped = true;

  constructor(parts: ResenderParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#wake();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#answering;
  }

  /**
   * Takes a request in. Throws ResendError for one that is not for this device, badly signed or not
   * of another member; what is above the limits is dropped. The result makes the changes.
   */
  take(bytes: Uint8Array, batch: Batch): () => void {
    const { store, runtime, identityKey } = this.#parts;
    const request = parseRequest(bytes);
    const { to, asker, sender, groupId } = request;
    if (!sameBytes(to, identityKey.publicKey)) throw new ResendError('for another device');
    this.#member(batch.group(groupId), asker);
    const isOwn = sameBytes(sender, identityKey.publicKey);
    const { othersDelayMs, othersJitterMs } = answerLimits;
    const delayMs = isOwn ? 0 : othersDelayMs + jitter(runtime.random, othersJitterMs);
    return () => {
      batch.write(() => {
        const hour = Math.floor(batch.nowMs / hourMs);
        const isFull =
          store.resend.spent(hour, asker).requests >= answerLimits.requestsPerHour ||
          store.resend.dutyCount(asker) >= answerLimits.dutiesPerAsker ||
          store.resend.dutyCount() >= answerLimits.duties;
        if (isFull) {
          runtime.log.info('a request for messages is beyond the limits');
          return;
        }
        store.resend.spend(hour, asker, 1, 0);
        store.resend.addDuty({ asker, request: bytes, dueMs: batch.nowMs + delayMs });
      });
      batch.after(() => this.#wake());
    };
  }

  /** Answers whatever is due now. Never fails. */
  async answerDue(): Promise<void> {
    const { store, runtime } = this.#parts;
    for (;;) {
      const duty = store.resend.nextDuty();
      if (duty === undefined || !isDue(duty.dueMs, runtime.clock.now())) return;
      if (this.#isStopped && this.#answering !== undefined) return;
      try {
        await this.#answer(duty);
      } catch (error) {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.info('a request for messages waits', { reason, error: String(error) });
        try {
          // Another try helps only against a network that is away.
          if (error instanceof TransportError || hasReason(error, 'NO_PREKEY'))
            this.#postpone(duty);
          else store.transaction(() => store.resend.deleteDuty(duty.id));
        } catch (cause) {
          // The store itself fails: the next start goes on.
          runtime.log.error('requests for messages', { error: String(cause) });
          return;
        }
      }
    }
  }

  #wake(): void {
    const { store, runtime } = this.#parts;
    if (this.#isStopped || this.#answering !== undefined) return;
    this.#timer?.cancel();
    const duty = store.resend.nextDuty();
    if (duty === undefined) return;
    const waitMs = waitMsOf(duty.dueMs, runtime.clock.now());
    this.#timer = runtime.clock.timer(waitMs, () => {
      this.#answering = this.answerDue().finally(() => {
        this.#answering = undefined;
        this.#wake();
      });
    });
  }

  /** Always the same time of the hour, so that the order stays. */
  #inHour(hour: number): number {
    const [share = 0] = this.#parts.identityKey.publicKey;
    return hour * hourMs + Math.floor((share / 256) * answerLimits.nextHourMs);
  }

  #postpone({ id, asker, request }: ResendDuty): void {
    const { store, runtime } = this.#parts;
    store.transaction(() => {
      store.resend.deleteDuty(id);
      const dueMs = runtime.clock.now() + answerLimits.retryMs;
      store.resend.addDuty({ asker, request, dueMs });
    });
  }

  async #answer(duty: ResendDuty): Promise<void> {
    const { writer } = this.#parts;
    await withPrekeys(this.#parts, () => writer.run((batch) => this.#answerIn(batch, duty)));
  }

  async #answerIn(batch: Batch, duty: ResendDuty): Promise<void> {
    const { store, identityKey, onOutbox } = this.#parts;
    const request = parseRequest(duty.request);
    const { groupId, asker } = request;
    const group = batch.group(groupId);
    let member: Member | undefined;
    try {
      member = this.#member(group, asker);
    } catch (error) {
      if (!(error instanceof ResendError)) throw error;
    }
    const hour = Math.floor(batch.nowMs / hourMs);
    const room = Math.min(
      answerLimits.messagesPerAnswer,
      answerLimits.messagesPerAskerHour - store.resend.spent(hour, asker).messages,
      answerLimits.messagesPerHour - store.resend.spent(hour).messages,
    );
    if (group === undefined || member === undefined) {
      // It left since.
      batch.write(() => store.resend.deleteDuty(duty.id));
      return;
    }
    if (room <= 0) {
      // A hole is asked for again; what may follow the newest number is not.
      const isQuestion = request.ranges.some(({ to }) => to === openEnd);
      batch.write(() => {
        store.resend.deleteDuty(duty.id);
        if (isQuestion) store.resend.addDuty({ ...duty, dueMs: this.#inHour(hour + 1) });
      });
      return;
    }
    const isOwn = sameBytes(request.sender, identityKey.publicKey);
    const { copies, sealed, messages } = isOwn
      ? await this.#ownMessages(group, member, request, room, batch.nowMs)
      : this.#messagesOfOthers(group, member, request, room);
    for (const { next, epoch, wipe } of sealed) batch.useKeys(next, epoch, wipe);
    batch.write(() => {
      store.resend.deleteDuty(duty.id);
      store.resend.spend(hour, asker, 0, messages);
      const about = { kind: 'RESEND', groupId, epoch: group.epoch } as const;
      const generations = new Map(
        sealed.flatMap((one) => one.copies.map((copy) => [copy, one.generation] as const)),
      );
      for (const copy of copies) {
        const generation = generations.get(copy);
        const ofCopy = generation === undefined ? about : { ...about, generation };
        store.outbox.add({ ...copy, messageId: undefined, about: ofCopy }, batch.nowMs);
      }
    });
    batch.after(onOutbox);
  }

  /** Own messages that were sealed for the asker; a notice for what there is none of. */
  async #ownMessages(
    group: MlsGroup,
    member: Member,
    request: ResendRequest,
    room: number,
    nowMs: number,
  ): Promise<Answer> {
    const { store, identity } = this.#parts;
    const conversation = store.groups.conversationOfGroup(request.groupId);
    if (conversation === undefined) return { copies: [], sealed: [], messages: 0 };
    const wanted: MessageRecord[] = [];
    const gone: NumberRange[] = [];
    const before: number[] = [];
    const vanished: number[] = [];
    for (const range of request.ranges) {
      const isOpen = range.to === openEnd;
      const to = isOpen ? conversation.sentCount : range.to;
      if (to < range.from) continue;
      const left = room - wanted.length - before.length - vanished.length;
      if (left <= 0) break;
      const { id, sentCount } = conversation;
      const last = Math.min(to, sentCount);
      // Nobody would ask again for what follows, as for a hole, which what comes before becomes.
      const found = isOpen
        ? store.messages.newestOwn(id, identity.deviceId, range.from, left)
        : store.messages.ownByNumber(id, identity.deviceId, range.from, last, left);
      const from = isOpen && found.length === left ? (found[0]?.n ?? range.from) : range.from;
      // What lies beyond the last one that fits is left for the next request.
      const end = found.length < left ? to : (found.at(-1)?.n ?? to);
      for (const message of found) {
        if (message.goneMs !== undefined) vanished.push(message.n);
        else if (wasFor(store, message.id, request.asker)) wanted.push(message);
        else if (nowMs - message.sentMs < outboxBounds.rowsKeptMs) before.push(message.n);
        else gone.push({ from: message.n, to: message.n });
      }
      gone.push(
        ...without(
          { from, to: end },
          found.map(({ n }) => n),
        ),
      );
    }
    const notices = [
      ...this.#gone(member, request, [...gone, ...rangesOf(vanished)], false),
      ...this.#gone(member, request, rangesOf(before), true),
    ];
    const { copies, sealed } = await this.#sealAll(group, member, request, wanted);
    return { copies: [...copies, ...notices], sealed, messages: wanted.length };
  }

  async #sealAll(
    group: MlsGroup,
    member: Member,
    { groupId, sender, sealAnew }: ResendRequest,
    messages: readonly MessageRecord[],
  ): Promise<Omit<Answer, 'messages'>> {
    const { store, mls, contacts, runtime } = this.#parts;
    const { random, clock } = runtime;
    const copies: SealedCopy[] = [];
    const sealed: Sealed[] = [];
    const isStale = store.groups.conversationOfGroup(groupId)?.staleMs !== undefined;
    const seal = async (plaintext: Uint8Array, to: readonly Recipient[]): Promise<void> => {
      const from = sealed.at(-1)?.next ?? group;
      const one = await sealContent({ store, mls, contacts, random }, from, plaintext, to);
      sealed.push(one);
      copies.push(...one.copies);
    };
    for (const message of messages) {
      const { innerId, n, lamport, sentMs, text, expirySeconds } = message;
      const [kept] = sealAnew ? [] : store.resend.ciphertexts(groupId, sender, n, n, 1);
      const isOpenable =
        kept !== undefined &&
        group.membersAt(BigInt(kept.epoch)) !== undefined &&
        !isOvertaken(store, kept, member.identityPub, sealed.at(-1));
      if (isOpenable) {
        copies.push(...this.#toAsker(member, 'mlsMessage', kept.bytes));
      } else if (!isStale) {
        contacts.requireUnblocked(group.members().map(({ userId }) => userId));
        await seal(encodeContent({ innerId, n, lamport, sentMs, text, expirySeconds }), [member]);
      }
    }
    const key = Buffer.from(groupId).toString('hex');
    const { keysPerTick } = answerLimits;
    const unheard = (this.#unheardKeys.get(key) ?? keysPerTick) + sealed.length;
    const isTick = sealed.length > 0 && unheard >= keysPerTick;
    if (isTick) {
      const innerId = random.bytes(contentLimits.innerIdBytes);
      const said = {
        innerId,
        lamport: 0,
        sentMs: clock.now(),
        kind: 'DELIVERED',
        ids: [],
      } as const;
      await seal(encodeReceipt(said), recipientsOf(group));
    }
    if (sealed.length > 0) this.#unheardKeys.set(key, isTick ? 0 : unheard);
    return { copies, sealed };
  }

  /** What others said, as it came; only of epochs in which the asker was a member. */
  #messagesOfOthers(
    group: MlsGroup,
    member: Member,
    { groupId, sender, ranges }: ResendRequest,
    room: number,
  ): Answer {
    const { store } = this.#parts;
    const copies: SealedCopy[] = [];
    for (const { from, to } of ranges) {
      const left = room - copies.length;
      if (left <= 0) break;
      for (const { epoch, bytes } of store.resend.ciphertexts(groupId, sender, from, to, left)) {
        const members = group.membersAt(BigInt(epoch)) ?? [];
        const wasMember = members.some((one) => sameBytes(one.identityPub, member.identityPub));
        if (wasMember) copies.push(...this.#toAsker(member, 'mlsMessage', bytes));
      }
    }
    return { copies, sealed: [], messages: copies.length };
  }

  #gone(
    member: Member,
    { id: requestId, groupId, sender, asker }: ResendRequest,
    all: readonly NumberRange[],
    neverYours: boolean,
  ): readonly SealedCopy[] {
    const { identityKey } = this.#parts;
    const ranges = all.slice(0, requestLimits.ranges);
    if (ranges.length === 0) return [];
    const gone = { requestId, groupId, sender, asker, ranges, neverYours };
    return this.#toAsker(member, 'gone', encodeGone(gone, identityKey));
  }

  #toAsker(member: Member, kind: 'mlsMessage' | 'gone', bytes: Uint8Array): readonly SealedCopy[] {
    const { contacts, runtime } = this.#parts;
    const prekeyOf = (rid: Uint8Array): Uint8Array | undefined => contacts.prekey(rid);
    return hybridCopies({ kind, bytes }, [member], prekeyOf, runtime.random);
  }

  /** The asker as another member of the group now. Throws ResendError. */
  #member(group: MlsGroup | undefined, asker: Uint8Array): Member {
    const { identityKey } = this.#parts;
    const member = group?.isActive === true ? group.members() : [];
    const found = member.find(({ identityPub }) => sameBytes(identityPub, asker));
    if (found === undefined || sameBytes(asker, identityKey.publicKey)) {
      throw new ResendError('not of another member');
    }
    return found;
  }
}

/** Whether an own message was sealed so that a device could read it. */
function wasFor({ outbox }: ClientStore, messageId: number, rid: Uint8Array): boolean {
  return outbox.wasSentTo(messageId, rid) || outbox.wasPostedTo(messageId, rid);
}
