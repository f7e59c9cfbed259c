/**
 * The thread in which one OPAQUE exchange of a client runs (RFC 9807 sections 5 and 6): it holds
 * password and client state between the two steps, spends the Argon2 time, and is ended with all
 * of that by opaque.ts. Never imported for its values.
 */
import assert from 'node:assert/strict';
import { parentPort } from 'node:worker_threads';
import * as opaque from '@serenity-kit/opaque';

/** Who authenticates whom; see `opaqueIdentifiers`. */
export interface Identifiers {
  readonly client: string;
  readonly server: string;
}

export type WorkerRequest =
  | { readonly step: 'startRegistration'; readonly password: Uint8Array }
  | { readonly step: 'startLogin'; readonly password: Uint8Array }
  | { readonly step: 'finish'; readonly response: Uint8Array; readonly identifiers: Identifiers };

/** Outcome of a step. `refused` is what the library says to a wrong password or a forged answer. */
export type WorkerReply =
  | { readonly outcome: 'started'; readonly request: Uint8Array }
  | { readonly outcome: 'refused' }
  | {
      readonly outcome: 'finished';
      /** RegistrationRecord or KE3. */
      readonly message: Uint8Array;
      readonly exportKey: Uint8Array;
      readonly serverKey: Uint8Array;
      /** Only of a login. */
      readonly sessionKey: Uint8Array | undefined;
    };

/** Number 1 of `ksf`: written out, so that a change of the library's default changes nothing. */
const keyStretching = {
  'argon2id-custom': { iterations: 3, memory: 65_536, parallelism: 4 },
} as const;

type Finish = (response: string, identifiers: Identifiers) => WorkerReply;

function startRegistration(password: string): { request: string; finish: Finish } {
  const { clientRegistrationState, registrationRequest } = opaque.client.startRegistration({
    password,
  });
  return {
    request: registrationRequest,
    finish(registrationResponse, identifiers) {
      const finished = opaque.client.finishRegistration({
        password,
        registrationResponse,
        clientRegistrationState,
        identifiers,
        keyStretching,
      });
      return {
        outcome: 'finished',
        message: bytes(finished.registrationRecord),
        exportKey: bytes(finished.exportKey),
        serverKey: bytes(finished.serverStaticPublicKey),
        sessionKey: undefined,
      };
    },
  };
}

function startLogin(password: string): { request: string; finish: Finish } {
  const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password });
  return {
    request: startLoginRequest,
    finish(loginResponse, identifiers) {
      const finished = opaque.client.finishLogin({
        password,
        loginResponse,
        clientLoginState,
        identifiers,
        keyStretching,
      });
      if (finished === undefined) return { outcome: 'refused' };
      return {
        outcome: 'finished',
        message: bytes(finished.finishLoginRequest),
        exportKey: bytes(finished.exportKey),
        serverKey: bytes(finished.serverStaticPublicKey),
        sessionKey: bytes(finished.sessionKey),
      };
    },
  };
}

let finish: Finish | undefined;

function answer(request: WorkerRequest): WorkerReply {
  if (request.step === 'finish') {
    assert(finish !== undefined, 'opaque worker: finish before start');
    try {
      return finish(text(request.response), request.identifiers);
    } catch {
      // The library's errors name its step only; to us a malformed answer and a wrong one are one.
      return { outcome: 'refused' };
    }
  }
  const password = new TextDecoder().decode(request.password);
  request.password.fill(0);
  const start = request.step === 'startLogin' ? startLogin : startRegistration;
  const started = start(password);
  ({ finish } = started);
  return { outcome: 'started', request: bytes(started.request) };
}

function text(value: Uint8Array): string {
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64url');
}

function bytes(value: string): Uint8Array {
  return Uint8Array.from(Buffer.from(value, 'base64url'));
}

const port = parentPort;
assert(port !== null, 'opaque worker: runs in a worker thread only');
await opaque.ready;
port.on('message', (request: WorkerRequest) => {
  const reply = answer(request);
  port.postMessage(reply);
});
