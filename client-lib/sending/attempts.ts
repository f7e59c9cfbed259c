/**
 * One attempt with copies for one device: they travel together, and each answer is judged in its turn. When there is
 * another attempt, and with which copies, is the outbox's business.
 */
import {
  hasReason,
  maxMessageBytes,
  QpcError,
  Status,
  TransportError,
  type Runtime,
} from '@quicprochat/proto';
import { Outcome } from '@quicprochat/proto/messages';
import { deadPostVerdict, isDeadPost } from '../channels/dead-posts.ts';
import type { Caller } from '../dial.ts';
import type { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import type { OutboxEntry, OutboxRow } from '../store/outbox-copies.ts';
import type { ClientStore } from '../store/store.ts';
import type { Courier } from './courier.ts';
import type { OutboxMarks } from './outbox-marks.ts';
import type { ProvenOk } from './proven-ok.ts';
import type { SealedReceipt, SealedSender } from './sealed-sender.ts';
import {
  isAwayForGood,
  isFullForStrangers,
  isStaleToken,
  sealedVerdict,
  sendVerdict,
  unreachableReason,
  type SendVerdict,
} from './send-verdict.ts';
import type { TokenWaits } from './token-waits.ts';

/** Internal errors of the node on one row before it counts as refused. */
const internalErrorsMax = 8;

/** `done`: it needs no other attempt. */
export type Verdict = 'done' | 'waits' | 'renewed' | Exclude<SendVerdict, 'permanent'>;

/** What came of an attempt. */
export interface Attempted {
  /** Of the first copy that did not get through; `done` also when it never will. */
  readonly verdict: Verdict;
  /** Row id of the last copy that is done with all before it. */
  readonly upTo: number | undefined;
  /** The own node asks for quiet (ms): it holds for all that is sent. */
  readonly quietMs: number;
}

/** The own node, as it is when an attempt begins. */
export interface OwnNode {
  readonly session: Session;
  readonly courier: Courier;
  /** Names its store. */
  readonly storeId: Uint8Array;
}

export interface AttemptParts {
  /** Of the own node. */
  readonly domain: string;
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly marks: OutboxMarks;
  readonly proven: ProvenOk;
  readonly waits: TokenWaits;
  /** Where senders are sealed: the way to the recipient's node without a login. */
  readonly sealed?: Pick<SealedSender, 'send' | 'caller'> | undefined;
  /** A token of a device was refused: whether another one is known now, asked for at this node if need be. */
  readonly renew?: (at: Caller, rid: Uint8Array, token: Uint8Array) => Promise<boolean>;
  /** Copies are due again: they were overtaken while they waited, posts died, or the node has another store. */
  readonly onDueAgain: () => void;
  /** The node does not know the group's channel, or another epoch of it. */
  readonly onStuckPost?: (groupId: Uint8Array, cid: Uint8Array) => void;
  /** The own node says that it cannot reach a domain. */
  readonly onUnreachable?: (domain: string) => void;
}

/** With what a copy went. */
interface Means {
  readonly token: Uint8Array;
  readonly sealed: AttemptParts['sealed'];
  readonly session: Session;
  readonly storeId: Uint8Array;
}

type Answer = PromiseSettledResult<SealedReceipt>;

export class Attempts {
  readonly #parts: AttemptParts;
  readonly #internalErrors = new Map<number, number>();
  #isClosed = false;

  constructor(parts: AttemptParts) {
    this.#parts = parts;
  }

  /** Nothing is asked for any more. */
  close(): void {
    this.#isClosed = true;
  }

  /** Copies for one device, in order. Of those that are refused the first counts: what stands behind it goes again. */
  async send(entries: readonly OutboxRow[], own: OwnNode): Promise<Attempted> {
    const [first] = entries;
    const token = (first && this.#parts.store.tokens.of(first.rid)) ?? new Uint8Array(0);
    // Without a token nobody takes it from somebody unknown, nor one that is larger than a message: invitations, as a rule.
    const isSealable = token.length > 0 && first !== undefined && isOfMessageSize(first);
    const sealed = isSealable ? this.#parts.sealed : undefined;
    const { session, courier, storeId } = own;
    const send = async (entry: OutboxRow): Promise<SealedReceipt> =>
      sealed === undefined
        ? { ...(await courier.send(entry, token)), caller: session }
        : sealed.send(entry, token);
    // In one turn, so that they travel together.
    const answers = await Promise.allSettled(entries.map(send));
    let refused: Verdict | undefined;
    let upTo: number | undefined;
    let isUnbroken = true;
    for (const [index, entry] of entries.entries()) {
      const answer = answers[index];
      const isRefused = answer?.status !== 'fulfilled';
      if (answer === undefined || (isRefused && refused !== undefined)) {
        isUnbroken = false;
        continue;
      }
      const verdict = await this.#judge(entry, answer, { token, sealed, session, storeId });
      if (isRefused || verdict !== 'done') refused ??= verdict;
      isUnbroken &&= verdict === 'done';
      if (isUnbroken) upTo = entry.id;
    }
    // Only the own node speaks for everything that is sent: another one would stop it all.
    const quietMs = sealed === undefined ? Math.max(0, ...answers.map(quietMsOf)) : 0;
    return { verdict: refused ?? 'done', upTo, quietMs };
  }

  async #judge(entry: OutboxRow, answer: Answer, means: Means): Promise<Verdict> {
    const { domain, proven, marks } = this.#parts;
    const { token, sealed, storeId } = means;
    if (answer.status === 'rejected') return this.#refused(entry, answer.reason, means);
    // STORED or DUPLICATE: both mean that the node has it, and signs for it.
    const { proof, receivedMs, outcome } = answer.value;
    try {
      const by = sealed === undefined ? domain : entry.domain;
      if (!(await proven.check(entry, answer.value, by))) return 'temporary';
    } catch (error) {
      return this.#refused(entry, error, means);
    }
    const { tokenWaits } = entry;
    // The node may have had it without, or with another one: only of what came back before that is known to be over.
    const isFirst = outcome === Outcome.STORED || tokenWaits > 0;
    const sent = token.length > 0 && isFirst ? token : undefined;
    this.#internalErrors.delete(entry.id);
    const via = sealed === undefined ? 'node' : 'guest';
    marks.accepted(entry, {
      ...{ storeId, proof, receivedMs: Number(receivedMs), tokenWaits, token: sent, via },
    });
    return 'done';
  }

  async #refused(entry: OutboxRow, error: unknown, means: Means): Promise<Verdict> {
    const { token, sealed } = means;
    const { runtime, waits, onUnreachable } = this.#parts;
    const ageMs = runtime.clock.now() - entry.createdMs;
    const verdict = sealed === undefined ? sendVerdict(error) : sealedVerdict(error, ageMs);
    const reason = reasonOf(error);
    runtime.log.debug('enqueue failed', { reason, verdict });
    if (entry.post !== undefined && isDeadPost(error)) return this.#deadPost(entry, reason);
    if (reason === unreachableReason) onUnreachable?.(entry.domain);
    if (isAwayForGood(error, ageMs, sealed !== undefined)) {
      this.#fail(entry, unreachableReason);
      return 'done';
    }
    const isRefusedToken =
      isFullForStrangers(error) || (sealed !== undefined && isStaleToken(error));
    if (isRefusedToken && (await this.#renew(entry, means))) return 'renewed';
    if (isFullForStrangers(error) && waits.wait(entry, token)) return 'waits';
    if (verdict === 'permanent' || this.#isPoison(entry, error)) {
      this.#fail(entry, reason);
      return 'done';
    }
    return verdict;
  }

  #deadPost(entry: OutboxRow, reason: string): 'done' | 'temporary' {
    const { store, runtime, onDueAgain, onStuckPost } = this.#parts;
    if (deadPostVerdict(store, entry) === 'waits') {
      if (entry.groupId !== undefined) onStuckPost?.(entry.groupId, entry.rid);
      return 'temporary';
    }
    const nowMs = runtime.clock.now();
    if (store.transaction(() => store.outbox.sealPostAnew(entry.id, nowMs))) onDueAgain();
    else this.#fail(entry, reason);
    return 'done';
  }

  /**
   * Never fails: there may be one the next time. A copy with a name has the own node asked, which has read all of the
   * question on the copy, and no other one: that would learn this device's address by it.
   */
  async #renew({ domain, rid }: OutboxEntry, { token, sealed, session }: Means): Promise<boolean> {
    const { renew, runtime } = this.#parts;
    const isAsked = sealed !== undefined || domain === this.#parts.domain;
    if (renew === undefined || this.#isClosed || token.length === 0 || !isAsked) return false;
    try {
      if (await renew(sealed === undefined ? session : await sealed.caller(domain), rid, token)) {
        return true;
      }
      runtime.log.debug('no new delivery token', { reason: 'NOT_FOUND' });
    } catch (error) {
      runtime.log.debug('no new delivery token', { reason: reasonOf(error) });
    }
    return false;
  }

  #isPoison(entry: OutboxEntry, error: unknown): boolean {
    if (error instanceof TransportError) return false;
    if (!(error instanceof QpcError) || error.status !== Status.Internal) return false;
    const count = (this.#internalErrors.get(entry.id) ?? 0) + 1;
    this.#internalErrors.set(entry.id, count);
    return count >= internalErrorsMax;
  }

  #fail(entry: OutboxEntry, reason: string): void {
    const { store, events, proven, marks } = this.#parts;
    this.#internalErrors.delete(entry.id);
    proven.forget(entry.id);
    // It may have come there another way meanwhile.
    marks.write();
    if (!store.transaction(() => store.outbox.markFailed(entry.id, reason))) return;
    events.emit({ type: 'sendFailed', messageId: entry.messageId, rid: entry.rid, reason });
  }
}

/** Larger ones, Welcomes of large groups, are for the own node, and travel alone. */
export function isOfMessageSize({ payload }: Pick<OutboxRow, 'payload'>): boolean {
  return payload.length <= maxMessageBytes;
}

function reasonOf(error: unknown): string {
  return error instanceof QpcError ? error.reason : 'INTERNAL';
}

function quietMsOf(answer: Answer): number {
  if (answer.status === 'fulfilled') return 0;
  const error: unknown = answer.reason;
  return hasReason(error, 'RATE_LIMITED', 'OVERLOADED') ? (error.retryAfterMs ?? 0) : 0;
}
