/**
 * A bad road for UDP in front of one address: seeded delay, loss, reordering, repetition and flipped
 * bits, in both directions. Needs no privileges.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Dice } from '../cluster/dice.ts';

/** Shares of all packets, and times in ms. */
export interface Road {
  readonly loss: number;
  readonly twice: number;
  readonly corrupt: number;
  readonly delayMs: number;
  /** Added to the delay at random, so that packets overtake each other. */
  readonly jitterMs: number;
}

export const goodRoad: Road = { loss: 0, twice: 0, corrupt: 0, delayMs: 0, jitterMs: 0 };

export interface RoadCounts {
  passed: number;
  lost: number;
  twice: number;
  corrupt: number;
}

export class UdpRelay implements AsyncDisposable {
  road: Road = goodRoad;
  readonly counts: RoadCounts = { passed: 0, lost: 0, twice: 0, corrupt: 0 };
  readonly #front: Socket;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #dice: Dice;
  /** A socket towards the target for each address in front. */
  readonly #backs = new Map<string, Socket>();
  readonly #timers = new Set<NodeJS.Timeout>();

  private constructor(front: Socket, target: { host: string; port: number }, dice: Dice) {
    this.#front = front;
    this.#target = target;
    this.#dice = dice;
    front.on('message', (packet, from) => {
      const back = this.#backOf(from);
      this.#carry(packet, (bytes) => back.send(bytes, this.#target.port, this.#target.host));
    });
  }

  /** In front of host:port, on a free port of loopback. */
  static async start(target: { host: string; port: number }, dice: Dice): Promise<UdpRelay> {
    const front = createSocket('udp4');
    front.bind(0, '127.0.0.1');
    await once(front, 'listening');
    return new UdpRelay(front, target, dice);
  }

  get port(): number {
    return this.#front.address().port;
  }

  /** From now on the target sees everybody at a new address, as after a NAT's restart. */
  rebind(): void {
    for (const back of this.#backs.values()) back.close();
    this.#backs.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    this.rebind();
    this.#front.close();
    await once(this.#front, 'close');
  }

  #backOf(from: RemoteInfo): Socket {
    const key = `${from.address}:${from.port}`;
    const known = this.#backs.get(key);
    if (known !== undefined) return known;
    const back = createSocket('udp4');
    back.on('message', (packet) => {
      this.#carry(packet, (bytes) => this.#front.send(bytes, from.port, from.address));
    });
    // What comes back from a dead process is an error of the socket; the packet is lost, no more.
    back.on('error', () => undefined);
    this.#backs.set(key, back);
    return back;
  }

  #carry(packet: Buffer, send: (bytes: Buffer) => void): void {
    const { loss, twice, corrupt, delayMs, jitterMs } = this.road;
    if (this.#dice.chance(loss)) {
      this.counts.lost += 1;
      return;
    }
    const bytes = Buffer.from(packet);
    if (this.#dice.chance(corrupt)) {
      this.counts.corrupt += 1;
      const at = this.#dice.int(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << this.#dice.int(8));
    }
    const isTwice = this.#dice.chance(twice);
    if (isTwice) this.counts.twice += 1;
    for (let copy = 0; copy < (isTwice ? 2 : 1); copy += 1) {
      this.counts.passed += 1;
      const waitMs = delayMs + (jitterMs === 0 ? 0 : this.#dice.int(jitterMs));
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        try {
          send(bytes);
        } catch {
          // Its socket was rebound meanwhile: lost on the road.
        }
      }, waitMs);
      this.#timers.add(timer);
    }
  }
}
