/**
 * The library that client and node run (@serenity-kit/opaque) against the reference: each side of
 * one logs in at the other side of the other, with our identifiers, an empty context and argon2id
 * with t=3, m=64 MiB, p=4. The library takes no randomness, so the RFC's vectors cannot be fed to it.
 */
import assert from 'node:assert/strict';
import { argon2Sync } from 'node:crypto';
import { before, test } from 'node:test';
import * as opaque from '@serenity-kit/opaque';
import { opaqueBytes, opaqueIdentifiers, systemRandom } from '@quicprochat/proto';
import {
  ke1Of,
  ke2Of,
  ke3Of,
  registrationRecord,
  registrationRequest,
  registrationResponse,
  type ClientLogin,
  type Configuration,
  type Server,
} from './opaque.ts';
import { deriveKeyPair, keyPairOf, text } from './oprf.ts';

const userId = 'alice@red.example';
const identifiers = opaqueIdentifiers(userId, 'red.example');
const password = 'correct horse battery staple';
const keyStretching = {
  'argon2id-custom': { iterations: 3, memory: 65_536, parallelism: 4 },
} as const;

/** RFC 9807 section 7: Argon2id with S = zeroes(16), here with our t, m and p. */
const stretch = (oprfOutput: Uint8Array): Uint8Array =>
  Uint8Array.from(
    argon2Sync('argon2id', {
      message: oprfOutput,
      nonce: new Uint8Array(16),
      passes: 3,
      memory: 65_536,
      parallelism: 4,
      tagLength: 64,
    }),
  );

const configuration: Configuration = {
  context: new Uint8Array(0),
  stretch,
  clientIdentity: text(identifiers.client),
  serverIdentity: text(identifiers.server),
};

const bytes = (value: string): Uint8Array => Uint8Array.from(Buffer.from(value, 'base64url'));
const base64 = (value: Uint8Array): string => Buffer.from(value).toString('base64url');
const random = (length: number): Uint8Array => systemRandom.bytes(length);
/** A uniform scalar; deriving one avoids arithmetic here. */
const randomScalar = (): Uint8Array => deriveKeyPair(random(32), 'test scalar').secret;

const referenceClient = (): ClientLogin => ({
  password: text(password),
  blind: randomScalar(),
  nonce: random(32),
  keyshareSeed: random(32),
});

let serverSetup = '';
let server: Server;
before(async () => {
  await opaque.ready;
  serverSetup = opaque.server.createSetup();
  const setup = bytes(serverSetup);
  server = { oprfSeed: setup.subarray(0, 64), keys: keyPairOf(setup.subarray(64, 96)) };
});

test('a setup is the OPRF seed, the static key and the key of fake records', () => {
  assert.equal(bytes(serverSetup).length, 128);
  assert.deepEqual(bytes(opaque.server.getPublicKey(serverSetup)), server.keys.public);
});

test('the reference registers and logs in at the library', () => {
  const blind = randomScalar();
  const request = registrationRequest(text(password), blind);
  const response = bytes(
    opaque.server.createRegistrationResponse({
      serverSetup,
      userIdentifier: userId,
      registrationRequest: base64(request),
    }).registrationResponse,
  );
  assert.deepEqual(response, registrationResponse(server, text(userId), request));
  const client = { password: text(password), blind, envelopeNonce: random(32) };
  const { record, exportKey } = registrationRecord(configuration, client, response);

  const login = referenceClient();
  const { loginResponse, serverLoginState } = opaque.server.startLogin({
    serverSetup,
    userIdentifier: userId,
    registrationRecord: base64(record),
    startLoginRequest: base64(ke1Of(login)),
    identifiers,
  });
  const finished = ke3Of(configuration, login, bytes(loginResponse));
  assert.deepEqual(finished.exportKey, exportKey);
  assert.deepEqual(finished.serverPublicKey, server.keys.public);
  const { sessionKey } = opaque.server.finishLogin({
    serverLoginState,
    finishLoginRequest: base64(finished.ke3),
    identifiers,
  });
  assert.deepEqual(bytes(sessionKey), finished.sessionKey);
});

test('the library registers and logs in at the reference', () => {
  const registration = opaque.client.startRegistration({ password });
  const request = bytes(registration.registrationRequest);
  const response = registrationResponse(server, text(userId), request);
  const registered = opaque.client.finishRegistration({
    password,
    clientRegistrationState: registration.clientRegistrationState,
    registrationResponse: base64(response),
    identifiers,
    keyStretching,
  });
  const record = bytes(registered.registrationRecord);
  assert.deepEqual(
    [request.length, response.length, record.length],
    [
      opaqueBytes.registrationRequest,
      opaqueBytes.registrationResponse,
      opaqueBytes.registrationRecord,
    ],
  );

  const login = opaque.client.startLogin({ password });
  const ke1 = bytes(login.startLoginRequest);
  const { ke2, expectedClientMac, sessionKey } = ke2Of(
    configuration,
    server,
    text(userId),
    record,
    ke1,
    { maskingNonce: random(32), nonce: random(32), keyshareSeed: random(32) },
  );
  const finished = opaque.client.finishLogin({
    password,
    clientLoginState: login.clientLoginState,
    loginResponse: base64(ke2),
    identifiers,
    keyStretching,
  });
  assert(finished !== undefined);
  const ke3 = bytes(finished.finishLoginRequest);
  assert.deepEqual(ke3, expectedClientMac);
  assert.deepEqual(bytes(finished.sessionKey), sessionKey);
  assert.equal(finished.exportKey, registered.exportKey);
  assert.deepEqual(
    [ke1.length, ke2.length, ke3.length],
    [opaqueBytes.ke1, opaqueBytes.ke2, opaqueBytes.ke3],
  );
});

test('another context, stretching or identity than ours fails at the library', () => {
  const blind = randomScalar();
  const request = registrationRequest(text(password), blind);
  const response = registrationResponse(server, text(userId), request);
  const loginWith = (other: Configuration): unknown => {
    const client = { password: text(password), blind, envelopeNonce: random(32) };
    const { record } = registrationRecord(other, client, response);
    const login = referenceClient();
    const { loginResponse } = opaque.server.startLogin({
      serverSetup,
      userIdentifier: userId,
      registrationRecord: base64(record),
      startLoginRequest: base64(ke1Of(login)),
      identifiers,
    });
    return ke3Of(other, login, bytes(loginResponse));
  };
  loginWith(configuration);
  for (const other of [
    { ...configuration, context: text('quicprochat') },
    { ...configuration, serverIdentity: text('qpc/1:blue.example') },
    { ...configuration, clientIdentity: text('bob@red.example') },
  ]) {
    assert.throws(() => loginWith(other), /ServerAuthenticationError/);
  }
});

test('the library answers for an unknown user in the same size and about the same time', () => {
  const registration = opaque.client.startRegistration({ password });
  const { registrationRecord: known } = opaque.client.finishRegistration({
    password,
    clientRegistrationState: registration.clientRegistrationState,
    registrationResponse: base64(
      registrationResponse(server, text(userId), bytes(registration.registrationRequest)),
    ),
    identifiers,
    keyStretching,
  });
  const { startLoginRequest } = opaque.client.startLogin({ password });
  const timed = (record: string | null): number => {
    const startMs = performance.now();
    const { loginResponse, serverLoginState } = opaque.server.startLogin({
      serverSetup,
      userIdentifier: userId,
      registrationRecord: record,
      startLoginRequest,
      identifiers,
    });
    const tookMs = performance.now() - startMs;
    assert.deepEqual([loginResponse.length, serverLoginState.length], [427, 171]);
    return tookMs;
  };
  const times = { known: [] as number[], unknown: [] as number[] };
  for (let round = 0; round < 60; round += 1) {
    times.known.push(timed(known));
    times.unknown.push(timed(null));
  }
  // Interleaved medians; measured within 10 % of each other, the bound only catches a shortcut.
  const ratio = median(times.unknown) / median(times.known);
  assert(ratio > 0.5 && ratio < 2, `unknown takes ${ratio.toFixed(2)} times as long as known`);
});

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
