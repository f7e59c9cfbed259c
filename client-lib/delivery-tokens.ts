/**
 * Delivery tokens of this device (docs/protocol/delivery.md, "Delivery tokens"): one at a time, told to
 * the own node, and handed to the members of conversations inside MLS: with a Welcome, with a text,
 * or by themselves soon after something changed. Blocking somebody makes a new one that goes to
 * everybody else. Whose tokens go on which copy is the outbox's business.
 */
import {
  deliveryTokenBytes,
  deliveryTokenHash,
  methods,
  parseUserId,
  QpcError,
  Status,
  type Runtime,
  hex,
} from '@quicprochat/proto';
import type { Contacts } from './contacts.ts';
import { contentLimits, encodeTokens, type HandedToken } from './content.ts';
import { PrekeyError } from './fan-out.ts';
import type { Caller } from './link.ts';
import type { Mls, MlsGroup } from './mls/index.ts';
import { fetchPrekeys } from './prekeys.ts';
import { recipientsOf, sealContent } from './sealing.ts';
import type { ClientStore } from './store/store.ts';
import type { Batch, Writer } from './writer.ts';

export const tokenLimits = {
  /** Devices of a group, beyond which a token waits for the next text: each would go to all others. */
  devices: 64,
  /** A change waits this long for a text that takes the token along (ms). */
  delayMs: 2_000,
  /** After a failure, such as a prekey that cannot be fetched (ms). */
  retryMs: 60_000,
} as const;

export interface DeliveryTokensParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly caller: Caller;
  readonly rid: Uint8Array;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
}

export class DeliveryTokens {
  readonly #parts: DeliveryTokensParts;
  #isTimed = false;
  #isStopped = false;
  #working: Promise<void> = Promise.resolve();

  constructor(parts: DeliveryTokensParts) {
    this.#parts = parts;
  }

  /** Tells the own node which token is in force, again and again: it may have been restored. */
  async tellNode(caller: Caller): Promise<void> {
    const { store, runtime } = this.#parts;
    if (store.tokens.own() === undefined) this.#make();
    const own = store.tokens.own();
    if (own === undefined) return;
    try {
      await caller.call(methods.setDeliveryTokens, { hashes: [deliveryTokenHash(own.token)] });
    } catch (error) {
      // A node without tokens knows no strangers.
      if (error instanceof QpcError && error.status === Status.Unimplemented) return;
      throw error;
    }
    if (!own.isTold) store.transaction(() => store.tokens.markAtNode(own.id));
    if (store.tokens.untold(own.id).length > 0) this.wake();
    runtime.log.debug('delivery token told', { id: own.id });
  }

  /**
   * Somebody's messages are not wanted: the own token is replaced, and the new one goes to no
   * conversation that this person is in. Done when the own node has it. Safe to repeat.
   */
  async block(userId: string, caller: Caller): Promise<void> {
    const { store, runtime } = this.#parts;
    const blocked = parseUserId(userId).userId;
    store.transaction(() => {
      if (!store.tokens.blocked().includes(blocked)) this.#make();
      store.tokens.block(blocked, runtime.clock.now());
    });
    await this.tellNode(caller);
  }

  /** The person gets the token again, with the others. Durable on return. */
  unblock(userId: string): void {
    const { store } = this.#parts;
    store.transaction(() => store.tokens.unblock(parseUserId(userId).userId));
    this.wake();
  }

  /** For a text: the own token, if it is new to this conversation. `mark` when it is written. */
  next(conversationId: Uint8Array, members: readonly string[]): readonly HandedToken[] | undefined {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    const isDue = own?.isTold === true && !tokens.isTold(conversationId, own.id);
    return isDue && this.#mayHave(members) ? this.#own() : undefined;
  }

  /** The members have the own token, in the transaction that stores what brings it. */
  mark(conversationId: Uint8Array): void {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    if (own !== undefined) tokens.markTold(conversationId, own.id);
  }

  /** Beside a Welcome: the own token and those of the members, as far as they are known. */
  forInvitees(group: MlsGroup, invited: readonly string[]): readonly HandedToken[] {
    const { tokens } = this.#parts.store;
    const ofMembers = recipientsOf(group).flatMap(({ identityPub }): HandedToken[] => {
      const token = tokens.of(identityPub);
      return token === undefined ? [] : [{ rid: identityPub, token }];
    });
    const users = [...recipientsOf(group).map(({ userId }) => userId), ...invited];
    const isTold = tokens.own()?.isTold === true;
    const own = isTold && this.#mayHave(users) ? this.#own() : [];
    return [...own, ...ofMembers].slice(0, contentLimits.tokens);
  }

  /** Tokens that members handed out: `from` their own, in the transaction of what brought them. */
  take(tokens: readonly HandedToken[], from: Uint8Array, nowMs: number): void {
    const { store, runtime } = this.#parts;
    runtime.log.debug('delivery token taken', { count: tokens.length });
    for (const { rid, token } of tokens) {
      const isOwn = Buffer.compare(rid, from) === 0;
      if (isOwn) store.tokens.put(rid, token, true, nowMs);
    }
  }

  /** Tokens that were taken are durable, or copies came back that wait for one. */
  changed(): void {
    this.#parts.onOutbox();
  }

  /** Those beside a Welcome, of devices that are in the group. */
  takeAtJoin(tokens: readonly HandedToken[], group: MlsGroup, nowMs: number): void {
    const { store } = this.#parts;
    const members = new Set(recipientsOf(group).map(({ identityPub }) => hex(identityPub)));
    for (const { rid, token } of tokens) {
      if (members.has(hex(rid))) store.tokens.put(rid, token, false, nowMs);
    }
  }

  /** Conversations that do not have the own token get it soon. */
  wake(delayMs: number = tokenLimits.delayMs): void {
    if (this.#isTimed || this.#isStopped) return;
    this.#isTimed = true;
    this.#parts.runtime.clock.timer(delayMs, () => {
      this.#isTimed = false;
      if (!this.#isStopped) this.#working = this.#working.then(() => this.#handOut());
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#working;
  }

  #make(): void {
    const { store, runtime } = this.#parts;
    store.tokens.putOwn(runtime.random.bytes(deliveryTokenBytes), runtime.clock.now());
  }

  #own(): readonly HandedToken[] {
    const own = this.#parts.store.tokens.own();
    return own === undefined ? [] : [{ rid: this.#parts.rid, token: own.token }];
  }

  #mayHave(members: readonly string[]): boolean {
    const blocked = this.#parts.store.tokens.blocked();
    return !members.some((userId) => blocked.includes(userId));
  }

  /** Never fails: what cannot be sealed now is tried again. */
  async #handOut(): Promise<void> {
    const { store, runtime, writer } = this.#parts;
    const own = store.tokens.own();
    if (own?.isTold !== true) return;
    for (const conversationId of store.tokens.untold(own.id)) {
      try {
        await this.#withPrekeys(() => writer.run((batch) => this.#seal(batch, conversationId)));
      } catch (error) {
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        runtime.log.info('a delivery token waits', { reason, error: String(error) });
        this.wake(tokenLimits.retryMs);
      }
    }
  }

  async #withPrekeys(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof PrekeyError)) throw error;
      await fetchPrekeys(this.#parts, error.userIds);
      await work();
    }
  }

  async #seal(batch: Batch, conversationId: Uint8Array): Promise<void> {
    const { store, runtime, mls, contacts, onOutbox } = this.#parts;
    const { random, clock } = runtime;
    const conversation = store.groups.conversation(conversationId);
    const group = conversation === undefined ? undefined : batch.group(conversation.groupId);
    if (conversation === undefined || group?.isActive !== true) return;
    const recipients = recipientsOf(group);
    const members = recipients.map(({ userId }) => userId);
    const tokens = this.next(conversationId, members);
    const isWanted = recipients.length > 0 && recipients.length < tokenLimits.devices;
    if (tokens === undefined || !isWanted) return;
    contacts.requireUnblocked(members);
    const plaintext = encodeTokens({
      innerId: random.bytes(contentLimits.innerIdBytes),
      lamport: conversation.lamport,
      sentMs: clock.now(),
      tokens,
    });
    const sealed = await sealContent(
      { store, mls, contacts, random },
      group,
      plaintext,
      recipients,
    );
    batch.useKeys(sealed.next, sealed.epoch, sealed.wipe);
    batch.write(() => {
      const { epoch, generation } = sealed;
      const about = { kind: 'RECEIPT', groupId: group.groupId, epoch, generation } as const;
      for (const copy of sealed.copies) {
        store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
      }
      this.mark(conversationId);
    });
    batch.after(onOutbox);
  }
}
