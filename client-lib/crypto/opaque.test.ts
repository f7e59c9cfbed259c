/**
 * The client's side of OPAQUE (RFC 9807): key stretching by number, errors that look alike, and
 * threads that end. Against the node's side it is tested in tests/opaque-reference.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as opaque from '@serenity-kit/opaque';
import { opaqueIdentifiers, QpcError, UnauthenticatedError } from '@quicprochat/proto';
import { startOpaqueLogin, startOpaqueRegistration } from './opaque.ts';
import { canonicalPassword } from './password.ts';

const userId = 'alice@red.example';
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const bytes = (value: string): Uint8Array => Uint8Array.from(Buffer.from(value, 'base64url'));
const base64 = (value: Uint8Array): string => Buffer.from(value).toString('base64url');

await opaque.ready;
const serverSetup = opaque.server.createSetup();

const registrationResponse = (request: Uint8Array): Uint8Array =>
  bytes(
    opaque.server.createRegistrationResponse({
      serverSetup,
      userIdentifier: userId,
      registrationRequest: base64(request),
    }).registrationResponse,
  );

async function registeredRecord(password: string): Promise<Uint8Array> {
  await using registration = await startOpaqueRegistration({ userId, password: utf8(password) });
  const response = registrationResponse(registration.request);
  const { record, exportKey, serverKey } = await registration.finish({ response, ksf: 1 });
  assert.deepEqual(
    [registration.request.length, record.length, exportKey.length, serverKey.length],
    [32, 192, 64, 32],
  );
  return record;
}

function ke2(record: Uint8Array | undefined, ke1: Uint8Array): Uint8Array {
  const started = opaque.server.startLogin({
    serverSetup,
    userIdentifier: userId,
    registrationRecord: record === undefined ? null : base64(record),
    startLoginRequest: base64(ke1),
    identifiers: opaqueIdentifiers(userId, 'red.example'),
  });
  return bytes(started.loginResponse);
}

async function loginError(password: string, record: Uint8Array | undefined): Promise<unknown> {
  await using login = await startOpaqueLogin({ userId, password: utf8(password) });
  return await login
    .finish({ response: ke2(record, login.ke1), ksf: 1 })
    .catch((error: unknown) => error);
}

test('a password is the same on every keyboard', async () => {
  const record = await registeredRecord('Zoe\u0308'); // e + combining diaeresis
  await using login = await startOpaqueLogin({ userId, password: utf8('Zo\u00eb') });
  const { ke3, sessionKey } = await login.finish({ response: ke2(record, login.ke1), ksf: 1 });
  assert.deepEqual([ke3.length, sessionKey.length], [64, 64]);
});

test('wrong password and unknown user are one error', async () => {
  const record = await registeredRecord('right');
  const [wrong, unknown] = [
    await loginError('wrong', record),
    await loginError('right', undefined),
  ];
  for (const error of [wrong, unknown]) {
    assert(error instanceof UnauthenticatedError);
    assert.equal(error.reason, 'AUTH_FAILED');
    assert.equal(error.message, 'user or password is wrong');
    assert.equal(error.cause, undefined);
  }
});

test('a key stretching that this client does not know is refused before any work', async () => {
  await using login = await startOpaqueLogin({ userId, password: utf8('x') });
  for (const ksf of [0, 2, 4_294_967_295]) {
    await assert.rejects(login.finish({ response: new Uint8Array(320), ksf }), {
      reason: 'VERSION',
    });
  }
});

test('malformed answers are typed errors', async () => {
  await using registration = await startOpaqueRegistration({ userId, password: utf8('x') });
  for (const response of [new Uint8Array(64), new Uint8Array(0), new Uint8Array(1000)]) {
    await assert.rejects(registration.finish({ response, ksf: 1 }), { reason: 'BAD_FRAME' });
  }
  await using login = await startOpaqueLogin({ userId, password: utf8('x') });
  for (const response of [new Uint8Array(320), new Uint8Array(0), new Uint8Array(1000)]) {
    await assert.rejects(login.finish({ response, ksf: 1 }), { reason: 'AUTH_FAILED' });
  }
});

test('a signal ends an exchange, and a disposed one answers nothing any more', async () => {
  const reason = new Error('enough');
  await assert.rejects(
    startOpaqueLogin({ userId, password: utf8('x'), signal: AbortSignal.abort(reason) }),
    reason,
  );
  const controller = new AbortController();
  await using login = await startOpaqueLogin({
    userId,
    password: utf8('x'),
    signal: controller.signal,
  });
  const finishing = login.finish({ response: ke2(undefined, login.ke1), ksf: 1 });
  controller.abort(reason);
  await assert.rejects(finishing, reason);
  const ended = await startOpaqueLogin({ userId, password: utf8('x') });
  await ended[Symbol.asyncDispose]();
  await ended[Symbol.asyncDispose]();
  await assert.rejects(ended.finish({ response: ke2(undefined, ended.ke1), ksf: 1 }), {
    reason: 'INTERNAL',
  });
});

test('user ids and passwords that cannot be are refused without a thread', async () => {
  for (const input of [
    { userId: 'Alice@red.example', password: utf8('x') },
    { userId, password: new Uint8Array(0) },
    { userId, password: new Uint8Array(1025).fill(97) },
    { userId, password: Uint8Array.of(0xff, 0xfe) },
  ]) {
    await assert.rejects(startOpaqueLogin(input), { reason: 'BAD_FIELD' });
  }
});

test('an error about a password never holds it', () => {
  const planted = Uint8Array.from([...utf8('planted-mark-4711'), 0xff]);
  assert.throws(
    () => canonicalPassword(planted),
    (error) => error instanceof QpcError && !JSON.stringify(error).includes('planted'),
  );
  assert.equal(planted[0], 'p'.charCodeAt(0), 'the input stays the caller’s');
});
