/**
 * Who can reach whom in a simulation, over links of federation and over the swarm, and how long it
 * takes. A pair that loses its way finds out after a while, and tries again for ever when it is back.
 */
import { TransportError } from '@quicprochat/proto';
import type { Dice } from '../cluster/dice.ts';
import type { Scheduler } from '../sim/scheduler.ts';

/** Of a run's network. */
export interface Weather {
  /** Between two nodes, one way (ms). */
  readonly delayMaxMs: number;
  /** Of calls whose question or answer is lost, and of gossip messages. */
  readonly loss: number;
  /** Until an end of a connection is noticed (ms). */
  readonly noticeMaxMs: number;
  /** Until a connection that could be is there again (ms). */
  readonly redialMaxMs: number;
}

/** Time after which a call without an answer fails (ms). */
const callMs = 20_000;

interface Side {
  onUp(other: string, connection: Connection): void;
  onDown(other: string, connection: Connection): void;
}

/** One connection of two nodes; a new one for each time that they meet. */
export class Connection {
  isOpen = true;
}

export class Network {
  readonly #scheduler: Scheduler;
  readonly #dice: Dice;
  readonly weather: Weather;
  readonly #sides = new Map<string, Side>();
  /** Pairs that have no way to each other, ever. */
  readonly #never = new Set<string>();
  /** Pairs that have none now. */
  readonly #cut = new Set<string>();
  readonly #connections = new Map<string, Connection>();
  /** For people: what happened. */
  readonly counts = { calls: 0, lost: 0, connections: 0 };

  constructor(scheduler: Scheduler, dice: Dice, weather: Weather) {
    this.#scheduler = scheduler;
    this.#dice = dice;
    this.weather = weather;
  }

  /** No way between the two, whatever heals. */
  forbid(a: string, b: string): void {
    this.#never.add(pairOf(a, b));
  }

  cut(a: string, b: string): void {
    this.#cut.add(pairOf(a, b));
    this.drop(a, b);
  }

  /** Everything is as it was made. */
  heal(): void {
    this.#cut.clear();
    for (const a of this.#sides.keys()) this.#dialAll(a);
  }

  /** A node is there from now on. */
  join(name: string, side: Side): void {
    this.#sides.set(name, side);
    this.#dialAll(name);
  }

  /** It is gone, and hears of nothing any more. */
  leave(name: string): void {
    this.#sides.delete(name);
    for (const pair of this.#connections.keys()) {
      const [a = '', b = ''] = pair.split(' ');
      if (a === name || b === name) this.drop(a, b);
    }
  }

  /** The connection of two nodes ends; if there is a way they come back by themselves. */
  drop(a: string, b: string): void {
    const pair = pairOf(a, b);
    const connection = this.#connections.get(pair);
    if (connection === undefined) return;
    connection.isOpen = false;
    this.#connections.delete(pair);
    for (const [own, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const side = this.#sides.get(own);
      const noticeMs = this.#dice.int(this.weather.noticeMaxMs);
      this.#scheduler.after(noticeMs, () => {
        // Another life of the node never knew it.
        if (this.#sides.get(own) === side) side?.onDown(other, connection);
      });
    }
    this.#dial(a, b);
  }

  isConnected(a: string, b: string): boolean {
    return this.#connections.has(pairOf(a, b));
  }

  /**
   * A question on a connection and its answer, either of which may be lost. Throws TransportError
   * `unreachable` or `timeout`, and what `answer` throws.
   */
  async call<T>(connection: Connection, answer: () => Promise<T>): Promise<T> {
    this.counts.calls += 1;
    if (!connection.isOpen) throw new TransportError('unreachable', 'not connected');
    const result = Promise.withResolvers<T>();
    const fail = (): void => result.reject(new TransportError('timeout', 'no answer'));
    const timer = this.#scheduler.after(callMs, fail);
    const settle = (tell: () => void): void => {
      this.carry(connection, () => {
        timer.cancel();
        tell();
      });
    };
    this.carry(connection, () => {
      answer().then(
        (value) => settle(() => result.resolve(value)),
        (error: unknown) => settle(() => result.reject(error)),
      );
    });
    return result.promise;
  }

  /** One message, one way, if it gets there. */
  carry(connection: Connection, deliver: () => void): void {
    if (this.#dice.chance(this.weather.loss)) {
      this.counts.lost += 1;
      return;
    }
    this.#scheduler.after(1 + this.#dice.int(this.weather.delayMaxMs), () => {
      if (connection.isOpen) deliver();
    });
  }

  #dialAll(name: string): void {
    for (const other of this.#sides.keys()) if (other !== name) this.#dial(name, other);
  }

  #dial(a: string, b: string): void {
    const pair = pairOf(a, b);
    const isClosed = (): boolean =>
      this.#never.has(pair) || this.#cut.has(pair) || !this.#sides.has(a) || !this.#sides.has(b);
    if (isClosed()) return;
    this.#scheduler.after(this.#dice.int(this.weather.redialMaxMs), () => {
      if (isClosed() || this.#connections.has(pair)) return;
      const connection = new Connection();
      this.#connections.set(pair, connection);
      this.counts.connections += 1;
      this.#sides.get(a)?.onUp(b, connection);
      this.#sides.get(b)?.onUp(a, connection);
    });
  }
}

const pairOf = (a: string, b: string): string => (a < b ? `${a} ${b}` : `${b} ${a}`);
