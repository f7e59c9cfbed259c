/**
 * The reference against RFC 9807 appendix C, ristretto255-SHA512: two logins (without and with
 * identities) and the answer for a user that does not exist. Vectors: cfrg/draft-irtf-cfrg-opaque.
 */
import assert from 'node:assert/strict';
import {
  fakeRecord,
  ke1Of,
  ke2Of,
  ke3Of,
  registrationRecord,
  registrationRequest,
  registrationResponse,
  type Configuration,
} from './opaque.ts';
import { keyPairOf } from './oprf.ts';
import { vectorTest } from './vectors.ts';

const file = 'opaque-vectors/vectors.json';
const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');

type Group = 'config' | 'inputs' | 'outputs';
type Vector = Readonly<Record<Group, Readonly<Record<string, string>>>>;

/** A vector whose every missing member is a failure, not undefined. */
class Case {
  readonly #vector: Vector;
  constructor(vector: Vector) {
    this.#vector = vector;
  }
  has(name: string): boolean {
    return name in this.#vector.inputs;
  }
  input(name: string): Uint8Array {
    return bytes(this.#read('inputs', name));
  }
  output(name: string): string {
    return this.#read('outputs', name);
  }
  config(name: string): string {
    return this.#read('config', name);
  }
  #read(group: Group, name: string): string {
    const value = this.#vector[group][name];
    assert(value !== undefined, `vector without ${group}.${name}`);
    return value;
  }
}

/** The ristretto255 cases of the file; its shape is what its own README promises. */
function cases(json: unknown, isFake: boolean): readonly Case[] {
  return (json as readonly Vector[])
    .map((vector) => new Case(vector))
    .filter(
      (one) =>
        one.config('Group') === 'ristretto255' &&
        one.config('Fake') === (isFake ? 'True' : 'False'),
    );
}

function configurationOf(one: Case): Configuration {
  assert.equal(one.config('KSF'), 'Identity');
  return {
    context: bytes(one.config('Context')),
    stretch: (output) => output,
    ...(one.has('client_identity') ? { clientIdentity: one.input('client_identity') } : {}),
    ...(one.has('server_identity') ? { serverIdentity: one.input('server_identity') } : {}),
  };
}

const serverOf = (one: Case): Parameters<typeof ke2Of>[1] => {
  const keys = keyPairOf(one.input('server_private_key'));
  assert.equal(hex(keys.public), hex(one.input('server_public_key')));
  return { oprfSeed: one.input('oprf_seed'), keys };
};

const serverRandom = (one: Case): Parameters<typeof ke2Of>[5] => ({
  maskingNonce: one.input('masking_nonce'),
  nonce: one.input('server_nonce'),
  keyshareSeed: one.input('server_keyshare_seed'),
});

vectorTest('the reference reproduces the two logins of RFC 9807 appendix C.1', file, (json) => {
  const real = cases(json, false);
  assert.equal(real.length, 2);
  for (const one of real) {
    const configuration = configurationOf(one);
    const server = serverOf(one);
    const id = one.input('credential_identifier');
    const password = one.input('password');

    const request = registrationRequest(password, one.input('blind_registration'));
    assert.equal(hex(request), one.output('registration_request'));
    const response = registrationResponse(server, id, request);
    assert.equal(hex(response), one.output('registration_response'));
    const { record, exportKey } = registrationRecord(
      configuration,
      {
        password,
        blind: one.input('blind_registration'),
        envelopeNonce: one.input('envelope_nonce'),
      },
      response,
    );
    assert.equal(hex(record), one.output('registration_upload'));
    assert.equal(hex(exportKey), one.output('export_key'));

    const client = {
      password,
      blind: one.input('blind_login'),
      nonce: one.input('client_nonce'),
      keyshareSeed: one.input('client_keyshare_seed'),
    };
    const ke1 = ke1Of(client);
    assert.equal(hex(ke1), one.output('KE1'));
    const { ke2, expectedClientMac, sessionKey } = ke2Of(
      configuration,
      server,
      id,
      record,
      ke1,
      serverRandom(one),
    );
    assert.equal(hex(ke2), one.output('KE2'));
    const finished = ke3Of(configuration, client, ke2);
    assert.equal(hex(finished.ke3), one.output('KE3'));
    assert.equal(hex(expectedClientMac), one.output('KE3'));
    assert.equal(hex(finished.sessionKey), one.output('session_key'));
    assert.equal(hex(sessionKey), one.output('session_key'));
    assert.equal(hex(finished.exportKey), one.output('export_key'));
  }
});

vectorTest('the reference reproduces the fake answer of RFC 9807 appendix C.2', file, (json) => {
  const [one, ...others] = cases(json, true);
  assert(one !== undefined && others.length === 0);
  const { ke2 } = ke2Of(
    configurationOf(one),
    serverOf(one),
    one.input('credential_identifier'),
    fakeRecord(one.input('client_public_key'), one.input('masking_key')),
    one.input('KE1'),
    serverRandom(one),
  );
  assert.equal(hex(ke2), one.output('KE2'));
});
