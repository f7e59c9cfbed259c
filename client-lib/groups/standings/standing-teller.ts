/**
 * Saying where this device stands about entries in doubt (docs/protocol/group-log.md, "What cannot be judged
 * alone"): what is due goes to who is to be asked, an answer to who asked, with its own signed word and what
 * others signed. What is due, and what it makes of the answers, standings.ts writes down.
 */
import {
  hex,
  QpcError,
  sameBytes,
  signingKeyFromSeed,
  signStatement,
  type SigningKey,
} from '@quicprochat/proto';
import { create, GroupStandingSchema, toBinary } from '@quicprochat/proto/messages';
import { withPrekeys, type Fetched } from '../../account/prekeys.ts';
import type { Member, SignatureKey } from '../../mls/index.ts';
import { envelopeKeyOf } from '../../sending/envelope-key.ts';
import { channelCopies, PrekeyError, reachableCopies } from '../../sending/fan-out.ts';
import { recipientsOf } from '../../sending/sealing.ts';
import type { DoubtRow, VoteRow } from '../../store/standing-rows.ts';
import type { Batch } from '../../writer.ts';
import {
  asked,
  askedOf,
  decisionOf,
  isOwnRemoval,
  isReturn,
  later,
  nextLookMs,
  standingLimits,
  statementOf,
} from './standing-rules.ts';
import { ToldVotes } from './told-votes.ts';
import type { SendingParts } from '../../sending/sending-parts.ts';

export interface StandingTellerParts extends SendingParts {
  readonly rid: Uint8Array;
  readonly signatureKey: SignatureKey;
  readonly userId: string;
  /** There is more to read in this group's log, or it is to be read with other eyes. */
  readonly onNews: (groupId: Uint8Array) => void;
  /** This device's removal from the group is to be looked at. */
  readonly onRemoval: (groupId: Uint8Array) => void;
}

export class StandingTeller {
  readonly #parts: StandingTellerParts;
  readonly #key: SigningKey;
  readonly #told = new ToldVotes();
  readonly #speaking = new Set<Promise<void>>();
  /** Entries that are being spoken of to all, in hex. */
  readonly #due = new Set<string>();
  #timer: { cancel(): void } | undefined;
  #isStopped = false;

  constructor(parts: StandingTellerParts) {
    this.#parts = parts;
    this.#key = signingKeyFromSeed(parts.signatureKey.seed);
  }

  start(): void {
    this.#isStopped = false;
    this.wake();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.idle();
  }

  get isIdle(): boolean {
    return this.#speaking.size === 0;
  }

  /** Resolves when nothing is being said. */
  async idle(): Promise<void> {
    while (this.#speaking.size > 0) await Promise.all(this.#speaking);
  }

  /** Whether a device may be told now that another entry stands here in the place of one; it counts as told then. */
  mayDeny(rid: Uint8Array, nowMs: number): boolean {
    return this.#told.mayDeny(rid, nowMs);
  }

  /** Soon: everything that is due. */
  wake(): void {
    const { store, runtime } = this.#parts;
    this.#timer?.cancel();
    if (this.#isStopped) return;
    let nextMs = store.standings.nextDueMs();
    if (nextMs === undefined) return;
    const nowMs = runtime.clock.now();
    if (nextMs > nowMs + standingLimits.longestLookMs) {
      // The clock was ahead when that was written down.
      store.transaction(() => store.standings.putForward(nowMs));
      nextMs = nowMs;
    }
    if (nextMs > nowMs) {
      this.#rest(nextMs - nowMs);
      return;
    }
    for (const row of store.standings.due(nowMs)) this.say(row);
  }

  /** To one device, or to who is to be asked. */
  say(row: DoubtRow, to?: Member): void {
    const key = to === undefined ? hex(row.hash) : '';
    if (this.#isStopped || this.#due.has(key)) return;
    if (to === undefined) this.#due.add(key);
    let hasFailed = false;
    const speaking = withPrekeys(this.#parts, (fetched) =>
      this.#parts.writer.run((batch) => this.#sayIn(batch, row, to, fetched)),
    )
      .catch((error: unknown) => {
        hasFailed = true;
        if (to === undefined) this.#putOff(row);
        const reason = error instanceof QpcError ? error.reason : 'INTERNAL';
        this.#parts.runtime.log.info('saying where one stands failed', { reason });
      })
      .finally(() => {
        this.#speaking.delete(speaking);
        if (to !== undefined) return;
        this.#due.delete(key);
        if (hasFailed) this.#rest(standingLimits.askMs);
        else this.wake();
      });
    this.#speaking.add(speaking);
  }

  #rest(restMs: number): void {
    this.#timer?.cancel();
    if (this.#isStopped) return;
    this.#timer = this.#parts.runtime.clock.timer(restMs, () => this.wake());
  }

  /** One whose keys cannot be had does not make this device ask every minute. */
  #putOff({ groupId, hash }: DoubtRow): void {
    const { store, runtime } = this.#parts;
    store.transaction(() => {
      const row = store.standings.doubt(groupId, hash);
      if (row?.askMs === undefined) return;
      const { ended } = store.groups.conversationOfGroup(groupId) ?? {};
      const isOut = row.cause === 'OWN' && (ended === 'REMOVED' || ended === 'LEFT');
      const nowMs = runtime.clock.now();
      if (isReturn(row)) store.standings.putDoubt(asked(row, true, nowMs));
      // It has nothing to do but this, and may be without a network for days.
      if (isOut) store.standings.putDoubt({ ...row, askMs: nowMs + standingLimits.lookMs });
    });
  }

  /** Who has no prekey is left out once they were asked for. Throws PrekeyError where that is everybody, and some did not come. */
  async #sayIn(
    batch: Batch,
    said: DoubtRow,
    to: Member | undefined,
    fetched: Fetched | undefined,
  ): Promise<void> {
    const { groupId, hash } = said;
    const { store, mls, contacts, runtime, rid, onOutbox, onNews, onRemoval } = this.#parts;
    const { random } = runtime;
    const group = batch.group(groupId);
    const known = store.standings.doubt(groupId, hash);
    // What was never seen here is not kept either.
    const row = known ?? (to === undefined ? undefined : said);
    if (row === undefined) return;
    if (group === undefined) {
      if (known === undefined) return;
      batch.write(() => store.standings.putDoubt({ ...row, voteMs: undefined, askMs: undefined }));
      return;
    }
    const isThere = Number(group.epoch) === row.epoch - 1 && group.isActive;
    const votes = [...store.standings.votes(groupId, hash)];
    const isOut = isOwnRemoval(row, group) && this.#isBehind(row);
    const own = group.isActive ? this.#ownVote(row, to !== undefined, batch.nowMs) : undefined;
    const hasVoted = votes.some(({ device }) => sameBytes(device, rid));
    if (own !== undefined && !hasVoted) votes.unshift(own);
    const isBack = isReturn(row) && this.#isBehind(row) && group.isActive;
    const decision = decisionOf(row, group, votes, batch.nowMs);
    const isOpen = (isThere || isBack || isOut) && decision === 'open';
    const asks = to === undefined && isOpen && row.askMs !== undefined && row.askMs <= batch.nowMs;
    const all = recipientsOf(group);
    const isToAll = isThere || isBack || (isOut && isOpen);
    const recipients = to === undefined ? (isToAll ? askedOf(all, row) : []) : [to];
    const news = recipients.filter(
      ({ identityPub }) => asks || this.#told.hasNews(hash, identityPub, votes),
    );
    const message = create(GroupStandingSchema, {
      ...{ group: groupId, epoch: BigInt(row.epoch), entry: hash, from: rid, asks },
      votes: votes
        .slice(0, standingLimits.votes)
        .map(({ device, isApplied: applied, signature }) => ({ device, applied, signature })),
      id: random.bytes(16),
    });
    const content = {
      kind: 'groupStanding',
      bytes: toBinary(GroupStandingSchema, message),
    } as const;
    const prekeyOf = (one: Uint8Array): Uint8Array | undefined => contacts.prekey(one);
    const { copies, missing } =
      to === undefined && isThere
        ? {
            copies: channelCopies(content, news, await envelopeKeyOf(mls, group), random),
            missing: [],
          }
        : reachableCopies(content, news, prekeyOf, random, fetched === undefined);
    // Without a network nobody was asked.
    if (fetched === 'partly' && copies.length === 0 && news.length > 0) {
      throw new PrekeyError(news.map(({ userId }) => userId));
    }
    batch.write(() => {
      if (own !== undefined && !hasVoted && known !== undefined) {
        store.standings.addVote(groupId, hash, own);
      }
      if (to === undefined) {
        const isLookDue = isOut && row.voteMs !== undefined && row.voteMs <= batch.nowMs;
        const lookMs = isLookDue ? nextLookMs(row.seenMs, batch.nowMs) : row.voteMs;
        const waits = own === undefined && isThere ? later(row.voteMs, batch.nowMs) : undefined;
        const voteMs = isOut ? lookMs : waits;
        // It is not done before this device is in again.
        const undoMs =
          isOut && decision === 'rejected' ? batch.nowMs + standingLimits.askMs : undefined;
        const next = { ...row, voteMs, askMs: isOpen ? row.askMs : undoMs };
        const isBounded = isOut || isReturn(row);
        store.standings.putDoubt(asks ? asked(next, isBounded, batch.nowMs) : next);
      }
      const about = { kind: 'RESEND', groupId, epoch: BigInt(row.epoch) } as const;
      for (const copy of copies) {
        store.outbox.add({ ...copy, messageId: undefined, about }, batch.nowMs);
      }
    });
    batch.after(() => {
      for (const one of news) {
        if (!missing.includes(one)) this.#told.remember(hash, one.identityPub, votes);
      }
      if (copies.length > 0) onOutbox();
      // Its own word, or the time, may have decided it; and logs may answer by now.
      if (isOut) onRemoval(groupId);
      else if (to === undefined && row.cause !== 'APPLIED') onNews(groupId);
    });
  }

  /** Whether this device went on behind the entry. */
  #isBehind({ groupId, epoch, hash }: DoubtRow): boolean {
    const head = this.#parts.store.groupLog.headAt(groupId, epoch);
    return head !== undefined && sameBytes(head.hash, hash);
  }

  /** What this device says of the entry; undefined: nothing yet. */
  #ownVote(row: DoubtRow, isAsked: boolean, nowMs: number): VoteRow | undefined {
    const { rid, userId } = this.#parts;
    const { groupId, hash, cause } = row;
    const isApplied = this.#isBehind(row);
    const isDue = row.voteMs !== undefined && row.voteMs <= nowMs;
    const isRefused = isDue || (isAsked && cause === 'VOID');
    if (isApplied ? !isAsked : !isRefused) return undefined;
    const statement = statementOf(groupId, hash, isApplied);
    const signature = signStatement('qpc/standing/1', statement, this.#key);
    return { device: rid, userId, isApplied, signature };
  }
}
