/**
 * The rules by which members judge together (docs/protocol/group-log.md, "What cannot be judged alone"): who has a
 * say, what votes come to, when and whom a device asks. Pure.
 */
import { createHash } from 'node:crypto';
import { hex } from '@quicprochat/proto';
import type { Recipient } from '../../sending/fan-out.ts';
import type { Doubt, Standing } from '../log/group-log.ts';
import type { MlsGroup } from '../../mls/index.ts';
import type { DoubtRow, VoteRow } from '../../store/standing-rows.ts';

const minuteMs = 60_000;

export const standingLimits = {
  /** Who is added is looked up for so long before a device gives it up (ms). */
  keysMs: 10 * minuteMs,
  /** One that applied it is enough after so long without a decision (ms): somebody can, and this device cannot. */
  aloneMs: 10 * minuteMs,
  /** Second question (ms); each later one waits four times as long, to an hour. */
  askMs: minuteMs,
  askMaxMs: 60 * minuteMs,
  /** Devices of a group, beyond which a first question goes to a few of them only. */
  devices: 64,
  firstAsked: 8,
  /** Epochs back that members decide over a commit: those that everybody keeps. */
  epochs: 8,
  /** Votes in one message. */
  votes: 1_024,
  /** Devices that are remembered for what they were told of an entry. */
  told: 4_096,
  /** A device that came back asks so often whether others came along; one that was removed, whether that is so. */
  backRounds: 48,
  /** One device is told once in so long (ms) that an entry is not known here: nobody signed its question. */
  denyMs: minuteMs,
  /** Who was removed looks at the log after this (ms), then after four times as long, and so on for 30 days. */
  lookMs: 10 * minuteMs,
  lookForMs: 30 * 24 * 60 * minuteMs,
  /** Nothing is put off for longer (ms): the last look is three times as far from the one before as that from the first. */
  longestLookMs: 90 * 24 * 60 * minuteMs,
} as const;

/**
 * What the votes come to. Users count, not devices; whoever signed both is counted for both, so that a decision to
 * pass an entry over stands, whatever comes later, and for everybody who hears the same. Pure.
 */
export function decide(
  { voters, seenMs }: Pick<DoubtRow, 'voters' | 'seenMs'>,
  votes: readonly Pick<VoteRow, 'userId' | 'isApplied'>[],
  nowMs: number,
): Standing['decision'] {
  const users = (isApplied: boolean): number =>
    new Set(
      votes
        .filter((vote) => vote.isApplied === isApplied && voters.includes(vote.userId))
        .map(({ userId }) => userId),
    ).size;
  if (2 * users(false) > voters.length) return 'rejected';
  const applied = users(true);
  const isOld = nowMs - seenMs >= standingLimits.aloneMs;
  return applied > 0 && (2 * applied >= voters.length || isOld) ? 'taken' : 'open';
}

/** What is known of an entry in this group. */
export function decisionOf(
  row: DoubtRow,
  group: MlsGroup,
  votes: readonly VoteRow[],
  nowMs: number,
): Standing['decision'] {
  const heard = counted(row, group, votes);
  // One that says it applied the own removal is no reason not to ask the others.
  if (isOwnRemoval(row, group)) return decide(row, heard, row.seenMs);
  return isReturn(row) ? decideReturn(row, heard) : decide(row, heard, nowMs);
}

/**
 * Half of the others are enough to come back once more, and only more than half are company: the one member that
 * was believed is among them, and one try too many costs less than a history of its own. Pure.
 */
function decideReturn({ voters }: DoubtRow, votes: readonly VoteRow[]): Standing['decision'] {
  const share = (isApplied: boolean): number => {
    const said = votes.filter((vote) => vote.isApplied === isApplied);
    return (
      (2 * voters.filter((user) => said.some(({ userId }) => userId === user)).length) /
      voters.length
    );
  };
  if (share(false) >= 1) return 'rejected';
  return share(true) > 1 ? 'taken' : 'open';
}

/** An entry by which this device came back; of others that it applied it asks nobody. */
export const isReturn = ({ cause, askMs, round }: DoubtRow): boolean =>
  cause === 'APPLIED' && (askMs !== undefined || round > 0);

/** The entry by which this device is out, and of which it has no more than a signature. */
export const isOwnRemoval = ({ cause }: DoubtRow, group: MlsGroup): boolean =>
  cause === 'OWN' && !group.isActive;

/** When a device that is out looks at the log again; undefined: not any more. */
export function nextLookMs(seenMs: number, nowMs: number): number | undefined {
  const { lookMs, lookForMs } = standingLimits;
  const sinceMs = Math.max(lookMs, nowMs - seenMs);
  return sinceMs > lookForMs ? undefined : nowMs + 3 * sinceMs;
}

/**
 * Who applied an entry and is behind it does not go back on the word of whoever was removed since: nobody undoes
 * its own removal.
 */
function counted(
  { cause }: DoubtRow,
  group: MlsGroup,
  votes: readonly VoteRow[],
): readonly VoteRow[] {
  if (cause !== 'APPLIED') return votes;
  const users = new Set(group.members().map(({ userId }) => userId));
  return votes.filter(({ userId }) => users.has(userId));
}

/** Users in both groups, without whose commit it is. */
export function votersOf(before: MlsGroup, after: MlsGroup, by: string): readonly string[] {
  const staying = new Set(after.members().map(({ identityPub }) => hex(identityPub)));
  const users = before
    .members()
    .filter(({ identityPub, userId }) => staying.has(hex(identityPub)) && userId !== by)
    .map(({ userId }) => userId);
  return [...new Set(users)];
}

/** Users with a device that a commit leaves in, without whose it is. */
export function stayingUsers(
  before: MlsGroup,
  removed: readonly number[],
  by: string,
): readonly string[] {
  const staying = before.members().filter(({ leafIndex }) => !removed.includes(leafIndex));
  return [...new Set(staying.map(({ userId }) => userId))].filter((userId) => userId !== by);
}

/** All, or in a large group as many as the round allows, the same for everybody who asks. */
export function askedOf(
  all: readonly Recipient[],
  { hash, round }: DoubtRow,
): readonly Recipient[] {
  if (all.length < standingLimits.devices) return all;
  const order = ({ identityPub }: Recipient): string =>
    createHash('sha256').update(hash).update(identityPub).digest('hex');
  return all
    .map((one) => ({ one, at: order(one) }))
    .sort((a, b) => (a.at < b.at ? -1 : 1))
    .slice(0, standingLimits.firstAsked ** (round + 1))
    .map(({ one }) => one);
}

export function dueOf(
  cause: Doubt['cause'],
  isCertain: boolean,
  nowMs: number,
): Pick<DoubtRow, 'voteMs' | 'askMs'> {
  // One's own commit is nothing to vote on; the others know whether it is.
  if (cause === 'OWN') return { voteMs: undefined, askMs: nowMs };
  return { voteMs: isCertain ? nowMs : nowMs + standingLimits.keysMs, askMs: nowMs };
}

const askAfter = (round: number): number =>
  Math.min(standingLimits.askMaxMs, standingLimits.askMs * 4 ** Math.min(round, 8));

/** The row after a question. `isBounded`: what it asks holds up nobody but itself. */
export function asked(row: DoubtRow, isBounded: boolean, nowMs: number): DoubtRow {
  const isLast = isBounded && row.round >= standingLimits.backRounds;
  return { ...row, askMs: isLast ? undefined : nowMs + askAfter(row.round), round: row.round + 1 };
}

export const later = (ms: number | undefined, nowMs: number): number | undefined =>
  ms !== undefined && ms > nowMs ? ms : undefined;

export const nameOf = ({ device, isApplied }: Pick<VoteRow, 'device' | 'isApplied'>): string =>
  `${hex(device)} ${isApplied}`;

/** Over which a device signs. */
export function statementOf(groupId: Uint8Array, hash: Uint8Array, isApplied: boolean): Uint8Array {
  return Buffer.concat([groupId, hash, Buffer.of(isApplied ? 1 : 0)]);
}
