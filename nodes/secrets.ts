/**
 * The secrets that a node holds, in the encrypted database: its TLS identity, its signing key, its
 * OPAQUE setup and the key of its users' pseudonyms. Made once by `qpcd init`.
 */
import { seedOf, signingKeyFromSeed, type Runtime, type SigningKey } from '@quicprochat/proto';
import { loadIdentity, makeIdentity, type NodeIdentity } from '@quicprochat/proto/transport';
import { OpaqueServer } from './opaque.ts';
import { SetupError } from './setup-error.ts';
import type { NodeStore } from './store/store.ts';

export interface NodeSecrets {
  readonly identity: NodeIdentity;
  /** Signs the node's record; apart from the TLS key. */
  readonly signing: SigningKey;
  readonly opaqueSetup: Uint8Array;
  readonly pseudonymKey: Uint8Array;
}

const names = {
  certificate: 'tls-certificate',
  privateKey: 'tls-private-key',
  signing: 'signing-seed',
  opaque: 'opaque-setup-1',
  pseudonym: 'pseudonym-key',
} as const;

/** Makes and stores all of them. Durable when it resolves. */
export async function createSecrets(store: NodeStore, runtime: Runtime): Promise<NodeSecrets> {
  const identity = await makeIdentity(runtime.random);
  const signing = signingKeyFromSeed(runtime.random.bytes(32));
  const opaqueSetup = await OpaqueServer.createSetup();
  const pseudonymKey = runtime.random.bytes(32);
  const text = new TextEncoder();
  await Promise.all([
    store.putSecret(names.certificate, text.encode(identity.certificatePem)),
    store.putSecret(names.privateKey, text.encode(identity.privateKeyPem)),
    store.putSecret(names.signing, seedOf(signing)),
    store.putSecret(names.opaque, opaqueSetup),
    store.putSecret(names.pseudonym, pseudonymKey),
  ]);
  return { identity, signing, opaqueSetup, pseudonymKey };
}

/** Throws SetupError when one is missing: the database is no node's. */
export async function loadSecrets(store: NodeStore): Promise<NodeSecrets> {
  const read = async (name: string): Promise<Uint8Array> => {
    const value = await store.secret(name);
    if (value === undefined) {
      throw new SetupError(`database: holds no ${name}; was it made by qpcd init?`);
    }
    return value;
  };
  const text = new TextDecoder();
  const seed = await read(names.signing);
  const signing = signingKeyFromSeed(seed);
  seed.fill(0);
  return {
    identity: loadIdentity(
      text.decode(await read(names.certificate)),
      text.decode(await read(names.privateKey)),
    ),
    signing,
    opaqueSetup: await read(names.opaque),
    pseudonymKey: await read(names.pseudonym),
  };
}
