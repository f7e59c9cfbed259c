/**
 * Who asks which hub now (docs/protocol/group-log.md, "At a member"): a few at once of each hub, and hubs that
 * take long share places of their own, so that however many of them there are, the groups of others do not
 * wait for them. Knows no group and no call.
 */
import { ResourceExhaustedError, type Clock } from '@quicprochat/proto';

export interface LaneLimits {
  /** Turns at once, all together, of one hub, and of one that has not answered lately. */
  readonly atOnce: number;
  readonly perHub: number;
  readonly perNewHub: number;
  /** A turn that takes longer is slow, and so is its hub until it has a shorter one (ms). */
  readonly slowMs: number;
  /** Turns at once at slow hubs, beside the others: one of each hub. */
  readonly slowAtOnce: number;
  /** A slow turn ends after so long (ms). */
  readonly longestMs: number;
}

export const laneLimits: LaneLimits = {
  atOnce: 16,
  perHub: 8,
  perNewHub: 1,
  slowMs: 5_000,
  slowAtOnce: 4,
  longestMs: 5 * 60_000,
};

/** Groups that are changed together: with what they need of others, which may take long anywhere. */
export const commitLimits: LaneLimits = {
  ...{ atOnce: 64, perHub: 8, perNewHub: 8 },
  ...{ slowMs: Infinity, slowAtOnce: 0, longestMs: Infinity },
};

/**
 * Short turns, one at a time, that a slow one costs a hub before it has several again, and at most so many: one that
 * answers now and then has no more places for that.
 */
const amends = { perSlowTurn: 4, max: 32 } as const;

/** Slow hubs that are remembered: one that is forgotten is tried like a new one. */
const lanesKept = 1_024;

/** The hub had its time: others are next, and this is to be tried again. */
export class SlowHubError extends ResourceExhaustedError {
  override name = 'SlowHubError';
  constructor(hub: string) {
    super('OVERLOADED', `${hub} takes too long; it is another one's turn`);
  }
}

/** The time at a hub. */
export interface Turn {
  /** To be asked between calls. Throws SlowHubError when this has to end; it can begin again. */
  readonly check: () => void;
}

interface Lane {
  /** Called with whether the place is a slow one. */
  readonly queue: ((isSlow: boolean) => void)[];
  running: number;
  /** Of these the ones in slow places. */
  slow: number;
  pace: 'new' | 'quick' | 'slow';
  /** Short turns that are to come before it is a quick one. */
  owes: number;
}

interface Running extends Turn {
  readonly sinceMs: number;
  isSlow: boolean;
}

export class HubLanes {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #limits: LaneLimits;
  /** By domain; the one whose turn it was last is at the end. */
  readonly #lanes = new Map<string, Lane>();
  #quick = 0;
  #slow = 0;

  constructor(clock: Pick<Clock, 'monotonic'>, limits: LaneLimits = laneLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /**
   * What `work` comes to, once it is this one's turn at the hub. Throws what it throws, and the signal's reason.
   * Work in a turn must not wait for another turn of these lanes.
   */
  async run<T>(hub: string, signal: AbortSignal, work: (turn: Turn) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const lane = this.#laneOf(hub);
    const isSlow = await this.#enter(hub, lane, signal);
    const check = (): void => this.#check(hub, lane, turn);
    const turn: Running = { sinceMs: this.#clock.monotonic(), isSlow, check };
    try {
      return await work(turn);
    } finally {
      const tookMs = this.#clock.monotonic() - turn.sinceMs;
      if (tookMs > this.#limits.slowMs) {
        lane.pace = 'slow';
        lane.owes = Math.min(amends.max, lane.owes + amends.perSlowTurn);
      } else {
        lane.pace = lane.owes > 0 ? 'new' : 'quick';
        lane.owes = Math.max(0, lane.owes - 1);
      }
      this.#count(lane, turn.isSlow, -1);
      this.#drop(hub, lane);
      this.#next();
    }
  }

  #laneOf(hub: string): Lane {
    const known = this.#lanes.get(hub);
    if (known !== undefined) return known;
    const made: Lane = { queue: [], running: 0, slow: 0, pace: 'new', owes: 0 };
    this.#lanes.set(hub, made);
    return made;
  }

  /** Resolves with whether it is a slow place. */
  #enter(hub: string, lane: Lane, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        lane.queue.splice(lane.queue.indexOf(go), 1);
        this.#drop(hub, lane);
        reject(signal.reason as Error);
      };
      const go = (isSlow: boolean): void => {
        signal.removeEventListener('abort', onAbort);
        resolve(isSlow);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      lane.queue.push(go);
      this.#next();
    });
  }

  /** Lets in whoever there is room for, one hub after the other. */
  #next(): void {
    let isMoving = true;
    while (isMoving) {
      isMoving = false;
      for (const [hub, lane] of [...this.#lanes]) {
        if (lane.queue.length === 0 || !this.#hasRoom(lane)) continue;
        const isSlow = lane.pace === 'slow';
        this.#count(lane, isSlow, 1);
        this.#lanes.delete(hub);
        this.#lanes.set(hub, lane);
        lane.queue.shift()?.(isSlow);
        isMoving = true;
      }
    }
  }

  #hasRoom({ pace, running }: Lane): boolean {
    const { atOnce, perHub, perNewHub, slowAtOnce } = this.#limits;
    if (pace === 'slow') return running === 0 && this.#slow < slowAtOnce;
    return running < (pace === 'new' ? perNewHub : perHub) && this.#quick < atOnce;
  }

  #check(hub: string, lane: Lane, turn: Running): void {
    const { slowMs, slowAtOnce, longestMs } = this.#limits;
    const tookMs = this.#clock.monotonic() - turn.sinceMs;
    if (tookMs <= slowMs) return;
    if (turn.isSlow) {
      if (tookMs > longestMs) throw new SlowHubError(hub);
      return;
    }
    lane.pace = 'slow';
    if (lane.slow > 0 || this.#slow >= slowAtOnce) throw new SlowHubError(hub);
    this.#count(lane, false, -1);
    turn.isSlow = true;
    this.#count(lane, true, 1);
    this.#next();
  }

  #count(lane: Lane, isSlow: boolean, by: 1 | -1): void {
    lane.running += by;
    if (isSlow) {
      lane.slow += by;
      this.#slow += by;
    } else this.#quick += by;
  }

  /** Of a hub that nobody asks only that it was slow is worth keeping. */
  #drop(hub: string, lane: Lane): void {
    if (isIdle(lane) && lane.owes === 0) this.#lanes.delete(hub);
    if (this.#lanes.size <= lanesKept) return;
    for (const [other, { queue, running }] of this.#lanes) {
      if (isIdle({ queue, running })) return void this.#lanes.delete(other);
    }
  }
}

const isIdle = ({ queue, running }: Pick<Lane, 'queue' | 'running'>): boolean =>
  running === 0 && queue.length === 0;
