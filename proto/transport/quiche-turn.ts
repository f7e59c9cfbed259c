/**
 * One flush per turn of the event loop: whatever arrived in a turn is taken in together, the code
 * that waits for it runs, and what all of it wrote goes out together.
 */

import { PacketSlab } from './quiche-socket.ts';

/** Something that takes part; neither method may throw. */
export interface TurnTaker {
  /** Hands what arrived to those who wait for it. */
  takeIn(): void;
  /** Sends what was written. */
  giveOut(): void;
}

/** The turn of one process part: all connections of an engine share one. */
export class Turn {
  /** Packets are built in turn, so that one memory serves all sockets. */
  readonly slab = new PacketSlab();
  #toTakeIn = new Set<TurnTaker>();
  #toGiveOut = new Set<TurnTaker>();

  /** `takeIn` in this turn, and `giveOut` once the promises that it settled have run their course. */
  takeIn(taker: TurnTaker): void {
    // Node runs all promise jobs between two immediates: that is when answers are written.
    if (this.#toTakeIn.size === 0) setImmediate(this.#runTakeIn);
    this.#toTakeIn.add(taker);
    this.giveOut(taker);
  }

  giveOut(taker: TurnTaker): void {
    if (this.#toGiveOut.size === 0) setImmediate(this.#runGiveOut);
    this.#toGiveOut.add(taker);
  }

  forget(taker: TurnTaker): void {
    this.#toTakeIn.delete(taker);
    this.#toGiveOut.delete(taker);
  }

  readonly #runTakeIn = (): void => {
    const takers = this.#toTakeIn;
    this.#toTakeIn = new Set();
    for (const taker of takers) taker.takeIn();
  };

  readonly #runGiveOut = (): void => {
    const takers = this.#toGiveOut;
    this.#toGiveOut = new Set();
    for (const taker of takers) taker.giveOut();
  };
}
