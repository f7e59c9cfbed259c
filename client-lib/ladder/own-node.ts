/**
 * Whether the own node counts as away (docs/protocol/p2p.md, "The ladder"): after three failed dials or ten
 * seconds without a session. Watches what the link tells, and changes nothing about it.
 */
import type { Clock } from '@quicprochat/proto';
import type { EventBus, LinkState } from '../events.ts';

export const ownNodeLimits = {
  failedDials: 3,
  /** Without a session (ms). */
  silentMs: 10_000,
} as const;

/** States in which the link is not trying: nothing is known of the node then. */
const resting: ReadonlySet<LinkState> = new Set(['stopped', 'sessionExpired', 'superseded']);

export class OwnNode {
  readonly #clock: Clock;
  readonly #onChange: (isAway: boolean) => void;
  readonly #watching: Disposable;
  #timer: { cancel(): void } | undefined;
  #failedDials = 0;
  #last: LinkState = 'stopped';
  #isAway = false;

  constructor(clock: Clock, events: EventBus, onChange: (isAway: boolean) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
    this.#watching = events.listen((event) => {
      if (event.type === 'link') this.#enter(event.state);
    });
  }

  get isAway(): boolean {
    return this.#isAway;
  }

  stop(): void {
    this.#watching[Symbol.dispose]();
    this.#timer?.cancel();
  }

  #enter(state: LinkState): void {
    const last = this.#last;
    this.#last = state;
    if (state === 'online' || resting.has(state)) {
      this.#timer?.cancel();
      this.#timer = undefined;
      this.#failedDials = 0;
      this.#set(false);
      return;
    }
    this.#timer ??= this.#clock.timer(ownNodeLimits.silentMs, () => this.#set(true));
    // The end of a session is no failed dial.
    if (state === 'offline' && last === 'connecting') this.#failedDials += 1;
    if (this.#failedDials >= ownNodeLimits.failedDials) this.#set(true);
  }

  #set(isAway: boolean): void {
    if (isAway === this.#isAway) return;
    this.#isAway = isAway;
    this.#onChange(isAway);
  }
}
