/**
 * The client's side of OPAQUE (RFC 9807, ristretto255-SHA512, argon2id): registration and login as
 * two steps each, in a worker thread of their own that is ended afterwards. No network, no account:
 * bytes in, bytes out.
 */
import { once } from 'node:events';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import {
  FailedPreconditionError,
  InternalError,
  ksfArgon2id,
  opaqueBytes,
  opaqueIdentifiers,
  parseUserId,
  TransportError,
  UnauthenticatedError,
} from '@quicprochat/proto';
import type { Identifiers, WorkerReply, WorkerRequest } from './opaque-worker.ts';
import { canonicalPassword } from './password.ts';

export interface OpaqueInput {
  /** `name@domain`; both halves go into the identifiers. */
  readonly userId: string;
  /** UTF-8. Stays the caller's, to be wiped by it. */
  readonly password: Uint8Array;
  readonly signal?: AbortSignal;
}

/** What a node answered to the first step. */
export interface OpaqueAnswer {
  /** RegistrationResponse (64 bytes) or KE2 (320 bytes). */
  readonly response: Uint8Array;
  /** Number of the key stretching; this client knows 1 only. */
  readonly ksf: number;
}

export interface FinishedRegistration {
  /** RegistrationRecord (192 bytes) for the node. */
  readonly record: Uint8Array;
  /** Known to nobody but this client (64 bytes); the same at every login. */
  readonly exportKey: Uint8Array;
  /** The node's static OPAQUE key (32 bytes), to be pinned. */
  readonly serverKey: Uint8Array;
}

export interface FinishedLogin {
  readonly ke3: Uint8Array;
  /** Shared with the node (64 bytes). */
  readonly sessionKey: Uint8Array;
  readonly exportKey: Uint8Array;
  readonly serverKey: Uint8Array;
}

/** A registration under way. Dispose it: its thread holds the password. */
export interface OpaqueRegistration extends AsyncDisposable {
  /** RegistrationRequest (32 bytes). */
  readonly request: Uint8Array;
  /**
   * Takes about 0.2 s and 64 MiB in the thread. Throws FailedPreconditionError VERSION for a key
   * stretching that is not ours, TransportError `protocol` when the response is malformed.
   */
  finish(answer: OpaqueAnswer): Promise<FinishedRegistration>;
}

/** A login under way. Dispose it: its thread holds the password. */
export interface OpaqueLogin extends AsyncDisposable {
  /** KE1 (96 bytes). */
  readonly ke1: Uint8Array;
  /**
   * Takes about 0.2 s and 64 MiB in the thread. Throws UnauthenticatedError AUTH_FAILED for a wrong
   * password, an unknown user and a forged answer alike, FailedPreconditionError VERSION for a key
   * stretching that is not ours.
   */
  finish(answer: OpaqueAnswer): Promise<FinishedLogin>;
}

/** Starts a registration. Throws InvalidArgumentError for a malformed user id or password. */
export async function startOpaqueRegistration(input: OpaqueInput): Promise<OpaqueRegistration> {
  const thread = new Exchange(input);
  const request = await thread.start('startRegistration', opaqueBytes.registrationRequest);
  return {
    request,
    async finish(answer) {
      const finished = await thread.finish(answer);
      if (finished === undefined) {
        throw new TransportError('protocol', 'registration: the node answered no valid response');
      }
      const { message: record, exportKey, serverKey } = finished;
      return { record, exportKey, serverKey };
    },
    [Symbol.asyncDispose]: () => thread.end(),
  };
}

/** Starts a login. Throws InvalidArgumentError for a malformed user id or password. */
export async function startOpaqueLogin(input: OpaqueInput): Promise<OpaqueLogin> {
  const thread = new Exchange(input);
  const ke1 = await thread.start('startLogin', opaqueBytes.ke1);
  return {
    ke1,
    async finish(answer) {
      const finished = await thread.finish(answer);
      if (finished?.sessionKey === undefined) throw authFailed();
      const { message: ke3, sessionKey, exportKey, serverKey } = finished;
      return { ke3, sessionKey, exportKey, serverKey };
    },
    [Symbol.asyncDispose]: () => thread.end(),
  };
}

/** The one error of a login that fails, whoever finds out and why. */
export function authFailed(cause?: unknown): UnauthenticatedError {
  return new UnauthenticatedError('AUTH_FAILED', 'user or password is wrong', { cause });
}

/** One worker thread with one exchange in it. */
class Exchange {
  readonly #identifiers: Identifiers;
  readonly #password: Uint8Array<ArrayBuffer>;
  readonly #signal: AbortSignal | undefined;
  readonly #worker: Worker;
  #hasEnded = false;

  constructor({ userId, password, signal }: OpaqueInput) {
    signal?.throwIfAborted();
    this.#identifiers = opaqueIdentifiers(userId, parseUserId(userId).domain);
    this.#password = canonicalPassword(password);
    this.#signal = signal;
    // Beside this file, with its extension: .ts in the repository, .js in a published package.
    const url = new URL(`./opaque-worker${extname(import.meta.url)}`, import.meta.url);
    // No environment: the thread needs none, and secrets of the process need no second reader.
    this.#worker = new Worker(url, { env: {} });
    this.#worker.once('exit', () => {
      this.#hasEnded = true;
    });
    // A failure reaches the step that waits for it; without a step it must not end the process.
    this.#worker.on('error', () => {});
  }

  async start(step: 'startRegistration' | 'startLogin', requestBytes: number): Promise<Uint8Array> {
    try {
      const password = this.#password;
      // The buffer moves into the thread, which wipes it; nothing of it stays here.
      const reply = await this.#ask({ step, password }, [password.buffer]);
      if (reply.outcome === 'started' && reply.request.length === requestBytes) {
        return reply.request;
      }
      throw new InternalError(`opaque: ${step} gave no request of ${requestBytes} bytes`);
    } catch (error) {
      await this.end();
      throw error;
    }
  }

  /** Undefined when the library refused the answer. */
  async finish(answer: OpaqueAnswer): Promise<(WorkerReply & { outcome: 'finished' }) | undefined> {
    const { response, ksf } = answer;
    if (ksf !== ksfArgon2id) {
      throw new FailedPreconditionError(
        'VERSION',
        `key stretching ${ksf} of the node, this client knows ${ksfArgon2id}`,
      );
    }
    const reply = await this.#ask({ step: 'finish', response, identifiers: this.#identifiers }, []);
    return reply.outcome === 'finished' ? reply : undefined;
  }

  /** Ends the thread, whatever it does, and with it what it held. Idempotent. */
  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  async #ask(request: WorkerRequest, transfer: ArrayBuffer[]): Promise<WorkerReply> {
    if (this.#hasEnded) throw endedEarly();
    const settled = new AbortController();
    const signals = [settled.signal, ...(this.#signal === undefined ? [] : [this.#signal])];
    const signal = AbortSignal.any(signals);
    try {
      // Listening begins in the same turn, so the reply cannot come before it.
      this.#worker.postMessage(request, transfer);
      const event: unknown[] = await Promise.race([
        once(this.#worker, 'message', { signal }),
        once(this.#worker, 'exit', { signal }).then(() => {
          throw endedEarly();
        }),
      ]);
      // The one sender is opaque-worker.ts, which is typed to send nothing else.
      return event[0] as WorkerReply;
    } catch (error) {
      this.#signal?.throwIfAborted();
      throw error;
    } finally {
      settled.abort();
    }
  }
}

function endedEarly(): InternalError {
  return new InternalError('opaque: the thread has ended');
}
