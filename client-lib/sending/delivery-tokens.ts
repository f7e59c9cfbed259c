/**
 * Delivery tokens of this device (docs/protocol/delivery.md, "Delivery tokens"): one at a time, told to
 * the own node, and handed to the members of conversations inside MLS: with a Welcome, with a text,
 * or by themselves soon after something changed (extras.ts). Blocking somebody makes a new one that goes to
 * everybody else, in a conversation with them to the others there. Whose tokens go on which copy is the outbox's business.
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
import { contentLimits, type HandedToken } from '../content.ts';
import type { Extra } from './extras.ts';
import type { Caller } from '../dial.ts';
import type { MlsGroup } from '../mls/index.ts';
import { recipientsOf } from './sealing.ts';
import type { ClientStore } from '../store/store.ts';

/** Id of no token. */
const nobody = 0;
/** In place of a token's id: all members of a conversation have it but those who are blocked. */
const toldToOthers = (id: number): number => -id;

export interface DeliveryTokensParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly rid: Uint8Array;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
  /** Conversations are to get the own token soon. */
  readonly onDue: () => void;
}

export class DeliveryTokens implements Extra {
  readonly #parts: DeliveryTokensParts;

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
   * Somebody's messages are not wanted: the own token is replaced, and the new one goes to no device of this
   * person. Done when the own node has it. Safe to repeat.
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

  /** The own token, if it is new to this conversation. */
  next(
    conversationId: Uint8Array,
    members: readonly string[],
  ): { readonly tokens: readonly HandedToken[] } | undefined {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    const isDue = own?.isTold === true && !tokens.isTold(conversationId, own.id);
    return isDue && this.#mayHave(members) ? { tokens: this.#own() } : undefined;
  }

  /** Blocked members, while the others of a conversation are to get the own token without them. */
  leavesOut(conversationId: Uint8Array, members: readonly string[]): readonly string[] {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    if (own?.isTold !== true || tokens.isTold(conversationId, toldToOthers(own.id))) return [];
    const blocked = tokens.blocked();
    return members.filter((userId) => blocked.includes(userId));
  }

  /** The members have the own token, in the transaction that stores what brings it. */
  mark(conversationId: Uint8Array, isForSome = false): void {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    if (own === undefined) return;
    tokens.markTold(conversationId, isForSome ? toldToOthers(own.id) : own.id);
  }

  due(): readonly Uint8Array[] {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    return own?.isTold === true ? tokens.untold(own.id) : [];
  }

  /**
   * Beside a Welcome: the own token and those of the members, as far as they are known. Whoever blocked
   * somebody keeps back its own: who is blocked is nobody's business, and may be invited by anybody.
   */
  forInvitees(group: MlsGroup, invited: readonly string[]): readonly HandedToken[] {
    const { tokens } = this.#parts.store;
    const ofMembers = recipientsOf(group).flatMap(({ identityPub }): HandedToken[] => {
      const token = tokens.toPass(identityPub);
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
    for (const { rid, token, isKeptBack = false } of tokens) {
      const isOwn = Buffer.compare(rid, from) === 0;
      if (isOwn) store.tokens.put(rid, token, !isKeptBack, nowMs);
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
      if (members.has(hex(rid))) store.tokens.putPassed(rid, token, nowMs);
    }
  }

  /**
   * Members were added to a conversation, in the transaction that stores it: a token that is kept back nobody
   * gave them, unless this device invited them, and then only where nobody is who is blocked.
   */
  grew(conversationId: Uint8Array, byThisDevice = false): void {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    const isForSome = own !== undefined && tokens.isTold(conversationId, toldToOthers(own.id));
    const isMissing = byThisDevice ? isForSome : tokens.blocked().length > 0;
    if (isMissing) tokens.markTold(conversationId, nobody);
  }

  /** Conversations that do not have the own token get it soon. */
  wake(): void {
    this.#parts.onDue();
  }

  #make(): void {
    const { store, runtime } = this.#parts;
    store.tokens.putOwn(runtime.random.bytes(deliveryTokenBytes), runtime.clock.now());
  }

  #own(): readonly HandedToken[] {
    const { tokens } = this.#parts.store;
    const own = tokens.own();
    const isKeptBack = tokens.blocked().length > 0;
    return own === undefined ? [] : [{ rid: this.#parts.rid, token: own.token, isKeptBack }];
  }

  #mayHave(members: readonly string[]): boolean {
    const blocked = this.#parts.store.tokens.blocked();
    return !members.some((userId) => blocked.includes(userId));
  }
}
