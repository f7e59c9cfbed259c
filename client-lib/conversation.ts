/**
 * Conversations: create, add members, send. Until the group log exists, only a conversation's
 * creator commits, so a commit is accepted as soon as it is made; commits and Welcomes travel as
 * envelopes through the outbox like messages (docs/protocol/delivery.md).
 */
import {
  hasReason,
  InvalidArgumentError,
  NotFoundError,
  parseUserId,
  type Runtime,
} from '@quicprochat/proto';
import { ContactError } from './contact.ts';
import type { Contacts } from './contacts.ts';
import { checkText, encodeContent } from './content.ts';
import type { DeliveryTokens } from './delivery-tokens.ts';
import { envelopeKeyOf } from './envelope-key.ts';
import type { EventBus } from './events.ts';
import type { Extras } from './extras.ts';
import { channelCopies, hybridCopies, type SealedCopy } from './fan-out.ts';
import { fetchInvitees, forgetClaims, type Invitee } from './invitation.ts';
import type { EvidenceExchange } from './kt/evidence-exchange.ts';
import type { Caller } from './link.ts';
import {
  acceptCommit,
  chooseSuite,
  mandatorySuite,
  xwingSuite,
  type Identity,
  type Mls,
  type MlsGroup,
  type MlsSuite,
  type SignatureKey,
  type Wipe,
} from './mls/index.ts';
import { withPrekeys } from './prekeys.ts';
import { receiptLimits } from './receipts.ts';
import { recipientsOf, requireFresh, sealContent } from './sealing.ts';
import { outboxBounds } from './store/outbox-rows.ts';
import type { ClientStore, ConversationRecord, EnvelopeKey } from './store/store.ts';
import type { Batch, Writer } from './writer.ts';

export const conversationLimits = {
  nameBytes: 256,
  addsPerCommit: 64,
  /** Direct mode copies every message to each device; larger groups need channels. */
  devices: 256,
} as const;

/** As if sent again often enough: in groups without receipts nobody says that a copy arrived. */
const resendTimes = outboxBounds.resendAfterMs.length;

export interface ConversationParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly contacts: Contacts;
  readonly evidence: EvidenceExchange;
  readonly tokens: Pick<DeliveryTokens, 'forInvitees'>;
  readonly extras: Pick<Extras, 'next'>;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly caller: Caller;
  readonly identity: Identity;
  readonly signatureKey: SignatureKey;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
  /** A text was sent that disappears. */
  readonly onTimed: () => void;
}

/** A group that grew by one commit, with what has to leave for it. */
interface Grown {
  readonly group: MlsGroup;
  readonly envelopeKey: EnvelopeKey;
  readonly copies: readonly SealedCopy[];
  readonly wipe: Wipe;
}

export class Conversations {
  readonly #parts: ConversationParts;

  constructor(parts: ConversationParts) {
    this.#parts = parts;
  }

  /**
   * Creates a conversation with every device of these users; returns its id (32 bytes). Durable on
   * return: Welcomes are in the outbox. Throws what fetchInvitees and the MLS adapter throw;
   * nothing was made then.
   */
  async create(
    name: string,
    userIds: readonly string[],
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const { store, writer, mls, identity, signatureKey } = this.#parts;
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes > conversationLimits.nameBytes) {
      throw new InvalidArgumentError(
        'BAD_FIELD',
        `conversation name: ${nameBytes} bytes, at most ${conversationLimits.nameBytes}`,
      );
    }
    await this.#refresh([identity.userId], signal);
    const { suite, invitees } = await this.#findInitial(othersOf(userIds, identity), signal);
    return writer.run(async (batch) => {
      let group = await mls.createGroup({ suite, identity, signatureKey, name });
      const { conversationId } = group.info;
      const steps: Grown[] = [];
      for (const chunk of chunks(invitees)) {
        const step = await this.#grow(group, chunk);
        steps.push(step);
        ({ group } = step);
      }
      const envelopeKey = await envelopeKeyOf(mls, group);
      const { groupId } = group;
      const wipes = steps.map(({ wipe }) => wipe);
      batch.enterEpoch(group, envelopeKey, wipes);
      batch.write(() => {
        store.groups.addConversation({
          id: conversationId,
          groupId,
          suite,
          name,
          creator: identity.userId,
          joinedMs: batch.nowMs,
          sentCount: 0,
          lamport: 0,
        });
      });
      this.#storeGrowth(batch, steps, invitees);
      return conversationId;
    });
  }

  /**
   * Adds every device of these users. Durable on return. Throws NotFoundError UNKNOWN_GROUP,
   * MlsError NOT_ALLOWED or ALREADY_MEMBER, and what fetchInvitees throws.
   */
  async addMembers(
    conversationId: Uint8Array,
    userIds: readonly string[],
    signal?: AbortSignal,
  ): Promise<void> {
    const { writer, identity, caller } = this.#parts;
    const { groupId, suite } = this.#conversation(conversationId);
    const groupSuite = suite === xwingSuite ? xwingSuite : mandatorySuite;
    const invitees: Invitee[] = [];
    for (const userId of othersOf(userIds, identity)) {
      const options = signal === undefined ? {} : { signal };
      invitees.push(...(await fetchInvitees(this.#parts, caller, userId, [groupSuite], options)));
    }
    // MLS judges every leaf of the new epoch, also those that are there.
    await this.#refresh(await this.members(conversationId), signal);
    for (const chunk of chunks(invitees)) {
      await writer.run(async (batch) => {
        const group = this.#group(batch, groupId);
        requireFresh(this.#parts.store, groupId);
        const step = await this.#grow(group, chunk);
        batch.enterEpoch(step.group, step.envelopeKey, [step.wipe]);
        this.#storeGrowth(batch, [step], chunk);
      });
    }
  }

  /**
   * Sends a text to every other device of the conversation; returns the message's inner id (16
   * bytes). Durable on return: sealed, in history and in the outbox. Works offline, except that a
   * suite 0x0001 group may need fresh prekeys first. Throws NotFoundError UNKNOWN_GROUP,
   * PayloadTooLargeError, InvalidArgumentError, MlsError REMOVED, ContactError IDENTITY_RESET while a
   * member is blocked.
   */
  async send(
    conversationId: Uint8Array,
    text: string,
    signal?: AbortSignal,
  ): Promise<{ readonly id: Uint8Array; readonly messageId: number }> {
    checkText(text);
    const { groupId } = this.#conversation(conversationId);
    return withPrekeys(
      this.#parts,
      () => this.#parts.writer.run((batch) => this.#seal(batch, groupId, text)),
      signal,
    );
  }

  /** User ids of all members, sorted. Throws NotFoundError UNKNOWN_GROUP. */
  async members(conversationId: Uint8Array): Promise<readonly string[]> {
    const { groupId } = this.#conversation(conversationId);
    return this.#parts.writer.run(async (batch) => {
      const members = this.#group(batch, groupId).members();
      return [...new Set(members.map(({ userId }) => userId))].sort();
    });
  }

  async #seal(
    batch: Batch,
    groupId: Uint8Array,
    text: string,
  ): Promise<{ readonly id: Uint8Array; readonly messageId: number }> {
    const { store, runtime, mls, contacts, identity, signatureKey, onOutbox } = this.#parts;
    const { random } = runtime;
    const group = this.#group(batch, groupId);
    const conversation = batch.conversationOfGroup(groupId) ?? this.#unknown();
    const message = {
      innerId: random.bytes(16),
      n: conversation.sentCount + 1,
      lamport: conversation.lamport + 1,
      sentMs: runtime.clock.now(),
      text,
      expirySeconds: group.info.expirySeconds,
    };
    const recipients = recipientsOf(group);
    const members = recipients.map(({ userId }) => userId);
    contacts.requireUnblocked(members);
    const evidence = this.#parts.evidence.next(conversation.id, members);
    const extras = this.#parts.extras.next(conversation.id, members);
    const plaintext = encodeContent({ ...message, evidence, ...extras.content });
    const sealed = await sealContent(
      { store, mls, contacts, random },
      group,
      plaintext,
      recipients,
    );

    batch.useKeys(sealed.next, sealed.epoch, sealed.wipe);
    batch.advance(conversation, message.n, message.lamport);
    const sent = { id: message.innerId, messageId: 0 };
    batch.write(() => {
      const messageId = store.messages.add({
        conversationId: conversation.id,
        senderUser: identity.userId,
        senderDevice: identity.deviceId,
        ...message,
        receivedMs: undefined,
      });
      sent.messageId = messageId ?? 0;
      const about = {
        kind: 'MESSAGE',
        groupId,
        epoch: sealed.epoch,
        generation: sealed.generation,
        resends: recipients.length < receiptLimits.devices ? 0 : resendTimes,
      } as const;
      for (const copy of sealed.copies) {
        store.outbox.add({ ...copy, messageId, about }, batch.nowMs);
      }
      if (messageId !== undefined) {
        store.resend.addCiphertext(
          {
            groupId,
            sender: signatureKey.publicKey,
            n: message.n,
            epoch: Number(sealed.epoch),
            generation: sealed.generation,
            tag: undefined,
            messageId,
            bytes: sealed.ciphertext,
          },
          batch.nowMs,
        );
      }
      if (evidence !== undefined) this.#parts.evidence.mark(conversation.id, evidence);
      extras.mark();
    });
    batch.after(onOutbox);
    if (message.expirySeconds > 0) batch.after(this.#parts.onTimed);
    return sent;
  }

  /** One commit with at most 64 Adds: Welcomes for the new, the commit for the others. */
  async #grow(group: MlsGroup, invitees: readonly Invitee[]): Promise<Grown> {
    const { mls, contacts, runtime } = this.#parts;
    const { random } = runtime;
    const made = await mls.addMembers(
      group,
      invitees.map(({ keyPackage }) => keyPackage),
    );
    const invited = invitees.map(({ userId }) => userId);
    const parentKey = await envelopeKeyOf(mls, group);
    const welcome =
      made.welcome === undefined
        ? []
        : hybridCopies(
            {
              kind: 'welcome',
              bytes: made.welcome,
              evidence: this.#parts.evidence.own(invited),
              tokens: this.#parts.tokens.forInvitees(group, invited),
            },
            invitees,
            (rid) => contacts.prekey(rid),
            random,
          );
    const commit = channelCopies(
      { kind: 'mlsMessage', bytes: made.commit },
      recipientsOf(group),
      parentKey,
      random,
    );
    const { next, wipe } = acceptCommit(group, made.pending);
    return {
      group: next,
      envelopeKey: await envelopeKeyOf(mls, next),
      copies: [...welcome, ...commit],
      wipe,
    };
  }

  #storeGrowth(batch: Batch, steps: readonly Grown[], invitees: readonly Invitee[]): void {
    const { store, events, onOutbox } = this.#parts;
    batch.write(() => {
      for (const { copies, envelopeKey, group } of steps) {
        store.groups.putEnvelopeKey(envelopeKey);
        const { groupId, epoch } = group;
        const about = { kind: 'HANDSHAKE', groupId, epoch } as const;
        for (const copy of copies) {
          store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
        }
      }
      forgetClaims(
        store,
        invitees.map(({ userId }) => userId),
      );
    });
    const last = steps.at(-1);
    batch.after(() => {
      onOutbox();
      if (last === undefined) return;
      const members = [...new Set(last.group.members().map(({ userId }) => userId))];
      const { conversationId } = last.group.info;
      events.emit({ type: 'membersChanged', conversationId, members });
    });
  }

  /** The suite that all initial devices have, and their packages of that suite. */
  async #findInitial(
    userIds: readonly string[],
    signal?: AbortSignal,
  ): Promise<{ readonly suite: MlsSuite; readonly invitees: readonly Invitee[] }> {
    const preferred = [xwingSuite, mandatorySuite];
    const found = await this.#fetchAll(userIds, preferred, signal);
    const suite = chooseSuite([
      preferred,
      ...found.map((invitee) => (invitee.suite === xwingSuite ? preferred : [mandatorySuite])),
    ]);
    if (found.every((invitee) => invitee.suite === suite)) return { suite, invitees: found };
    return { suite, invitees: await this.#fetchAll(userIds, [suite], signal) };
  }

  async #fetchAll(
    userIds: readonly string[],
    suites: readonly MlsSuite[],
    signal?: AbortSignal,
  ): Promise<readonly Invitee[]> {
    const options = signal === undefined ? {} : { signal };
    const found = await Promise.all(
      userIds.map((userId) =>
        fetchInvitees(this.#parts, this.#parts.caller, userId, suites, options),
      ),
    );
    const invitees = found.flat();
    if (invitees.length >= conversationLimits.devices) {
      throw new InvalidArgumentError(
        'BAD_FIELD',
        `conversation: ${invitees.length + 1} devices, at most ${conversationLimits.devices}`,
      );
    }
    return invitees;
  }

  /** Looks up the users whose verified keys are too old, or not there. Throws as Contacts.resolve. */
  async #refresh(userIds: readonly string[], signal?: AbortSignal): Promise<void> {
    const { contacts, caller } = this.#parts;
    for (const userId of userIds) {
      if (contacts.lookup(userId) !== undefined) continue;
      try {
        await contacts.resolve(userId, caller, signal);
      } catch (error) {
        const isOver = error instanceof ContactError || hasReason(error, 'CLOSED');
        if (isOver || !contacts.passUnreached(userId)) throw error;
      }
    }
  }

  #conversation(id: Uint8Array): ConversationRecord {
    return this.#parts.store.groups.conversation(id) ?? this.#unknown();
  }
  #group(batch: Batch, groupId: Uint8Array): MlsGroup {
    return batch.group(groupId) ?? this.#unknown();
  }
  #unknown(): never {
    throw new NotFoundError('UNKNOWN_GROUP', 'conversation: none with this id here');
  }
}

/** Checked, without repeats and without ourselves. */
function othersOf(userIds: readonly string[], own: Identity): string[] {
  const others = new Set(userIds.map((userId) => parseUserId(userId).userId));
  others.delete(own.userId);
  return [...others];
}

function chunks(invitees: readonly Invitee[]): (readonly Invitee[])[] {
  const size = conversationLimits.addsPerCommit;
  return Array.from({ length: Math.ceil(invitees.length / size) }, (_, index) =>
    invitees.slice(index * size, (index + 1) * size),
  );
}
