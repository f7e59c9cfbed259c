/**
 * What the members make of a commit that not all of them can judge (docs/protocol/group-log.md, "What cannot
 * be judged alone"): each device signs whether it applied the entry or will not, and passes on what others
 * signed. What more than half of those who stay will not apply is no part of the log.
 */
import {
  hex,
  QpcError,
  sameBytes,
  signingKeyFromSeed,
  signStatement,
  verifyStatement,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupStandingSchema,
  toBinary,
  type GroupStanding,
} from '@quicprochat/proto/messages';
import type { Contacts } from '../contacts/contacts.ts';
import { envelopeKeyOf } from '../sending/envelope-key.ts';
import type { ClientEvent, EventBus } from '../events.ts';
import { channelCopies, hybridCopies } from '../sending/fan-out.ts';
import type { Doubt, LogView, Standing, Walk } from './group-log.ts';
import type { Caller } from '../dial.ts';
import type { Member, Mls, MlsGroup, SignatureKey } from '../mls/index.ts';
import { withPrekeys } from '../account/prekeys.ts';
import { never, Unopened } from '../receiving/row-verdict.ts';
import { recipientsOf } from '../sending/sealing.ts';
import {
  asked,
  askedOf,
  decisionOf,
  dueOf,
  isOwnRemoval,
  isReturn,
  later,
  nameOf,
  nextLookMs,
  standingLimits,
  statementOf,
  stayingUsers,
  votersOf,
} from './standing-rules.ts';
import { ToldVotes } from './told-votes.ts';
import type { DoubtRow, VoteRow } from '../store/standing-rows.ts';
import type { ClientStore } from '../store/store.ts';
import type { Batch, Writer } from '../writer.ts';

export interface StandingsParts {
  readonly store: ClientStore;
  readonly runtime: Runtime;
  readonly events: EventBus;
  readonly writer: Writer;
  readonly mls: Mls;
  readonly contacts: Contacts;
  readonly caller: Caller;
  readonly rid: Uint8Array;
  readonly signatureKey: SignatureKey;
  readonly userId: string;
  /** The outbox got rows. */
  readonly onOutbox: () => void;
  /** There is more to read in this group's log, or it is to be read with other eyes. */
  readonly onNews: (groupId: Uint8Array) => void;
  /** This device's removal from the group is to be looked at. */
  readonly onRemoval: (groupId: Uint8Array) => void;
}

/** Which entry, and of which group. */
interface EntryName extends Pick<Doubt['entry'], 'epoch' | 'hash'> {
  readonly entry: Pick<Doubt['entry']['entry'], 'group'>;
}

export class Standings {
  readonly #parts: StandingsParts;
  readonly #key: SigningKey;
  readonly #told = new ToldVotes();
  readonly #speaking = new Set<Promise<void>>();
  /** Entries that are being spoken of to all, in hex. */
  readonly #due = new Set<string>();
  #timer: { cancel(): void } | undefined;
  #isStopped = false;

  constructor(parts: StandingsParts) {
    this.#parts = parts;
    this.#key = signingKeyFromSeed(parts.signatureKey.seed);
  }

  start(): void {
    this.#isStopped = false;
    this.#wake();
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

  /** What is known of an entry; undefined when nobody doubted it. `group`: as this device is in it now. */
  of(group: MlsGroup, hash: Uint8Array): Standing | undefined {
    const { store, runtime, rid } = this.#parts;
    const row = store.standings.doubt(group.groupId, hash);
    if (row === undefined) return undefined;
    const votes = store.standings.votes(group.groupId, hash);
    return {
      decision: decisionOf(row, group, votes, runtime.clock.now()),
      isRefusedHere: votes.some((vote) => !vote.isApplied && sameBytes(vote.device, rid)),
    };
  }

  /**
   * Part of a batch: this device came back by an entry of its own, on the word of one member. The others are asked whether
   * they came along: a commit on a state that only that member knows is one that nobody else applies.
   */
  cameBack(batch: Batch, next: MlsGroup, entry: Doubt['entry']): void {
    const { store, userId } = this.#parts;
    const users = new Set(next.members().map((member) => member.userId));
    users.delete(userId);
    const row = this.#row(batch, entry, 'APPLIED', userId, [...users]);
    // From where it was led astray its entries were none of the group's.
    const astray = this.#refuted(next).map(({ epoch }) => epoch);
    batch.write(() => {
      if (astray.length > 0) store.groupLog.dropHeadsFrom(next.groupId, Math.min(...astray));
      store.standings.settleReturns(next.groupId);
      if (users.size > 0) store.standings.putDoubt({ ...row, askMs: batch.nowMs });
    });
    batch.after(() => this.#wake());
  }

  /** Half of the others or more did not come along where this device came back. */
  isAlone(group: MlsGroup): boolean {
    return this.#refuted(group).length > 0;
  }

  #refuted(group: MlsGroup): readonly DoubtRow[] {
    const returns = this.#parts.store.standings.returns(group.groupId);
    return returns.filter(({ hash }) => this.of(group, hash)?.decision === 'rejected');
  }

  /** Part of a batch: what a walk from here came to. */
  saw(batch: Batch, view: LogView, walk: Walk): void {
    const { store, events } = this.#parts;
    const { groupId, info } = view.group;
    const rows: DoubtRow[] = [];
    let before = view.group;
    for (const { entry, next, by, removed } of walk.steps) {
      if (next.isActive)
        rows.push(this.#row(batch, entry, 'APPLIED', by, votersOf(before, next, by)));
      else {
        // Whoever is out has no say about it; those who stay have.
        const voters = stayingUsers(before, removed, by);
        const voteMs = batch.nowMs + standingLimits.lookMs;
        rows.push({ ...this.#row(batch, entry, 'OWN', by, voters), voteMs });
      }
      before = next;
    }
    const told: ClientEvent[] = [];
    const fresh: { readonly row: DoubtRow; readonly event: ClientEvent }[] = [];
    const { conversationId } = info;
    for (const { epoch, hash, entry, by, isVoted } of walk.invalid) {
      const known = store.standings.doubt(groupId, hash);
      const author = by ?? known?.author;
      const event = { type: 'commitRefused', conversationId, epoch, by: author, isVoted } as const;
      if (known === undefined) {
        fresh.push({ row: this.#row(batch, { epoch, hash, entry }, 'VOID', by, []), event });
      } else if (isVoted) {
        rows.push({ ...known, askMs: undefined });
        if (known.askMs !== undefined) told.push(event);
      }
    }
    for (const { entry, cause, commit, isCertain } of walk.doubts) {
      const known = store.standings.doubt(groupId, entry.hash);
      if (known !== undefined && known.cause !== 'VOID') continue;
      const due = dueOf(cause, isCertain, batch.nowMs);
      const row = { ...this.#row(batch, entry, cause, commit.by, commit.voters), ...due };
      const { epoch } = entry;
      const event = { type: 'commitDoubted', conversationId, epoch, by: commit.by, cause } as const;
      if (known === undefined) fresh.push({ row, event });
      else {
        rows.push(row);
        told.push(event);
      }
    }
    if (rows.length === 0 && fresh.length === 0) return;
    batch.write(() => {
      for (const row of rows) store.standings.putDoubt(row);
      const oldest = walk.group.pastEpochs().slice(-standingLimits.epochs)[0];
      if (oldest !== undefined) store.standings.dropBelow(groupId, Number(oldest));
      for (const { row, event } of fresh) if (store.standings.addDoubt(row)) told.push(event);
    });
    batch.after(() => {
      for (const event of told) events.emit(event);
      this.#wake();
    });
  }

  /** Part of a batch: the log, or a row, speaks against the entry by which this device is out. */
  suspect(batch: Batch, groupId: Uint8Array, hash: Uint8Array): void {
    const { store } = this.#parts;
    const row = store.standings.doubt(groupId, hash);
    if (row?.cause !== 'OWN' || row.askMs !== undefined || row.round > 0) return;
    batch.write(() => store.standings.putDoubt({ ...row, askMs: batch.nowMs }));
    batch.after(() => this.#wake());
  }

  #row(
    { nowMs }: Batch,
    { entry, epoch, hash }: EntryName,
    cause: DoubtRow['cause'],
    by: string | undefined,
    voters: readonly string[],
  ): DoubtRow {
    const never = { voteMs: undefined, askMs: undefined, round: 0 };
    const author = by ?? '';
    return { groupId: entry.group, hash, epoch, cause, author, voters, seenMs: nowMs, ...never };
  }

  /** What a device says of an entry. The result makes the changes. Throws a verdict on what is nothing. */
  take(bytes: Uint8Array, batch: Batch): () => void {
    const said = fromBinary(GroupStandingSchema, bytes);
    const { group: groupId, entry: hash, votes, from } = said;
    const epoch = Number(said.epoch);
    const isBounded =
      hash.length === 32 && from.length === 32 && votes.length <= standingLimits.votes;
    if (!isBounded || !Number.isSafeInteger(epoch) || epoch < 1) throw never('MALFORMED');
    const group = batch.group(groupId);
    if (group === undefined) throw never('UNKNOWN_GROUP');
    const members = this.#askedAt(group, epoch, hash);
    // Too old to be of use, or this device has yet to come there: the log tells it when to ask.
    if (members === undefined) {
      if (BigInt(epoch) <= group.epoch) throw new Unopened({ kind: 'known' });
      return () => batch.after(() => this.#parts.onNews(groupId));
    }
    const byDevice = new Map(members.map((member) => [hex(member.identityPub), member]));
    // Anybody could have written this row: what is not signed by a member of that epoch says nothing.
    // What is here already, or stands here twice, is not looked at: checking costs more than sending.
    const known = new Set(this.#parts.store.standings.votes(groupId, hash).map(nameOf));
    const valid = votes.flatMap(({ device, applied, signature }) => {
      const { userId } = byDevice.get(hex(device)) ?? {};
      const name = nameOf({ device, isApplied: applied });
      if (userId === undefined || signature.length !== 64 || known.has(name)) return [];
      known.add(name);
      const statement = statementOf(groupId, hash, applied);
      if (!verifyStatement('qpc/standing/1', statement, signature, device)) return [];
      return [{ device, userId, isApplied: applied, signature }];
    });
    return () => this.#takeIn(batch, group, said, valid, byDevice.get(hex(from)));
  }

  /** Whose word is heard about an entry; undefined: not known here. */
  #askedAt(group: MlsGroup, epoch: number, hash: Uint8Array): readonly Member[] | undefined {
    const members = group.membersAt(BigInt(epoch - 1));
    if (members !== undefined) return members;
    // The epoch before its own return is one that this device was not in.
    const row = this.#parts.store.standings.doubt(group.groupId, hash);
    return row !== undefined && isReturn(row) ? group.members() : undefined;
  }

  #takeIn(
    batch: Batch,
    group: MlsGroup,
    { group: groupId, entry: hash, epoch, asks }: GroupStanding,
    votes: readonly VoteRow[],
    from: Member | undefined,
  ): void {
    const { store } = this.#parts;
    const row = store.standings.doubt(groupId, hash);
    if (row === undefined || row.epoch !== Number(epoch)) {
      // Not read here yet; who asks will ask again.
      if (epoch > group.epoch) batch.after(() => this.#parts.onNews(groupId));
      else if (asks && from !== undefined && !this.#isUnsure(group)) {
        this.#deny(batch, groupId, { epoch, hash }, from);
      }
      return;
    }
    const known = store.standings.votes(groupId, hash);
    const before = decisionOf(row, group, known, batch.nowMs);
    batch.write(() => {
      for (const vote of votes) {
        if (row.voters.includes(vote.userId)) store.standings.addVote(groupId, hash, vote);
      }
      // A crash before it is undone does not lose that.
      const isRefuted = isOwnRemoval(row, group) && this.of(group, hash)?.decision === 'rejected';
      if (isRefuted) store.standings.putDoubt({ ...row, askMs: batch.nowMs });
    });
    batch.after(() => {
      const { decision } = this.of(group, hash) ?? {};
      if (decision !== before) this.#decided(row, group, decision === 'rejected');
      if (asks && from !== undefined) this.#say(row, from);
    });
  }

  /** It came back on somebody's word: until others came along, what stands here says nothing about theirs. */
  #isUnsure(group: MlsGroup): boolean {
    const returns = this.#parts.store.standings.returns(group.groupId);
    return returns.some(({ hash }) => this.of(group, hash)?.decision !== 'taken');
  }

  /** To who asks about an entry that was never seen here: another one stands in its place. */
  #deny(
    batch: Batch,
    groupId: Uint8Array,
    { epoch, hash }: { readonly epoch: bigint; readonly hash: Uint8Array },
    to: Member,
  ): void {
    const ours = this.#parts.store.groupLog.headAt(groupId, Number(epoch));
    if (ours === undefined || sameBytes(ours.hash, hash)) return;
    if (!this.#told.mayDeny(to.identityPub, batch.nowMs)) return;
    const entry = { epoch: Number(epoch), hash, entry: { group: groupId } };
    const row = this.#row(batch, entry, 'VOID', undefined, []);
    batch.after(() => this.#say(row, to));
  }

  #decided(row: DoubtRow, group: MlsGroup, isRejected: boolean): void {
    const { events, onNews } = this.#parts;
    const { groupId, epoch, author } = row;
    const { conversationId } = group.info;
    if (row.cause === 'APPLIED' && isRejected) {
      // The others go another way, and are more.
      events.emit({ type: 'commitRefused', conversationId, epoch, by: author, isVoted: true });
    }
    if (isOwnRemoval(row, group)) this.#parts.onRemoval(groupId);
    else onNews(groupId);
    // Where only a few were asked, the others hear of it from these.
    if (isRejected && group.members().length > standingLimits.devices) this.#say(row);
  }

  /** Soon: everything that is due. */
  #wake(): void {
    const { store, runtime } = this.#parts;
    this.#timer?.cancel();
    if (this.#isStopped) return;
    const nextMs = store.standings.nextDueMs();
    if (nextMs === undefined) return;
    const nowMs = runtime.clock.now();
    if (nextMs > nowMs) {
      this.#rest(nextMs - nowMs);
      return;
    }
    for (const row of store.standings.due(nowMs)) this.#say(row);
  }

  /** To one device, or to who is to be asked. */
  #say(row: DoubtRow, to?: Member): void {
    const key = to === undefined ? hex(row.hash) : '';
    if (this.#isStopped || this.#due.has(key)) return;
    if (to === undefined) this.#due.add(key);
    let hasFailed = false;
    let tries = 0;
    const speaking = withPrekeys(this.#parts, () => {
      tries += 1;
      const isAgain = tries > 1;
      return this.#parts.writer.run((batch) => this.#sayIn(batch, row, to, isAgain));
    })
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
        else this.#wake();
      });
    this.#speaking.add(speaking);
  }

  #rest(restMs: number): void {
    this.#timer?.cancel();
    if (this.#isStopped) return;
    this.#timer = this.#parts.runtime.clock.timer(restMs, () => this.#wake());
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

  /** `isAgain`: prekeys were fetched for it, as far as there are any. */
  async #sayIn(
    batch: Batch,
    said: DoubtRow,
    to: Member | undefined,
    isAgain: boolean,
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
    const news = recipients.filter(({ identityPub }) => {
      // One of many that cannot be asked is left out.
      if (!isThere && isAgain && contacts.prekey(identityPub) === undefined) return false;
      return asks || this.#told.hasNews(hash, identityPub, votes);
    });
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
    const copies =
      to === undefined && isThere
        ? channelCopies(content, news, await envelopeKeyOf(mls, group), random)
        : hybridCopies(content, news, (one) => contacts.prekey(one), random);
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
      for (const { identityPub } of news) this.#told.remember(hash, identityPub, votes);
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
