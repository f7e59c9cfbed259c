/**
 * Address validation tokens of QUIC Retry packets (RFC 9000 section 8.1): they prove that a client
 * receives at its address, expire after seconds, and hold no state. The key rotates by itself.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Runtime } from '../runtime.ts';

/** Time from Retry to the Initial that carries the token (ms). */
const lifetimeMs = 10_000;
const keyLifetimeMs = 3_600_000;
const macBytes = 32;
/** Connection ids of QUIC version 1 have at most 20 bytes. */
const maxConnectionIdBytes = 20;

/** `expires u48 (ms of the monotonic clock) · original connection id · HMAC-SHA256` */
export class RetryTokens {
  readonly #runtime: Runtime;
  #key: Uint8Array;
  #previousKey: Uint8Array;
  #keyMadeAt: number;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#key = runtime.random.bytes(32);
    this.#previousKey = this.#key;
    this.#keyMadeAt = runtime.clock.monotonic();
  }

  /** A token for the client at `address` that first asked for the connection id. */
  mint(originalId: Uint8Array, address: string): Uint8Array {
    const now = this.#runtime.clock.monotonic();
    if (now - this.#keyMadeAt >= keyLifetimeMs) {
      this.#previousKey = this.#key;
      this.#key = this.#runtime.random.bytes(32);
      this.#keyMadeAt = now;
    }
    const body = Buffer.alloc(6 + originalId.length);
    body.writeUIntBE(Math.ceil(now + lifetimeMs), 0, 6);
    body.set(originalId, 6);
    return new Uint8Array(Buffer.concat([body, mac(this.#key, body, address)]));
  }

  /** The original connection id, or undefined: not ours, altered, another address, or too old. */
  open(token: Uint8Array, address: string): Uint8Array | undefined {
    const bodyBytes = token.length - macBytes;
    if (bodyBytes < 6 || bodyBytes > 6 + maxConnectionIdBytes) return undefined;
    const body = Buffer.from(token.subarray(0, bodyBytes));
    const given = token.subarray(bodyBytes);
    const isOurs =
      timingSafeEqual(mac(this.#key, body, address), given) ||
      timingSafeEqual(mac(this.#previousKey, body, address), given);
    if (!isOurs || body.readUIntBE(0, 6) < this.#runtime.clock.monotonic()) return undefined;
    return new Uint8Array(body.subarray(6));
  }
}

function mac(key: Uint8Array, body: Uint8Array, address: string): Buffer {
  return createHmac('sha256', key).update(body).update(address).digest();
}
