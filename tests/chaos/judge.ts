/** What a scenario's history amounts to: counts, recovery times, and what the checkers find. */
import {
  fifo,
  intentsEnd,
  linesOf,
  live,
  noDup,
  noGap,
  noLoss,
  oneLog,
  shownOnce,
  type History,
  type Violation,
} from '../checkers/index.ts';
import { sameLogs } from './hub-logs.ts';

export interface Judgement {
  /** Messages of which the sender's node acknowledged every copy (raw runs: acknowledged calls). */
  readonly acknowledged: number;
  /** Copies of them that are owed: one for each recipient device. */
  readonly owed: number;
  readonly received: number;
  readonly lost: number;
  readonly doubled: number;
  /** Copies whose sender was told that they will not arrive. */
  readonly gaveUp: number;
  /** Faults by name. */
  readonly faults: Readonly<Record<string, number>>;
  /**
   * From each start of a party, or the end of its fault, to the first message that its clients got
   * through or took in (ms): median and longest. Undefined when nothing was to recover.
   */
  readonly recoveryMs: { readonly median: number; readonly max: number } | undefined;
  /** From the last fault to the last message taken in (ms); 0: nothing was left to drain. */
  readonly drainMs: number;
  readonly violations: readonly Violation[];
}

export interface JudgeOptions {
  /** Everything must be delivered this long (ms) after the last fault. */
  readonly liveWithinMs: number;
  /** `sent`: also what no node acknowledged must have arrived at the end. */
  readonly promised?: 'accepted' | 'sent';
  /** Recovery times (ms) that the scenario took itself; default: from starts, by the history. */
  readonly recoveriesMs?: readonly number[];
}

export function judge(history: History, options: JudgeOptions): Judgement {
  const promised = options.promised ?? 'accepted';
  const accepted = new Set(
    linesOf(history, 'accepted').map(({ device, innerId }) => `${device} ${innerId}`),
  );
  const owed = linesOf(history, 'sent')
    .filter(({ device, innerId }) => accepted.has(`${device} ${innerId}`))
    .reduce((sum, { recipients }) => sum + recipients.length, 0);
  const lost = noLoss(history, { promised });
  const doubled = noDup(history);
  const stored = linesOf(history, 'stored');
  const healedMs = linesOf(history, 'healed').at(-1)?.atMs ?? Number.NaN;
  const lastMs = stored.reduce((latest, { atMs }) => Math.max(latest, atMs), 0);
  return {
    acknowledged: accepted.size,
    owed,
    received: stored.length,
    lost: lost.length,
    doubled: doubled.length,
    gaveUp: linesOf(history, 'gaveUp').length,
    faults: countBy(linesOf(history, 'fault').map(({ name }) => name)),
    recoveryMs: summary(options.recoveriesMs ?? recoveries(history)),
    drainMs: Math.max(0, lastMs - healedMs),
    violations: [
      ...lost,
      ...doubled,
      ...noGap(history),
      ...fifo(history),
      ...live(history, options.liveWithinMs),
      ...unopened(history),
      ...shownOnce(history),
      ...intentsEnd(history),
      // Hubs have entries with the time of their own wall clocks, which a scenario moves.
      ...oneLog(history, { isOneClock: false }),
      ...sameLogs(history),
    ],
  };
}

/** From each start of a party to the first message that its clients got through or took in (ms). */
function recoveries(history: History): number[] {
  const signs = [...linesOf(history, 'accepted'), ...linesOf(history, 'stored')].toSorted(
    (a, b) => a.atMs - b.atMs,
  );
  return linesOf(history, 'fault')
    .filter(({ name }) => name === 'start')
    .flatMap(({ target, atMs }) => {
      const sign = signs.find(({ device, atMs: signMs }) => signMs > atMs && isOf(device, target));
      return sign === undefined ? [] : [sign.atMs - atMs];
    });
}

function summary(times: readonly number[]): Judgement['recoveryMs'] {
  const sorted = times.toSorted((a, b) => a - b);
  const [median, max] = [sorted[Math.floor(sorted.length / 2)], sorted.at(-1)];
  return median === undefined || max === undefined ? undefined : { median, max };
}

/** A device belongs to itself and to its node. */
function isOf(device: string, target: string): boolean {
  return device === target || device.endsWith(`@${target}`);
}

/**
 * A row that nobody could open is a message that nobody can read, unless its device has everything
 * that was sent to it: then it was a copy too many, or was sealed anew.
 */
function unopened(history: History): Violation[] {
  const has = new Set(
    linesOf(history, 'stored').map(({ device, senderDevice, innerId }) =>
      [device, senderDevice, innerId].join(' '),
    ),
  );
  const lacking = new Set(
    linesOf(history, 'sent').flatMap(({ device, innerId, recipients }) =>
      recipients.filter((recipient) => !has.has([recipient, device, innerId].join(' '))),
    ),
  );
  return linesOf(history, 'missing')
    .filter(({ what, device }) => what === 'undecryptable' && lacking.has(device))
    .map(({ device, reason }) => ({
      checker: 'no-loss',
      text: `${device} could not open a row: ${reason}`,
    }));
}

function countBy(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}
