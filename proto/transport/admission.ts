/**
 * What a listener lets in per address: connections and handshakes per second, both bounded, so that
 * one address cannot take the place of the others. IPv6 counts by /64, the unit one customer gets.
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { Clock } from '../runtime.ts';
import type { TransportLimits } from './transport.ts';

/** Addresses remembered for the handshake rate; beyond it idle ones are dropped, then refused. */
const rememberedHosts = 65_536;

/** An IPv4-mapped IPv6 address as IPv4; every other address as it is. */
export function plainAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  return mapped !== undefined && isIPv4(mapped) ? mapped : address;
}

/** The key under which an address is limited. */
export function limitKey(address: string): string {
  const plain = plainAddress(address).replace(/%.*$/, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const tailGroups = tail === '' ? 0 : tail.split(':').length;
    while (groups.length < 4 && groups.length + tailGroups < 8) groups.push('0');
    groups.push(...tail.split(':'));
  }
  const prefix = groups.slice(0, 4).map((group) => Number.parseInt(group || '0', 16).toString(16));
  return `${prefix.join(':')}::/64`;
}

interface Bucket {
  tokens: number;
  at: number;
}

export class Admission {
  readonly #clock: Clock;
  readonly #limits: TransportLimits;
  readonly #buckets = new Map<string, Bucket>();
  readonly #connections = new Map<string, number>();
  #total = 0;
  #sweptAt = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, limits: TransportLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Takes one handshake of the address's rate (burst: two seconds' worth). False: drop it. */
  handshake(address: string): boolean {
    const perSecond = this.#limits.handshakesPerHostPerSecond;
    const key = limitKey(address);
    const now = this.#clock.monotonic();
    const bucket = this.#buckets.get(key) ?? { tokens: 2 * perSecond, at: now };
    bucket.tokens = Math.min(2 * perSecond, bucket.tokens + ((now - bucket.at) / 1000) * perSecond);
    bucket.at = now;
    if (!this.#buckets.has(key) && !this.#hasRoom(now)) return false;
    this.#buckets.set(key, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  /** Counts a new connection of the address in; false when one of the two limits is reached. */
  enter(address: string): boolean {
    const key = limitKey(address);
    const count = this.#connections.get(key) ?? 0;
    if (this.#total >= this.#limits.connections || count >= this.#limits.connectionsPerHost) {
      return false;
    }
    this.#total += 1;
    this.#connections.set(key, count + 1);
    return true;
  }

  /** Owed once for every `enter` that returned true. */
  leave(address: string): void {
    const key = limitKey(address);
    const count = this.#connections.get(key) ?? 0;
    this.#total -= 1;
    if (count > 1) this.#connections.set(key, count - 1);
    else this.#connections.delete(key);
  }

  #hasRoom(now: number): boolean {
    if (this.#buckets.size < rememberedHosts) return true;
    if (now - this.#sweptAt < 1000) return false;
    this.#sweptAt = now;
    // After two seconds of silence a bucket is full again: forgetting it changes nothing.
    for (const [key, bucket] of this.#buckets) {
      if (now - bucket.at >= 2000) this.#buckets.delete(key);
    }
    return this.#buckets.size < rememberedHosts;
  }
}
