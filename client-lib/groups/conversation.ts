/**
 * Conversations: changed, written to, looked at. Every one has a group log at the hub of its creator
 * (docs/protocol/group-log.md): a change is an intent that the committer carries out. Messages need no hub.
 */
import {
  InvalidArgumentError,
  NotFoundError,
  parseUserId,
  QpcError,
  Status,
} from '@quicprochat/proto';
import { mayCome, withPrekeys } from '../account/prekeys.ts';
import type { GroupState } from '../client-types.ts';
import { checkText, encodeContent } from '../content.ts';
import type { EvidenceExchange } from '../kt/evidence-exchange.ts';
import type { Identity, MlsGroup, Role } from '../mls/index.ts';
import { receiptLimits } from '../receiving/receipts.ts';
import type { Extras } from '../sending/extras.ts';
import { noPrekey, targetOf } from '../sending/fan-out.ts';
import { recipientsOf, sealContent } from '../sending/sealing.ts';
import type { ConversationEnd, ConversationRecord } from '../store/group-rows.ts';
import { outboxBounds } from '../store/outbox-bounds.ts';
import type { Batch } from '../writer.ts';
import type { Committer } from './intents/committer.ts';
import { createConversation, type CreateParts } from './create-conversation.ts';
import type { GroupIntent } from './intents/group-intents.ts';
import {
  checkMetadata,
  checkTarget,
  groupMembers,
  parseRole,
  type GroupMember,
  type GroupMetadata,
} from './group-roles.ts';
import { heldForks, type HeldFork } from './hubs/held-forks.ts';
import type { Rekeys } from './intents/rekeys.ts';

/** As if sent again often enough: in groups without receipts nobody says that a copy arrived. */
const resendTimes = outboxBounds.resendAfterMs.length;

/** This device is no member any more: what was said stays, and nothing is added. */
export class ConversationEndedError extends QpcError {
  override name = 'ConversationEndedError';
  readonly ended: ConversationEnd;
  constructor(ended: ConversationEnd) {
    super(
      Status.FailedPrecondition,
      'CONVERSATION_ENDED',
      `conversation: this device is not in it any more (${ended})`,
    );
    this.ended = ended;
  }
}

export interface ConversationParts extends CreateParts {
  readonly evidence: EvidenceExchange;
  readonly committer: Pick<Committer, 'add' | 'addIn' | 'ended' | 'wake'>;
  readonly rekeys: Pick<Rekeys, 'noteMessage'>;
  readonly extras: Pick<Extras, 'next'>;
  /** A text was sent that disappears. */
  readonly onTimed: () => void;
  /** Copies wait for a prekey. */
  readonly onUnsealed: () => void;
}

export class Conversations {
  readonly #parts: ConversationParts;

  constructor(parts: ConversationParts) {
    this.#parts = parts;
  }

  /** See createConversation; the own user among them counts for nothing. */
  async create(
    name: string,
    userIds: readonly string[],
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    return createConversation(this.#parts, name, othersOf(userIds, this.#parts.identity), signal);
  }

  /**
   * Adds every device of these users that is not there yet; of the own user, its other devices. Durable at once, done on return: by this
   * device, or by somebody else. While the group's hub is away it waits, also over restarts. Throws why it
   * was refused: what fetchInvitees throws, MlsError NOT_ALLOWED (roles), what the hub says, or
   * GroupChangeError; NotFoundError UNKNOWN_GROUP.
   */
  async addMembers(
    conversationId: Uint8Array,
    userIds: readonly string[],
    signal?: AbortSignal,
  ): Promise<void> {
    const users = [...new Set(userIds.map((userId) => parseUserId(userId).userId))];
    await this.change(conversationId, { kind: 'add', userIds: users }, signal);
  }

  /**
   * Removes users with all their devices, and single devices (`alice@red.example/<device id>`); who is not
   * there is gone already. Like `addMembers`; InvalidArgumentError BAD_FIELD for the own user and device.
   */
  async removeMembers(
    conversationId: Uint8Array,
    targets: readonly string[],
    signal?: AbortSignal,
  ): Promise<void> {
    const { userId, deviceId } = this.#parts.identity;
    for (const target of targets) {
      checkTarget(target);
      if (target !== userId && target !== `${userId}/${deviceId}`) continue;
      throw new InvalidArgumentError('BAD_FIELD', 'remove: this device; to go, leave');
    }
    await this.change(conversationId, { kind: 'remove', userIds: targets }, signal);
  }

  /** Name and timer, in one commit. Like `addMembers`; InvalidArgumentError BAD_FIELD out of bounds. */
  async updateMetadata(
    conversationId: Uint8Array,
    metadata: GroupMetadata,
    signal?: AbortSignal,
  ): Promise<void> {
    checkMetadata(metadata);
    await this.change(conversationId, { kind: 'update', ...metadata }, signal);
  }

  /** Like `addMembers`; also MlsError UNKNOWN_MEMBER and LAST_OWNER. */
  async setRole(
    conversationId: Uint8Array,
    userId: string,
    role: Role,
    signal?: AbortSignal,
  ): Promise<void> {
    const user = parseUserId(userId).userId;
    const wanted = { kind: 'setRole', userId: user, role: parseRole(role) } as const;
    await this.change(conversationId, wanted, signal);
  }

  /** Fresh keys for this device and the group. Like `addMembers`. */
  async rotateKeys(conversationId: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.change(conversationId, { kind: 'rekey' }, signal);
  }

  /**
   * Leaves with every device of the own user: others are asked to remove them, and it is done when one of
   * them did. Throws GroupChangeError LAST_OWNER when nobody who stays is an owner.
   */
  async leave(conversationId: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.change(conversationId, { kind: 'leave' }, signal);
  }

  /** Wants a group changed; see `addMembers`. Throws ConversationEndedError where nothing can be. */
  async change(
    conversationId: Uint8Array,
    intent: GroupIntent,
    signal?: AbortSignal,
  ): Promise<void> {
    const { committer } = this.#parts;
    const { groupId } = this.#open(conversationId);
    const id = await committer.add(groupId, intent);
    await committer.ended(id, signal);
  }

  /**
   * Sends a text to every other device of the conversation; returns the message's inner id (16
   * bytes). Durable on return: sealed, in history and in the outbox. Works offline, except that a
   * suite 0x0001 group may need fresh prekeys first; devices that have none get
   * theirs once they do (`waitsForPrekey` in the history). Throws NotFoundError UNKNOWN_GROUP,
   * PayloadTooLargeError, InvalidArgumentError, MlsError REMOVED, ContactError IDENTITY_RESET while a
   * member is blocked.
   */
  async send(
    conversationId: Uint8Array,
    text: string,
    signal?: AbortSignal,
  ): Promise<{ readonly id: Uint8Array; readonly messageId: number }> {
    checkText(text);
    const { groupId } = this.#open(conversationId);
    return withPrekeys(
      this.#parts,
      (fetched) =>
        this.#parts.writer.run((batch) => this.#seal(batch, groupId, text, mayCome(fetched))),
      { signal, isFrequent: true },
    );
  }

  /** User ids of all members, sorted; none of an OLD one. Throws NotFoundError UNKNOWN_GROUP. */
  async members(conversationId: Uint8Array): Promise<readonly string[]> {
    const { groupId } = this.#conversation(conversationId);
    return this.#parts.writer.run(async (batch) => {
      const members = batch.group(groupId)?.members() ?? [];
      return [...new Set(members.map(({ userId }) => userId))].sort();
    });
  }

  /** Name and timer; undefined for an OLD one. Throws NotFoundError UNKNOWN_GROUP. */
  async metadata(conversationId: Uint8Array): Promise<Required<GroupMetadata> | undefined> {
    const { groupId } = this.#conversation(conversationId);
    return this.#parts.writer.run(async (batch) => {
      const info = batch.group(groupId)?.info;
      if (info === undefined) return undefined;
      const { name, expirySeconds, directDevices } = info;
      return { name, expirySeconds, directDevices };
    });
  }

  /** Where this device stands in the group's history; undefined for an OLD one. Throws like `metadata`. */
  async groupState(conversationId: Uint8Array): Promise<GroupState | undefined> {
    const { groupId } = this.#conversation(conversationId);
    return this.#parts.writer.run(async (batch) => {
      const group = batch.group(groupId);
      if (group === undefined) return undefined;
      const { epoch, epochAuthenticator } = group;
      const { cause, reason, dueMs, isDone = true } = this.#parts.store.resync.get(groupId) ?? {};
      const lost = isDone || cause === undefined ? undefined : { cause, reason, dueMs: dueMs ?? 0 };
      return { epoch: Number(epoch), epochAuthenticator: epochAuthenticator.slice(), lost };
    });
  }

  /** As `heldForks`. */
  forks(): Promise<readonly HeldFork[]> {
    return heldForks(this.#parts);
  }

  /** The users with roles and devices, by user id; none of an OLD one. Throws like `metadata`. */
  async listMembers(conversationId: Uint8Array): Promise<readonly GroupMember[]> {
    const { groupId } = this.#conversation(conversationId);
    return this.#parts.writer.run(async (batch) => {
      const group = batch.group(groupId);
      return group === undefined ? [] : groupMembers(group);
    });
  }

  async #seal(
    batch: Batch,
    groupId: Uint8Array,
    text: string,
    mayFetch: boolean,
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
      mayFetch,
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
      if (sealed.missing.length > 0) {
        const { generation: _unused, ...of } = about;
        const targets = sealed.missing.map(targetOf);
        const mid = random.bytes(16);
        store.outbox.addUnsealed({ mid, targets, messageId, about: of }, noPrekey, batch.nowMs);
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
      this.#parts.rekeys.noteMessage(groupId, sealed.generation, batch.nowMs);
      if (evidence !== undefined) this.#parts.evidence.mark(conversation.id, evidence);
      extras.mark();
    });
    batch.after(onOutbox);
    if (sealed.missing.length > 0) batch.after(this.#parts.onUnsealed);
    batch.after(() => this.#parts.committer.wake(groupId));
    if (message.expirySeconds > 0) batch.after(this.#parts.onTimed);
    return sent;
  }

  #conversation(id: Uint8Array): ConversationRecord {
    return this.#parts.store.groups.conversation(id) ?? this.#unknown();
  }

  #open(id: Uint8Array): ConversationRecord {
    const conversation = this.#conversation(id);
    if (conversation.ended !== undefined) throw new ConversationEndedError(conversation.ended);
    return conversation;
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
