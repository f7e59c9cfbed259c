/**
 * Every byte of every OPAQUE message is authenticated (RFC 9807 section 6.4): a login in which one
 * bit of one message was changed on the way fails on one of the two sides. The key stretching is
 * the library's smallest here, because it runs for each of the 900 tries and proves nothing about
 * transcripts; the strength of ours is fixed in library.test.ts.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import * as opaque from '@serenity-kit/opaque';
import { opaqueIdentifiers } from '@quicprochat/proto';

const userId = 'alice@red.example';
const identifiers = opaqueIdentifiers(userId, 'red.example');
const password = 'correct horse battery staple';
const keyStretching = {
  'argon2id-custom': { iterations: 1, memory: 32, parallelism: 4 },
} as const;

const bytes = (value: string): Uint8Array => Uint8Array.from(Buffer.from(value, 'base64url'));
const base64 = (value: Uint8Array): string => Buffer.from(value).toString('base64url');

let serverSetup = '';
before(async () => {
  await opaque.ready;
  serverSetup = opaque.server.createSetup();
});

type Message = 'registrationRequest' | 'registrationResponse' | 'record' | 'ke1' | 'ke2' | 'ke3';
type Channel = (message: Message, value: string) => string;
const honest: Channel = (_message, value) => value;

/** Registers over the channel and returns the record. */
function register(channel: Channel): string {
  const started = opaque.client.startRegistration({ password });
  const { registrationResponse } = opaque.server.createRegistrationResponse({
    serverSetup,
    userIdentifier: userId,
    registrationRequest: channel('registrationRequest', started.registrationRequest),
  });
  const { registrationRecord } = opaque.client.finishRegistration({
    password,
    clientRegistrationState: started.clientRegistrationState,
    registrationResponse: channel('registrationResponse', registrationResponse),
    identifiers,
    keyStretching,
  });
  return channel('record', registrationRecord);
}

/** True when both sides accept and hold the same session key. */
function login(record: string, channel: Channel): boolean {
  const started = opaque.client.startLogin({ password });
  const answered = opaque.server.startLogin({
    serverSetup,
    userIdentifier: userId,
    registrationRecord: record,
    startLoginRequest: channel('ke1', started.startLoginRequest),
    identifiers,
  });
  const finished = opaque.client.finishLogin({
    password,
    clientLoginState: started.clientLoginState,
    loginResponse: channel('ke2', answered.loginResponse),
    identifiers,
    keyStretching,
  });
  if (finished === undefined) return false;
  const { sessionKey } = opaque.server.finishLogin({
    serverLoginState: answered.serverLoginState,
    finishLoginRequest: channel('ke3', finished.finishLoginRequest),
    identifiers,
  });
  return sessionKey === finished.sessionKey;
}

/** Changes one bit of one message. */
function flip(target: Message, at: number): Channel {
  return (message, value) => {
    if (message !== target) return value;
    const changed = bytes(value);
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
    return base64(changed);
  };
}

/** Runs an exchange that must fail, by a refusal or by the library's own error. */
function mustFail(what: string, run: () => boolean): void {
  let succeeded = false;
  try {
    succeeded = run();
  } catch (error) {
    // The library throws plain errors that name the step; anything else would be a crash of wasm.
    assert(error instanceof Error && /opaque protocol error/.test(error.message), String(error));
  }
  assert(!succeeded, `${what} was accepted`);
}

test('an honest exchange succeeds', () => {
  assert(login(register(honest), honest));
});

for (const [message, length] of [
  ['ke1', 96],
  ['ke2', 320],
  ['ke3', 64],
] as const) {
  test(`a login with any byte of ${message} changed fails`, () => {
    const record = register(honest);
    for (let at = 0; at < length; at += 1) {
      mustFail(`${message}[${at}]`, () => login(record, flip(message, at)));
    }
  });
}

for (const [message, length] of [
  ['registrationRequest', 32],
  ['registrationResponse', 64],
  ['record', 192],
] as const) {
  test(`a registration with any byte of ${message} changed gives no login`, () => {
    for (let at = 0; at < length; at += 1) {
      mustFail(`${message}[${at}]`, () => login(register(flip(message, at)), honest));
    }
  });
}
