/**
 * Requests and answers between two processes, batched: what one turn has to say
 * leaves as one message. Requests can be cancelled; TransportErrors cross as themselves.
 */
import { TransportError, type TransportFailure } from '../status.ts';
import { asTransportError } from './outgoing-call.ts';

/** One end of a channel between two processes. */
export interface Port {
  post(messages: readonly unknown[]): void;
  onMessages(listener: (messages: readonly unknown[]) => void): void;
}

/** A value that the structured clone algorithm takes. */
export type Body = unknown;
/** Answers at once or later. */
export type RequestHandler = (body: Body, signal: AbortSignal) => unknown;

const Kind = { request: 0, answer: 1, failure: 2, cancel: 3, notice: 4 } as const;
type Message =
  | readonly [kind: typeof Kind.request, id: number, name: string, body: Body]
  | readonly [kind: typeof Kind.answer, id: number, body: Body]
  | readonly [kind: typeof Kind.failure, id: number, error: WireError]
  | readonly [kind: typeof Kind.cancel, id: number]
  | readonly [kind: typeof Kind.notice, name: string, body: Body];

interface WireError {
  readonly failure: TransportFailure;
  readonly message: string;
  readonly closeCode: number | undefined;
}

export class PortRpc {
  readonly #port: Port;
  readonly #handlers = new Map<string, RequestHandler>();
  readonly #notices = new Map<string, (body: Body) => void>();
  readonly #waiting = new Map<number, PromiseWithResolvers<Body>>();
  readonly #serving = new Map<number, AbortController>();
  #out: Message[] = [];
  #nextId = 0;
  #isFlushDue = false;
  #lost: TransportError | undefined;

  constructor(port: Port) {
    this.#port = port;
    port.onMessages((messages) => {
      // Only the other half of this class writes to the channel.
      for (const message of messages as readonly Message[]) this.#receive(message);
    });
  }

  onRequest(name: string, handler: RequestHandler): void {
    this.#handlers.set(name, handler);
  }

  onNotice(name: string, handler: (body: Body) => void): void {
    this.#notices.set(name, handler);
  }

  /** Says something that has no answer. */
  notify(name: string, body: Body): void {
    this.#post([Kind.notice, name, body]);
  }

  /** Throws what the other side's handler threw; `cancelled` when the signal is aborted first. */
  request(
    name: string,
    body: Body,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Body> {
    if (this.#lost) return Promise.reject(this.#lost);
    const { signal } = options;
    const id = this.#nextId;
    this.#nextId += 1;
    const waiting = Promise.withResolvers<Body>();
    this.#waiting.set(id, waiting);
    this.#post([Kind.request, id, name, body]);
    if (signal === undefined) return waiting.promise;
    // The answer is still awaited: the other side ends the work and says how.
    const onAbort = (): void => this.#post([Kind.cancel, id]);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    return waiting.promise.finally(() => signal.removeEventListener('abort', onAbort));
  }

  /** The other process is gone: what waits, and what comes, fails. */
  lose(error: TransportError): void {
    this.#lost = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    for (const controller of this.#serving.values()) controller.abort(error);
    this.#serving.clear();
  }

  #post(message: Message): void {
    if (this.#lost) return;
    this.#out.push(message);
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    setImmediate(() => {
      this.#isFlushDue = false;
      const out = this.#out;
      this.#out = [];
      if (!this.#lost) this.#port.post(out);
    });
  }

  #receive(message: Message): void {
    switch (message[0]) {
      case Kind.request:
        return void this.#serve(message[1], message[2], message[3]);
      case Kind.answer:
        return this.#take(message[1])?.resolve(message[2]);
      case Kind.failure: {
        const { failure, message: text, closeCode } = message[2];
        const options = closeCode === undefined ? {} : { closeCode };
        return this.#take(message[1])?.reject(new TransportError(failure, text, options));
      }
      case Kind.cancel:
        return this.#serving.get(message[1])?.abort();
      case Kind.notice:
        return this.#notices.get(message[1])?.(message[2]);
    }
  }

  #take(id: number): PromiseWithResolvers<Body> | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  async #serve(id: number, name: string, body: Body): Promise<void> {
    const controller = new AbortController();
    this.#serving.set(id, controller);
    try {
      const handler = this.#handlers.get(name);
      if (!handler) throw new TransportError('internal', `process: nobody answers ${name}`);
      this.#post([Kind.answer, id, await handler(body, controller.signal)]);
    } catch (error) {
      const { failure, message, closeCode } = asTransportError(error);
      this.#post([Kind.failure, id, { failure, message, closeCode }]);
    } finally {
      this.#serving.delete(id);
    }
  }
}

/** Bytes in memory of their own, to be kept or cloned alone: a view would take all behind it along. */
export function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}
