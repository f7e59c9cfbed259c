/**
 * Delivery tokens of this device (docs/protocol/delivery.md, "Delivery tokens"): one at a time, told to
 * the own node, and handed to the members of conversations inside MLS: with a Welcome, with a text,
 * or by themselves soon after something changed (extras.ts). Blocking somebody makes a new one that goes to
 * everybody else, in a conversation with them to the others there; until it has reached them, they find it at the own
 * node (token-renewals.ts). Whose tokens go on which copy is the outbox's business.
 */
import {
  deliveryTokenBytes,
  deliveryTokenHash,
  methods,
  parseUserId,
  QpcError,
  Status,
  sameBytes,
  type Runtime,
  type SigningKey,
  hex,
} from '@quicprochat/proto';
import { contentLimits, type HandedToken } from '../content.ts';
import type { Extra } from './extras.ts';
import type { Caller } from '../dial.ts';
import type { MlsGroup } from '../mls/index.ts';
import { recipientsOf } from './sealing.ts';
import { renewalLimits, TokenRenewals } from './token-renewals.ts';
import type { Recipient } from './fan-out.ts';
import type { ClientStore } from '../store/store.ts';
import type { OwnToken } from '../store/token-rows.ts';
import type { Writer } from '../writer.ts';

export const deliveryTokenLimits = {
  /**
   * More devices may have the token: the own node is told after so long (ms). They have none of before, and get this one
   * with the next text or by itself.
   */
  grownDelayMs: 60_000,
} as const;

/** Id of no token. */
const nobody = 0;
/** In place of a token's id: all members of a conversation have it but those who are blocked. */
const toldToOthers = (id: number): number => -id;

export interface DeliveryTokensParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly writer: Writer;
  readonly rid: Uint8Array;
  /** Its public half is `rid`. */
  readonly identityKey: SigningKey;
  /** The session of now, if there is one. */
  readonly session: () => Caller | undefined;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
  /** Conversations are to get the own token soon. */
  readonly onDue: () => void;
}

export class DeliveryTokens implements Extra {
  readonly #parts: DeliveryTokensParts;
  readonly #renewals: TokenRenewals;
  /** One at a time: an older token must not come to the node behind a newer one. */
  #telling: Promise<void> = Promise.resolve();
  #isTimed = false;

  constructor(parts: DeliveryTokensParts) {
    this.#parts = parts;
    this.#renewals = new TokenRenewals(parts.identityKey, parts.rid);
  }

  /** Tells the own node which token is in force, again and again: it may have been restored. */
  tellNode(caller: Caller): Promise<void> {
    const told = this.#telling.then(() => this.#tell(caller));
    this.#telling = told.catch(() => undefined);
    return told;
  }

  async #tell(caller: Caller): Promise<void> {
    const { store, runtime } = this.#parts;
    if (store.tokens.own() === undefined) this.#make();
    let own = store.tokens.own();
    if (own === undefined) return;
    try {
      // The first one replaced none, unless this store is an older copy of itself: the node knows.
      let isSealed = own.id > 1;
      for (;;) {
        const sealed = isSealed ? await this.#sealed() : undefined;
        own = sealed?.own ?? own;
        const { wantsRenewals } = await caller.call(methods.setDeliveryTokens, {
          hashes: [deliveryTokenHash(own.token)],
          renewals: sealed?.renewals ?? new Uint8Array(0),
        });
        if (!wantsRenewals || isSealed) break;
        isSealed = true;
      }
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
    this.#tellNow();
  }

  /**
   * A copy with this token of a device was refused: has it another one for this device? `caller` calls the
   * device's node. True when another token of it is known now. Throws what the call throws: PermissionDenied BLOCKED
   * where the node keeps nothing for who has this token.
   */
  async renew(caller: Caller, rid: Uint8Array, token: Uint8Array): Promise<boolean> {
    const { store, runtime } = this.#parts;
    const isKnown = (): boolean => !sameBytes(store.tokens.of(rid) ?? token, token);
    if (isKnown()) return true;
    const { hash, renewals } = await caller.call(methods.readTokenRenewals, { rid, token });
    const renewed = this.#renewals.open(rid, hash, renewals);
    if (isKnown()) return true;
    if (renewed === undefined || sameBytes(renewed, token)) return false;
    // Its device says itself who gets it.
    store.transaction(() => store.tokens.put(rid, renewed, false, runtime.clock.now()));
    runtime.log.debug('delivery token renewed');
    return true;
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
    if (own !== undefined && own.id > 1) this.#tellSoon();
  }

  /** Conversations that do not have the own token get it soon. */
  wake(): void {
    this.#parts.onDue();
  }

  /** The own token for every device that may have it: members of a conversation whom nobody blocked. */
  async #sealed(): Promise<{ readonly own: OwnToken; readonly renewals: Uint8Array } | undefined> {
    const { store, writer } = this.#parts;
    const readers = new Map<string, Recipient>();
    for (const { groupId, ended } of store.groups.conversations()) {
      if (ended !== undefined || readers.size >= renewalLimits.devices) continue;
      const group = await writer.run(async (batch) => batch.group(groupId));
      for (const one of group?.isActive === true ? recipientsOf(group) : []) {
        readers.set(hex(one.identityPub), one);
      }
    }
    // Both of one moment: who was blocked while groups were read must not get the token that is newer.
    const own = store.tokens.own();
    if (own === undefined) return undefined;
    const rids = [...readers.values()]
      .filter(({ userId }) => !store.tokens.isBlocked(userId))
      .map(({ identityPub }) => identityPub);
    return { own, renewals: this.#renewals.seal(own.token, rids) };
  }

  #tellSoon(): void {
    if (this.#isTimed) return;
    this.#isTimed = true;
    this.#parts.runtime.clock.timer(deliveryTokenLimits.grownDelayMs, () => {
      this.#isTimed = false;
      this.#tellNow();
    });
  }

  /** Never fails: each session begins with it. */
  #tellNow(): void {
    const caller = this.#parts.session();
    if (caller === undefined) return;
    this.tellNode(caller).catch((error: unknown) => {
      const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
      this.#parts.runtime.log.info('telling the delivery token failed', {
        reason,
        error: String(error),
      });
    });
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
