/**
 * OPAQUE at the server (RFC 9807): sizes, failures that all look alike, and exchanges that work
 * once. The client's side here is the library itself; the reference is in tests/opaque-reference.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as opaque from '@serenity-kit/opaque';
import {
  hasReason,
  opaqueIdentifiers,
  systemRandom,
  UnauthenticatedError,
  type Clock,
  type Timer,
} from '@quicprochat/proto';
import { ExchangeTable, OpaqueServer } from './opaque.ts';

const userId = 'alice@red.example';
const domain = 'red.example';
const keyStretching = {
  'argon2id-custom': { iterations: 3, memory: 65_536, parallelism: 4 },
} as const;

const bytes = (value: string): Uint8Array => Uint8Array.from(Buffer.from(value, 'base64url'));
const text = (value: Uint8Array): string => Buffer.from(value).toString('base64url');

async function newServer(): Promise<OpaqueServer> {
  const server = new OpaqueServer({ setup: await OpaqueServer.createSetup(), domain });
  await server.ready();
  return server;
}

function register(server: OpaqueServer, password: string): Uint8Array {
  const started = opaque.client.startRegistration({ password });
  const response = server.startRegistration(userId, bytes(started.registrationRequest));
  assert.equal(response.length, 64);
  const { registrationRecord, serverStaticPublicKey } = opaque.client.finishRegistration({
    clientRegistrationState: started.clientRegistrationState,
    registrationResponse: text(response),
    password,
    identifiers: opaqueIdentifiers(userId, domain),
    keyStretching,
  });
  assert.deepEqual(bytes(serverStaticPublicKey), server.serverPublicKey);
  return bytes(registrationRecord);
}

function isAuthFailed(error: unknown): boolean {
  return (
    error instanceof UnauthenticatedError &&
    error.reason === 'AUTH_FAILED' &&
    error.message === 'user or password is wrong'
  );
}

test('a registered user logs in and both sides hold one session key', async () => {
  const server = await newServer();
  const password = 'correct horse';
  const record = register(server, password);
  assert.equal(record.length, 192);
  const started = opaque.client.startLogin({ password });
  const { ke2, state } = server.startLogin(userId, record, bytes(started.startLoginRequest));
  assert.equal(ke2.length, 320);
  const finished = opaque.client.finishLogin({
    clientLoginState: started.clientLoginState,
    loginResponse: text(ke2),
    password,
    identifiers: opaqueIdentifiers(userId, domain),
    keyStretching,
  });
  assert.ok(finished);
  const sessionKey = server.finishLogin(userId, state, bytes(finished.finishLoginRequest));
  assert.deepEqual(sessionKey, bytes(finished.sessionKey));
  assert.equal(sessionKey.length, 64);
  assert.ok(
    state.every((byte) => byte === 0),
    'the state is wiped',
  );
});

test('another domain or another user in the identifiers fails the login', async () => {
  const setup = await OpaqueServer.createSetup();
  const server = new OpaqueServer({ setup, domain });
  await server.ready();
  const password = 'correct horse';
  const record = register(server, password);
  const started = opaque.client.startLogin({ password });
  const elsewhere = new OpaqueServer({ setup, domain: 'blue.example' });
  const { ke2 } = elsewhere.startLogin(userId, record, bytes(started.startLoginRequest));
  const finished = opaque.client.finishLogin({
    clientLoginState: started.clientLoginState,
    loginResponse: text(ke2),
    password,
    identifiers: opaqueIdentifiers(userId, domain),
    keyStretching,
  });
  assert.equal(finished, undefined);
});

test('an unknown user gets an answer of the same size with a stable OPRF part', async () => {
  const server = await newServer();
  const record = register(server, 'correct horse');
  const { startLoginRequest } = opaque.client.startLogin({ password: 'x' });
  const ke1 = bytes(startLoginRequest);
  const known = server.startLogin(userId, record, ke1);
  const unknown = server.startLogin('nobody@red.example', undefined, ke1);
  const again = server.startLogin('nobody@red.example', undefined, ke1);
  assert.equal(unknown.ke2.length, known.ke2.length);
  assert.equal(unknown.state.length, known.state.length);
  // evaluated_message (32 bytes) is the same every time, masking nonce and response are fresh.
  assert.deepEqual(unknown.ke2.subarray(0, 32), again.ke2.subarray(0, 32));
  assert.notDeepEqual(unknown.ke2.subarray(32, 64), again.ke2.subarray(32, 64));
  assert.throws(() => server.finishLogin('nobody@red.example', unknown.state, new Uint8Array(64)), {
    reason: 'AUTH_FAILED',
  });
});

test('malformed input of every kind is AUTH_FAILED with one message', async () => {
  const server = await newServer();
  const record = register(server, 'correct horse');
  const ke1 = bytes(opaque.client.startLogin({ password: 'x' }).startLoginRequest);
  const { state } = server.startLogin(userId, record, ke1);
  const zeros = (length: number): Uint8Array => new Uint8Array(length);
  for (const attempt of [
    () => server.startRegistration(userId, zeros(32)), // the identity element
    () => server.startRegistration(userId, zeros(0)),
    () => server.startRegistration(userId, zeros(32).fill(0xff)),
    () => server.startLogin(userId, record, ke1.subarray(0, 95)),
    () => server.startLogin(userId, record, zeros(96)),
    () => server.startLogin(userId, undefined, zeros(96)),
    () => server.startLogin(userId, record.subarray(1), ke1),
    () => server.finishLogin(userId, Uint8Array.from(state), zeros(64)),
    () => server.finishLogin(userId, Uint8Array.from(state), zeros(63)),
    () => server.finishLogin(userId, zeros(10), zeros(64)),
  ]) {
    assert.throws(attempt, isAuthFailed);
  }
});

test('a setup of a wrong size is refused', () => {
  assert.throws(() => new OpaqueServer({ setup: new Uint8Array(127), domain }), /127 bytes/);
});

/** Time under the test's control. */
class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; run: () => void }>();
  now(): number {
    return this.#nowMs;
  }
  monotonic(): number {
    return this.#nowMs;
  }
  async sleep(): Promise<void> {
    assert.fail('an exchange table does not sleep');
  }
  timer(ms: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + ms, run: callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }
  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of this.#timers) {
      if (timer.atMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      timer.run();
    }
  }
}

const limits = { lifeMs: 60_000, exchangesPerHost: 3, exchanges: 5 };

test('a handle works once, and only on its own connection', () => {
  using table = new ExchangeTable<string>({ clock: new ManualClock(), random: systemRandom });
  const connection = {};
  const handle = table.open(connection, '192.0.2.1', 'value');
  assert.equal(handle.length, 16);
  assert.throws(() => table.take({}, handle), { reason: 'AUTH_FAILED' });
  assert.equal(table.take(connection, handle), 'value');
  assert.throws(() => table.take(connection, handle), { reason: 'AUTH_FAILED' });
  assert.throws(() => table.take(connection, new Uint8Array(0)), { reason: 'AUTH_FAILED' });
});

test('an exchange ends after its time, called for or not', () => {
  const clock = new ManualClock();
  using table = new ExchangeTable<string>({ clock, random: systemRandom, limits });
  const connection = {};
  const early = table.open(connection, 'a', 'early');
  clock.advance(30_000);
  const late = table.open(connection, 'a', 'late');
  clock.advance(30_000);
  assert.equal(table.size, 1, 'the timer removed what expired');
  assert.throws(() => table.take(connection, early), { reason: 'AUTH_FAILED' });
  clock.advance(29_999);
  assert.equal(table.take(connection, late), 'late');
});

test('one address and the whole node have a bound, and both recover', () => {
  const clock = new ManualClock();
  using table = new ExchangeTable<number>({ clock, random: systemRandom, limits });
  const connection = {};
  const handles = [0, 1, 2].map((value) => table.open(connection, 'a', value));
  assert.throws(
    () => table.open(connection, 'a', 3),
    (error) => hasReason(error, 'RATE_LIMITED') && error.retryAfterMs === 60_000,
  );
  table.open(connection, 'b', 4);
  table.open(connection, 'b', 5);
  assert.throws(
    () => table.open(connection, 'c', 6),
    (error) => hasReason(error, 'OVERLOADED'),
  );
  assert.equal(table.take(connection, handles[1] ?? new Uint8Array()), 1);
  table.open(connection, 'a', 7);
  clock.advance(60_000);
  assert.equal(table.size, 0);
  table.open(connection, 'a', 8);
});
