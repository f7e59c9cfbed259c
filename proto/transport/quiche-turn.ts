/**
 * One flush per turn of the event loop: whatever arrived in a turn is taken in together, the code
 * that waits for it runs, and what all of it wrote goes out together.
 */

import { HeldGuard } from './held-bytes.ts';
import { PacketSlab } from './quiche-socket.ts';

/** Something that takes part; neither method may throw. */
export interface TurnTaker {
  /** Hands what arrived to those who wait for it. */
  takeIn(): void;
  /** Sends what was written. */
  giveOut(): void;
}

const mebibyte = 1024 * 1024;
/** About what one native connection takes at most (bytes), besides what its peer made it keep. */
const nativeBytes = 96 * 1024;
/** What quiche needs for a byte that came and was not read: 2.5 MiB of them cost 70. */
const heldFactor = 30;
/** So much is told at once (bytes), and at most. */
const toldBytes = 64 * nativeBytes;
const toldBytesMax = 64 * mebibyte;

/**
 * Tells V8 of dead native connections. It does not see their memory, so its collector finds no
 * reason to run, and thousands of them would stay, or a few that were flooded. What it sees is a buffer
 * of the same size, which is never written: no page of it is real. One that can be resized is mapped by
 * V8 itself; out of the allocator it would leave holes of its size among the connections, which then
 * fill with them.
 */
class NativeGarbage {
  #untold = 0;
  #weight = new ArrayBuffer(0);

  /** A connection ended that had `heldBytes` unread. */
  add(heldBytes: number): void {
    this.#untold += nativeBytes + Math.ceil(heldBytes) * heldFactor;
    if (this.#untold < toldBytes) return;
    const bytes = Math.min(this.#untold, toldBytesMax);
    this.#untold = 0;
    // The one before is garbage now, like the connections that it stands for.
    if (this.#weight.byteLength < 0) return;
    try {
      this.#weight = new ArrayBuffer(bytes, { maxByteLength: bytes });
    } catch {
      // No room for so much: V8 has collected before it said so, and the end must go on.
    }
  }
}

/** The turn of one process part: all connections of an engine share one. */
export class Turn {
  /** Packets are built in turn, so that one memory serves all sockets. */
  readonly slab = new PacketSlab();
  readonly garbage = new NativeGarbage();
  /** Of the peers that dialed here, and of those that were dialed, which somebody chose. */
  readonly held = { listen: new HeldGuard(16 * mebibyte), dial: new HeldGuard(64 * mebibyte) };
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
