/**
 * What one peer may cost this node (docs/protocol/federation.md): items, bytes and distinct
 * recipients in time, and a credit that shrinks while too much of what it sends is refused for good.
 * Every bound is a debt: one batch may exceed it, and what it took too much is waited for.
 */
import type { Clock } from '@quicprochat/proto';

export interface Ceilings {
  readonly itemsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Devices and channels that a peer addresses. */
  readonly recipientsPerMinute: number;
  /** Permanent rejects of the items of 10 minutes, above which the credit is halved each minute (%). */
  readonly rejectPercent: number;
  /** Part of the writer's measured capacity that all peers together get. */
  readonly writerShare: number;
}

export const defaultCeilings: Ceilings = {
  itemsPerSecond: 2_000,
  bytesPerSecond: 50 * 1024 * 1024,
  recipientsPerMinute: 5_000,
  rejectPercent: 1,
  writerShare: 0.5,
};

const minuteMs = 60_000;
const rejectMinutes = 10;
/** Fewer rejects than this prove nothing (people who left are written to once). */
const rejectsMin = 10;
const halvingsMax = 10;
/** Devices that one item may be for at the price of one; it costs as much again for as many more. */
const devicesPerItem = 8;
/** The control lane may go into debt by this much of a second's worth: a bulk flood never stops it. */
const urgentShare = 0.25;

/** What items cost: one each, and more where they are for many devices, each of which is a row to write. */
export function weightOf(items: readonly { readonly rids: readonly unknown[] }[]): number {
  return items.reduce((sum, { rids }) => sum + Math.ceil(rids.length / devicesPerItem), 0);
}

/** A bucket that holds a second's worth and may be overdrawn. */
class Allowance {
  readonly #clock: Clock;
  #perMs = 0;
  #tokens = 0;
  #atMs: number;

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock;
    this.#atMs = clock.monotonic();
    this.setRate(perSecond);
    this.#tokens = perSecond;
  }

  setRate(perSecond: number): void {
    this.#refill();
    this.#perMs = perSecond / 1000;
  }

  take(count: number): void {
    this.#refill();
    this.#tokens -= count;
  }

  /** Until there is something left (ms); `debt` may be missing. */
  waitMs(debt = 0): number {
    this.#refill();
    const missing = -debt - this.#tokens;
    return missing < 0 ? 0 : Math.ceil((missing + 1) / this.#perMs);
  }

  get left(): number {
    this.#refill();
    return this.#tokens;
  }

  #refill(): void {
    const nowMs = this.#clock.monotonic();
    const grown = this.#tokens + (nowMs - this.#atMs) * this.#perMs;
    this.#tokens = Math.min(grown, this.#perMs * 1000);
    this.#atMs = nowMs;
  }
}

/** Distinct recipients of a minute; a batch with too many makes the minute longer. */
class Recipients {
  readonly #clock: Clock;
  readonly #perMinute: number;
  readonly #seen = new Set<string>();
  #sinceMs = 0;

  constructor(clock: Clock, perMinute: number) {
    this.#clock = clock;
    this.#perMinute = perMinute;
  }

  add(rids: Iterable<Uint8Array>): void {
    this.#turn();
    for (const rid of rids) this.#seen.add(Buffer.from(rid).toString('latin1'));
  }

  waitMs(): number {
    this.#turn();
    return this.#seen.size < this.#perMinute ? 0 : Math.ceil(this.#endMs - this.#clock.monotonic());
  }

  get #endMs(): number {
    return this.#sinceMs + minuteMs * Math.max(1, this.#seen.size / this.#perMinute);
  }

  #turn(): void {
    const nowMs = this.#clock.monotonic();
    if (this.#seen.size > 0 && nowMs < this.#endMs) return;
    this.#seen.clear();
    this.#sinceMs = nowMs;
  }
}

/** How much of what a peer sends is refused for good: dictionary walks look like that. */
class Rejects {
  readonly #clock: Clock;
  readonly #percent: number;
  readonly #minutes: { minute: number; items: number; rejects: number }[] = [];
  #judgedMinute = -1;
  halvings = 0;

  constructor(clock: Clock, percent: number) {
    this.#clock = clock;
    this.#percent = percent;
  }

  /** Returns true when the credit was halved now. */
  count(items: number, rejects: number): boolean {
    const minute = Math.floor(this.#clock.monotonic() / minuteMs);
    const oldest = minute - rejectMinutes;
    while (this.#minutes[0] !== undefined && this.#minutes[0].minute <= oldest) {
      this.#minutes.shift();
    }
    const last = this.#minutes.at(-1);
    if (last?.minute === minute) {
      last.items += items;
      last.rejects += rejects;
    } else {
      this.#minutes.push({ minute, items, rejects });
    }
    const isFirst = this.halvings === 0 && this.#isTooMuch;
    if (minute === this.#judgedMinute && !isFirst) return false;
    this.#judgedMinute = minute;
    const before = this.halvings;
    this.halvings = this.#isTooMuch ? Math.min(halvingsMax, before + 1) : Math.max(0, before - 1);
    return this.halvings > before;
  }

  get #isTooMuch(): boolean {
    let items = 0;
    let rejects = 0;
    for (const one of this.#minutes) {
      items += one.items;
      rejects += one.rejects;
    }
    return rejects >= rejectsMin && rejects * 100 > items * this.#percent;
  }
}

/** The ceilings of one peer. */
export class PeerCeiling {
  readonly #items: Allowance;
  readonly #bytes: Allowance;
  readonly #recipients: Recipients;
  readonly #rejects: Rejects;
  readonly #urgentItems: number;

  constructor(clock: Clock, ceilings: Ceilings) {
    this.#items = new Allowance(clock, ceilings.itemsPerSecond);
    this.#bytes = new Allowance(clock, ceilings.bytesPerSecond);
    this.#recipients = new Recipients(clock, ceilings.recipientsPerMinute);
    this.#rejects = new Rejects(clock, ceilings.rejectPercent);
    this.#urgentItems = ceilings.itemsPerSecond * urgentShare;
  }

  /** How long the peer has to wait before its next batch (ms). */
  waitMs(isUrgent: boolean): number {
    return Math.max(
      this.#items.waitMs(isUrgent ? this.#urgentItems : 0),
      this.#bytes.waitMs(),
      this.#recipients.waitMs(),
    );
  }

  /** A batch comes, whatever becomes of it. */
  charge(items: number, bytes: number, rids: Iterable<Uint8Array>): void {
    this.#items.take(items);
    this.#bytes.take(bytes);
    this.#recipients.add(rids);
  }

  /** A batch was applied. Returns true when the credit shrinks because of its rejects. */
  judged(items: number, permanentRejects: number): boolean {
    return this.#rejects.count(items, permanentRejects);
  }

  /** What is left of a credit of items: at least 1, so that a peer can show that it got better. */
  creditOf(items: number): number {
    const left = Math.max(1, Math.floor(this.#items.left));
    return Math.max(1, Math.min(items >> this.#rejects.halvings, left));
  }
}

/**
 * The part of the writer's capacity that peers get. Capacity is measured where batches are large
 * enough to keep the writer busy, from the moment the writer has them: how long a batch waited for the
 * one before it is its sender's doing. As long as none was, nothing is held back.
 */
export class WriterShare {
  readonly #clock: Clock;
  readonly #share: number;
  readonly #budget: Allowance;
  #msPerRow: number | undefined;
  /** Batches in the store now, since when, and the rows that came since then. */
  #running = 0;
  #busySinceMs = 0;
  #busyRows = 0;

  constructor(clock: Clock, share: number) {
    this.#clock = clock;
    this.#share = share;
    this.#budget = new Allowance(clock, 0);
  }

  /** Rows per second that peers get; infinite as long as nothing was measured. */
  get perSecond(): number {
    const ms = this.#msPerRow;
    if (ms === undefined || ms <= 0) return Number.POSITIVE_INFINITY;
    return Math.max(leastPerSecond, (1000 * this.#share) / ms);
  }

  waitMs(): number {
    return Number.isFinite(this.perSecond) ? this.#budget.waitMs() : 0;
  }

  /** A batch of a peer was taken in. */
  charge(rows: number): void {
    if (Number.isFinite(this.perSecond)) this.#budget.take(rows);
  }

  /** The writer has a batch. */
  async run<T>(rows: number, write: () => Promise<T>): Promise<T> {
    if (this.#running === 0) {
      this.#busySinceMs = this.#clock.monotonic();
      this.#busyRows = 0;
    }
    this.#running += 1;
    this.#busyRows += rows;
    try {
      return await write();
    } finally {
      this.#running -= 1;
      if (this.#running === 0) this.#measure(this.#clock.monotonic() - this.#busySinceMs);
    }
  }

  #measure(busyMs: number): void {
    // A few rows cost a sync and little else: they say nothing about many.
    if (this.#busyRows < measuredRows) return;
    const ms = busyMs / this.#busyRows;
    const before = this.#msPerRow ?? ms;
    // The first batches after a start find everything cold, and a disk may pause: what the writer can do
    // is what it does when nothing is in its way, so a better measure counts for more than a worse one.
    const weight = ms < before ? betterWeight : worseWeight;
    this.#msPerRow = before + (ms - before) * weight;
    if (Number.isFinite(this.perSecond)) this.#budget.setRate(this.perSecond);
  }
}

const measuredRows = 64;
const betterWeight = 0.5;
const worseWeight = 0.1;
/** A disk or a process that stood still for a while says nothing about the time after it. */
const leastPerSecond = 64;
