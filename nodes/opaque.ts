/**
 * The server's side of OPAQUE (RFC 9807, ristretto255-SHA512) over @serenity-kit/opaque, and the
 * table of exchanges between their two calls. Pure steps on bytes: no store, no rate limits, no
 * accounts. Every failed step is AUTH_FAILED, so that an answer never tells why.
 */
import * as opaque from '@serenity-kit/opaque';
import {
  InternalError,
  opaqueBytes,
  opaqueIdentifiers,
  ResourceExhaustedError,
  UnauthenticatedError,
  type Clock,
  type Random,
  type Timer,
  hex,
} from '@quicprochat/proto';

/** Size of a server setup: OPRF seed, static private key, key of fake records (bytes). */
export const opaqueSetupBytes = 128;

export interface OpaqueServerOptions {
  /** Of `createSetup` (128 bytes). Losing it locks everyone out; it lives in the node's store. */
  readonly setup: Uint8Array;
  /** The node's own domain, part of the server identifier. */
  readonly domain: string;
}

/** The first answer of a login: KE2 for the client (320 bytes) and what `finishLogin` needs. */
export interface StartedLogin {
  readonly ke2: Uint8Array;
  /** Secret (128 bytes); `finishLogin` wipes it. */
  readonly state: Uint8Array;
}

/** The node's OPAQUE steps. `ready` must have resolved before the first of them. */
export class OpaqueServer {
  readonly #setup: string;
  readonly #domain: string;

  /** Throws InternalError when the setup has a wrong size. */
  constructor(options: OpaqueServerOptions) {
    if (options.setup.length !== opaqueSetupBytes) {
      throw new InternalError(
        `opaque setup: ${options.setup.length} bytes, need ${opaqueSetupBytes}`,
      );
    }
    this.#setup = text(options.setup);
    this.#domain = options.domain;
  }

  /** A fresh setup (128 bytes), secret. Its randomness is the system's: the library takes no other. */
  static async createSetup(): Promise<Uint8Array> {
    await opaque.ready;
    return bytes(opaque.server.createSetup(), opaqueSetupBytes);
  }

  /** Resolves when the library is loaded. */
  async ready(): Promise<void> {
    await opaque.ready;
  }

  /** The static public key that clients pin (32 bytes). */
  get serverPublicKey(): Uint8Array {
    return bytes(opaque.server.getPublicKey(this.#setup), 32);
  }

  /**
   * RegistrationResponse (64 bytes) to a RegistrationRequest (32 bytes). RFC 9807 section 5.2.2.
   * The answer is a function of setup, user and request: it says nothing about taken names.
   * Throws UnauthenticatedError AUTH_FAILED.
   */
  startRegistration(userId: string, request: Uint8Array): Uint8Array {
    return step(() => {
      const { registrationResponse } = opaque.server.createRegistrationResponse({
        serverSetup: this.#setup,
        userIdentifier: userId,
        registrationRequest: text(request),
      });
      return bytes(registrationResponse, opaqueBytes.registrationResponse);
    });
  }

  /**
   * KE2 (320 bytes) to KE1 (96 bytes). RFC 9807 section 6.2.2. Without a record (unknown user) it
   * answers with a fake one: same size, same stable OPRF part, about the same time; the login
   * then fails at the client as it does for a wrong password (RFC 9807 section 6.3.2.2).
   * Throws UnauthenticatedError AUTH_FAILED.
   */
  startLogin(userId: string, record: Uint8Array | undefined, ke1: Uint8Array): StartedLogin {
    return step(() => {
      const { loginResponse, serverLoginState } = opaque.server.startLogin({
        serverSetup: this.#setup,
        userIdentifier: userId,
        identifiers: opaqueIdentifiers(userId, this.#domain),
        registrationRecord: record === undefined ? null : text(record),
        startLoginRequest: text(ke1),
      });
      return { ke2: bytes(loginResponse, opaqueBytes.ke2), state: bytes(serverLoginState) };
    });
  }

  /**
   * Checks KE3 (64 bytes) and returns the session key (64 bytes). RFC 9807 section 6.2.4. Wipes
   * `state`, right or wrong: a guess costs a whole exchange. Throws UnauthenticatedError
   * AUTH_FAILED.
   */
  finishLogin(userId: string, state: Uint8Array, ke3: Uint8Array): Uint8Array {
    return step(() => {
      try {
        const { sessionKey } = opaque.server.finishLogin({
          serverLoginState: text(state),
          finishLoginRequest: text(ke3),
          identifiers: opaqueIdentifiers(userId, this.#domain),
        });
        return bytes(sessionKey, 64);
      } finally {
        state.fill(0);
      }
    });
  }
}

/** Bounds of an exchange table. */
export interface ExchangeLimits {
  /** Time between the two calls of one exchange (ms). */
  readonly lifeMs: number;
  readonly exchangesPerHost: number;
  readonly exchanges: number;
}

export const defaultExchangeLimits: ExchangeLimits = {
  lifeMs: 60_000,
  exchangesPerHost: 64,
  exchanges: 8_192,
};

interface Exchange<T> {
  readonly connection: object;
  readonly host: string;
  readonly expiresMs: number;
  readonly value: T;
}

/**
 * What must be remembered between the two calls of an exchange, by a random handle (16 bytes)
 * that works once, on the connection that got it, for a limited time.
 */
export class ExchangeTable<T> implements Disposable {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #limits: ExchangeLimits;
  /** By handle in hex, oldest first: all live equally long, so the first expires first. */
  readonly #exchanges = new Map<string, Exchange<T>>();
  readonly #perHost = new Map<string, number>();
  #sweep: Timer | undefined;

  constructor(options: {
    readonly clock: Clock;
    readonly random: Random;
    readonly limits?: ExchangeLimits;
  }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#limits = options.limits ?? defaultExchangeLimits;
  }

  /** Exchanges in progress. */
  get size(): number {
    return this.#exchanges.size;
  }

  /**
   * Keeps `value` and returns its handle (16 bytes). Throws ResourceExhaustedError RATE_LIMITED
   * when the address has too many exchanges open, OVERLOADED when the node has.
   */
  open(connection: object, host: string, value: T): Uint8Array {
    const now = this.#clock.monotonic();
    this.#dropExpired(now);
    const { lifeMs, exchangesPerHost, exchanges } = this.#limits;
    const open = this.#perHost.get(host) ?? 0;
    if (open >= exchangesPerHost) {
      throw new ResourceExhaustedError(
        'RATE_LIMITED',
        `${exchangesPerHost} exchanges of this address are open`,
        { retryAfterMs: lifeMs },
      );
    }
    if (this.#exchanges.size >= exchanges) {
      throw new ResourceExhaustedError('OVERLOADED', `${exchanges} exchanges are open`, {
        retryAfterMs: lifeMs,
      });
    }
    const handle = this.#random.bytes(16);
    this.#exchanges.set(hex(handle), { connection, host, expiresMs: now + lifeMs, value });
    this.#perHost.set(host, open + 1);
    this.#schedule(now);
    return handle;
  }

  /**
   * Removes and returns what `open` kept. A handle that is unknown, used, expired or another
   * connection's: UnauthenticatedError AUTH_FAILED, the same for each.
   */
  take(connection: object, handle: Uint8Array): T {
    this.#dropExpired(this.#clock.monotonic());
    const key = hex(handle);
    const exchange = this.#exchanges.get(key);
    if (exchange === undefined || exchange.connection !== connection) {
      throw new UnauthenticatedError('AUTH_FAILED', 'no such exchange: start again');
    }
    this.#remove(key, exchange);
    return exchange.value;
  }

  /** Forgets everything and stops the timer. */
  [Symbol.dispose](): void {
    this.#sweep?.cancel();
    this.#sweep = undefined;
    this.#exchanges.clear();
    this.#perHost.clear();
  }

  #remove(key: string, exchange: Exchange<T>): void {
    this.#exchanges.delete(key);
    const left = (this.#perHost.get(exchange.host) ?? 1) - 1;
    if (left > 0) this.#perHost.set(exchange.host, left);
    else this.#perHost.delete(exchange.host);
  }

  #dropExpired(now: number): void {
    for (const [key, exchange] of this.#exchanges) {
      if (exchange.expiresMs > now) break;
      this.#remove(key, exchange);
    }
  }

  /** Secrets of abandoned exchanges go in time even when nobody calls again. */
  #schedule(now: number): void {
    const oldest = this.#exchanges.values().next();
    if (this.#sweep !== undefined || oldest.done === true) return;
    this.#sweep = this.#clock.timer(Math.max(oldest.value.expiresMs - now, 0), () => {
      this.#sweep = undefined;
      const later = this.#clock.monotonic();
      this.#dropExpired(later);
      this.#schedule(later);
    });
  }
}

/** The library throws plain errors that name the step; none of that may reach a caller. */
function step<R>(run: () => R): R {
  try {
    return run();
  } catch (cause) {
    throw new UnauthenticatedError('AUTH_FAILED', 'user or password is wrong', { cause });
  }
}

// The library speaks base64url strings without padding; everything of ours is bytes.
function text(value: Uint8Array): string {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64url');
}

function bytes(value: string, length?: number): Uint8Array {
  const decoded = Uint8Array.from(Buffer.from(value, 'base64url'));
  if (length !== undefined && decoded.length !== length) {
    throw new InternalError(`opaque: ${decoded.length} bytes of the library, need ${length}`);
  }
  return decoded;
}
