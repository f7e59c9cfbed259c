/**
 * A slow reference of OPAQUE-3DH (RFC 9807) over ristretto255-SHA512, HKDF- and HMAC-SHA-512,
 * written from the RFC with all randomness as arguments: the vectors of appendix C and the library
 * that we run are both compared with it. Never for production.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import {
  blind,
  blindEvaluate,
  concat,
  deriveKeyPair,
  finalize,
  multiply,
  prefixed,
  sha512,
  text,
  type KeyPair,
} from './oprf.ts';

/** Bytes: Nh = Nm = Nx = 64, Npk = Nsk = Nok = Nseed = Nn = 32. */
const hashBytes = 64;
const envelopeBytes = 96;
const empty = new Uint8Array(0);

/** What both sides must agree on besides the messages (RFC 9807 section 3.3). */
export interface Configuration {
  readonly context: Uint8Array;
  /** The key stretching function: 64 bytes in, 64 bytes out. */
  readonly stretch: (oprfOutput: Uint8Array) => Uint8Array;
  /** Absent: the public key stands in (section 4). */
  readonly clientIdentity?: Uint8Array;
  readonly serverIdentity?: Uint8Array;
}

export interface Server {
  readonly oprfSeed: Uint8Array;
  readonly keys: KeyPair;
}

const hmac = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  Uint8Array.from(createHmac('sha512', key).update(data).digest());
const extract = (ikm: Uint8Array): Uint8Array => hmac(empty, ikm);

/** HKDF-Expand alone: `hkdfSync` always extracts first, so the loop stands here (RFC 5869 2.3). */
function expand(key: Uint8Array, info: Uint8Array, length: number): Uint8Array {
  let block: Uint8Array = empty;
  let out: Uint8Array = empty;
  for (let counter = 1; out.length < length; counter += 1) {
    block = hmac(key, concat(block, info, Uint8Array.of(counter)));
    out = concat(out, block);
  }
  return out.subarray(0, length);
}

/** DeriveDiffieHellmanKeyPair, section 2.1. */
const diffieHellmanKeys = (seed: Uint8Array): KeyPair =>
  deriveKeyPair(seed, 'OPAQUE-DeriveDiffieHellmanKeyPair');

/** CreateRegistrationRequest, section 5.2.1. */
export const registrationRequest = blind;

/** The user's OPRF key, sections 5.2.2 and 6.3.2.2. */
function oprfKey(server: Server, credentialIdentifier: Uint8Array): Uint8Array {
  const seed = expand(server.oprfSeed, concat(credentialIdentifier, text('OprfKey')), 32);
  return deriveKeyPair(seed, 'OPAQUE-DeriveKeyPair').secret;
}

/** CreateRegistrationResponse, section 5.2.2: 64 bytes. */
export function registrationResponse(
  server: Server,
  credentialIdentifier: Uint8Array,
  request: Uint8Array,
): Uint8Array {
  const evaluated = blindEvaluate(oprfKey(server, credentialIdentifier), request);
  return concat(evaluated, server.keys.public);
}

function randomizedPassword(
  configuration: Configuration,
  password: Uint8Array,
  blindScalar: Uint8Array,
  evaluated: Uint8Array,
): Uint8Array {
  const output = finalize(password, blindScalar, evaluated);
  return extract(concat(output, configuration.stretch(output)));
}

interface Envelope {
  readonly clientKeys: KeyPair;
  readonly authTag: Uint8Array;
  readonly exportKey: Uint8Array;
}

/** What Store (section 4.1.2) and Recover (section 4.1.3) both compute for a nonce. */
function envelopeOf(
  configuration: Configuration,
  randomized: Uint8Array,
  nonce: Uint8Array,
  serverPublicKey: Uint8Array,
): Envelope {
  const derive = (label: string, length: number): Uint8Array =>
    expand(randomized, concat(nonce, text(label)), length);
  const clientKeys = diffieHellmanKeys(derive('PrivateKey', 32));
  const cleartext = concat(
    serverPublicKey,
    prefixed(configuration.serverIdentity ?? serverPublicKey),
    prefixed(configuration.clientIdentity ?? clientKeys.public),
  );
  return {
    clientKeys,
    authTag: hmac(derive('AuthKey', hashBytes), concat(nonce, cleartext)),
    exportKey: derive('ExportKey', hashBytes),
  };
}

/** FinalizeRegistrationRequest, section 5.2.3: the record of 192 bytes and the export key. */
export function registrationRecord(
  configuration: Configuration,
  client: { password: Uint8Array; blind: Uint8Array; envelopeNonce: Uint8Array },
  response: Uint8Array,
): { record: Uint8Array; exportKey: Uint8Array } {
  const [evaluated, serverPublicKey] = [response.subarray(0, 32), response.subarray(32)];
  const randomized = randomizedPassword(configuration, client.password, client.blind, evaluated);
  const maskingKey = expand(randomized, text('MaskingKey'), hashBytes);
  const { envelopeNonce } = client;
  const { clientKeys, authTag, exportKey } = envelopeOf(
    configuration,
    randomized,
    envelopeNonce,
    serverPublicKey,
  );
  return { record: concat(clientKeys.public, maskingKey, envelopeNonce, authTag), exportKey };
}

export interface ClientLogin {
  readonly password: Uint8Array;
  readonly blind: Uint8Array;
  readonly nonce: Uint8Array;
  readonly keyshareSeed: Uint8Array;
}

/** GenerateKE1, section 6.2.1: 96 bytes. */
export function ke1Of(client: ClientLogin): Uint8Array {
  const keyshare = diffieHellmanKeys(client.keyshareSeed).public;
  return concat(blind(client.password, client.blind), client.nonce, keyshare);
}

/** Of a record: client public key 32, masking key 64, envelope 96. */
export function parseRecord(record: Uint8Array): {
  clientPublicKey: Uint8Array;
  maskingKey: Uint8Array;
  envelope: Uint8Array;
} {
  return {
    clientPublicKey: record.subarray(0, 32),
    maskingKey: record.subarray(32, 96),
    envelope: record.subarray(96),
  };
}

/** The record of a user that does not exist, section 6.3.2.2: an envelope of zeros. */
export function fakeRecord(clientPublicKey: Uint8Array, maskingKey: Uint8Array): Uint8Array {
  return concat(clientPublicKey, maskingKey, new Uint8Array(envelopeBytes));
}

export interface ServerLogin {
  readonly maskingNonce: Uint8Array;
  readonly nonce: Uint8Array;
  readonly keyshareSeed: Uint8Array;
}

/** GenerateKE2, sections 6.2.2 and 6.3.2: 320 bytes, and what ServerFinish compares. */
export function ke2Of(
  configuration: Configuration,
  server: Server,
  credentialIdentifier: Uint8Array,
  record: Uint8Array,
  ke1: Uint8Array,
  random: ServerLogin,
): { ke2: Uint8Array; expectedClientMac: Uint8Array; sessionKey: Uint8Array } {
  const { clientPublicKey, maskingKey, envelope } = parseRecord(record);
  const evaluated = blindEvaluate(oprfKey(server, credentialIdentifier), ke1.subarray(0, 32));
  const pad = credentialPad(maskingKey, random.maskingNonce);
  const masked = xor(pad, concat(server.keys.public, envelope));
  const credentialResponse = concat(evaluated, random.maskingNonce, masked);
  const keyshare = diffieHellmanKeys(random.keyshareSeed);
  const clientKeyshare = ke1.subarray(64, 96);
  const keys = deriveKeys(
    [
      multiply(clientKeyshare, keyshare.secret),
      multiply(clientKeyshare, server.keys.secret),
      multiply(clientPublicKey, keyshare.secret),
    ],
    preambleOf(
      configuration,
      clientPublicKey,
      server.keys.public,
      ke1,
      concat(credentialResponse, random.nonce, keyshare.public),
    ),
  );
  return {
    ke2: concat(credentialResponse, random.nonce, keyshare.public, keys.serverMac),
    expectedClientMac: keys.clientMac,
    sessionKey: keys.sessionKey,
  };
}

/** GenerateKE3, sections 6.2.3 and 6.3.3. Throws when the password or the answer is wrong. */
export function ke3Of(
  configuration: Configuration,
  client: ClientLogin,
  ke2: Uint8Array,
): { ke3: Uint8Array; sessionKey: Uint8Array; exportKey: Uint8Array; serverPublicKey: Uint8Array } {
  const randomized = randomizedPassword(
    configuration,
    client.password,
    client.blind,
    ke2.subarray(0, 32),
  );
  const maskingKey = expand(randomized, text('MaskingKey'), hashBytes);
  const unmasked = xor(credentialPad(maskingKey, ke2.subarray(32, 64)), ke2.subarray(64, 192));
  const serverPublicKey = unmasked.subarray(0, 32);
  const envelopeNonce = unmasked.subarray(32, 64);
  const { clientKeys, authTag, exportKey } = envelopeOf(
    configuration,
    randomized,
    envelopeNonce,
    serverPublicKey,
  );
  if (!timingSafeEqual(authTag, unmasked.subarray(64))) throw new Error('EnvelopeRecoveryError');
  const keyshare = diffieHellmanKeys(client.keyshareSeed);
  const serverKeyshare = ke2.subarray(224, 256);
  const keys = deriveKeys(
    [
      multiply(serverKeyshare, keyshare.secret),
      multiply(serverPublicKey, keyshare.secret),
      multiply(serverKeyshare, clientKeys.secret),
    ],
    preambleOf(
      configuration,
      clientKeys.public,
      serverPublicKey,
      ke1Of(client),
      ke2.subarray(0, 256),
    ),
  );
  if (!timingSafeEqual(keys.serverMac, ke2.subarray(256))) {
    throw new Error('ServerAuthenticationError');
  }
  return { ke3: keys.clientMac, sessionKey: keys.sessionKey, exportKey, serverPublicKey };
}

function credentialPad(maskingKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  return expand(maskingKey, concat(nonce, text('CredentialResponsePad')), 32 + envelopeBytes);
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, index) => byte ^ (b[index] ?? 0));
}

/** Preamble, section 6.4.2.1; `inner` is KE2 without its MAC. */
function preambleOf(
  configuration: Configuration,
  clientPublicKey: Uint8Array,
  serverPublicKey: Uint8Array,
  ke1: Uint8Array,
  inner: Uint8Array,
): Uint8Array {
  return concat(
    text('OPAQUEv1-'),
    prefixed(configuration.context),
    prefixed(configuration.clientIdentity ?? clientPublicKey),
    ke1,
    prefixed(configuration.serverIdentity ?? serverPublicKey),
    inner,
  );
}

/** DeriveKeys and the two MACs, sections 6.4.2.2, 6.4.3 and 6.4.4. */
function deriveKeys(
  shared: readonly Uint8Array[],
  preamble: Uint8Array,
): { serverMac: Uint8Array; clientMac: Uint8Array; sessionKey: Uint8Array } {
  const prk = extract(concat(...shared));
  const transcript = sha512(preamble);
  const handshakeSecret = deriveSecret(prk, 'HandshakeSecret', transcript);
  const serverMac = hmac(deriveSecret(handshakeSecret, 'ServerMAC', empty), transcript);
  const withMac = sha512(concat(preamble, serverMac));
  return {
    serverMac,
    clientMac: hmac(deriveSecret(handshakeSecret, 'ClientMAC', empty), withMac),
    sessionKey: deriveSecret(prk, 'SessionKey', transcript),
  };
}

/** Derive-Secret by way of Expand-Label, section 6.4.2. */
function deriveSecret(secret: Uint8Array, label: string, context: Uint8Array): Uint8Array {
  const full = text(`OPAQUE-${label}`);
  const info = concat(
    Uint8Array.of(0, hashBytes, full.length),
    full,
    Uint8Array.of(context.length),
    context,
  );
  return expand(secret, info, hashBytes);
}
