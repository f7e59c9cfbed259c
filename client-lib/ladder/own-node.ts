/**
 * Whether the own node counts as away (docs/protocol/p2p.md, "The ladder"): after three failed dials or ten
 * seconds without a session; and whether that is to be feared already: it is silent, or there is none for three
 * seconds. Watches what the link tells, and changes nothing about it.
 */
import type { Clock, Timer } from '@quicprochat/proto';
import type { EventBus, LinkState } from '../events.ts';

export const ownNodeLimits = {
  failedDials: 3,
  /** Without a session (ms). */
  awayMs: 10_000,
  /** The same, until it is in doubt (ms). A node that is started anew takes less, as a rule. */
  doubtMs: 3_000,
} as const;

/** States in which the link is not trying: nothing is known of the node then. */
const resting: ReadonlySet<LinkState> = new Set(['stopped', 'sessionExpired', 'superseded']);

export class OwnNode {
  readonly #clock: Clock;
  readonly #onAway: (isAway: boolean) => void;
  readonly #onDoubt: () => void;
  readonly #watching: Disposable;
  #awayTimer: Timer | undefined;
  #doubtTimer: Timer | undefined;
  #failedDials = 0;
  #last: LinkState = 'stopped';
  #isAway = false;
  #isDoubtful = false;

  /** `onDoubt`: it is in doubt from now on. */
  constructor(
    clock: Clock,
    events: EventBus,
    {
      onAway,
      onDoubt,
    }: { readonly onAway: (isAway: boolean) => void; readonly onDoubt: () => void },
  ) {
    this.#clock = clock;
    this.#onAway = onAway;
    this.#onDoubt = onDoubt;
    this.#watching = events.listen((event) => {
      if (event.type === 'link') this.#enter(event.state);
    });
  }

  get isAway(): boolean {
    return this.#isAway;
  }

  /** It may be away, or is: what waits for it may go past it, and nothing else is made of that. */
  get isDoubtful(): boolean {
    return this.#isDoubtful || this.#isAway;
  }

  stop(): void {
    this.#watching[Symbol.dispose]();
    this.#rest();
  }

  #enter(state: LinkState): void {
    const last = this.#last;
    this.#last = state;
    if (state === 'online' || resting.has(state)) {
      this.#rest();
      this.#failedDials = 0;
      this.#isDoubtful = false;
      this.#setAway(false);
      return;
    }
    if (state === 'silent') return this.#doubt();
    this.#awayTimer ??= this.#clock.timer(ownNodeLimits.awayMs, () => this.#setAway(true));
    this.#doubtTimer ??= this.#clock.timer(ownNodeLimits.doubtMs, () => this.#doubt());
    // The end of a session is no failed dial.
    if (state === 'offline' && last === 'connecting') this.#failedDials += 1;
    if (this.#failedDials >= ownNodeLimits.failedDials) this.#setAway(true);
  }

  #rest(): void {
    this.#awayTimer?.cancel();
    this.#doubtTimer?.cancel();
    this.#awayTimer = undefined;
    this.#doubtTimer = undefined;
  }

  #doubt(): void {
    if (this.isDoubtful) return;
    this.#isDoubtful = true;
    this.#onDoubt();
  }

  #setAway(isAway: boolean): void {
    if (isAway === this.#isAway) return;
    this.#isAway = isAway;
    this.#onAway(isAway);
  }
}
