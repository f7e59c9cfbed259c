/**
 * What the members make of a commit that not all of them can judge (docs/protocol/group-log.md, "What cannot
 * be judged alone"): what each device signed of an entry, that it applied it or will not, and what follows.
 * What more than half of those who stay will not apply is no part of the log. standing-teller.ts says it to others.
 */
import { hex, sameBytes, verifyStatement } from '@quicprochat/proto';
import { fromBinary, GroupStandingSchema, type GroupStanding } from '@quicprochat/proto/messages';
import type { ClientEvent, EventBus } from '../../events.ts';
import type { Member, MlsGroup } from '../../mls/index.ts';
import { never, Unopened } from '../../receiving/row-verdict.ts';
import type { DoubtRow, VoteRow } from '../../store/standing-rows.ts';
import type { Batch } from '../../writer.ts';
import type { Doubt, LogView, Standing, Walk } from '../log/group-log.ts';
import {
  decisionOf,
  dueOf,
  isOwnRemoval,
  isReturn,
  nameOf,
  standingLimits,
  statementOf,
  stayingUsers,
  votersOf,
} from './standing-rules.ts';
import { StandingTeller, type StandingTellerParts } from './standing-teller.ts';

export interface StandingsParts extends StandingTellerParts {
  readonly events: EventBus;
}

/** Which entry, and of which group. */
interface EntryName extends Pick<Doubt['entry'], 'epoch' | 'hash'> {
  readonly entry: Pick<Doubt['entry']['entry'], 'group'>;
}

export class Standings {
  readonly #parts: StandingsParts;
  readonly #teller: StandingTeller;

  constructor(parts: StandingsParts) {
    this.#parts = parts;
    this.#teller = new StandingTeller(parts);
  }

  start(): void {
    this.#teller.start();
  }

  async stop(): Promise<void> {
    await this.#teller.stop();
  }

  get isIdle(): boolean {
    return this.#teller.isIdle;
  }

  /** Resolves when nothing is being said. */
  async idle(): Promise<void> {
    await this.#teller.idle();
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
    batch.after(() => this.#teller.wake());
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
      this.#teller.wake();
    });
  }

  /** Part of a batch: the log, or a row, speaks against the entry by which this device is out. */
  suspect(batch: Batch, groupId: Uint8Array, hash: Uint8Array): void {
    const { store } = this.#parts;
    const row = store.standings.doubt(groupId, hash);
    if (row?.cause !== 'OWN' || row.askMs !== undefined || row.round > 0) return;
    batch.write(() => store.standings.putDoubt({ ...row, askMs: batch.nowMs }));
    batch.after(() => this.#teller.wake());
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
    // Its invitation may be on its way, or lost: no message is missing for want of this.
    if (group === undefined) throw new Unopened({ kind: 'known' });
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
      if (asks && from !== undefined) this.#teller.say(row, from);
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
    if (!this.#teller.mayDeny(to.identityPub, batch.nowMs)) return;
    const entry = { epoch: Number(epoch), hash, entry: { group: groupId } };
    const row = this.#row(batch, entry, 'VOID', undefined, []);
    batch.after(() => this.#teller.say(row, to));
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
    if (isRejected && group.members().length > standingLimits.devices) this.#teller.say(row);
  }
}
