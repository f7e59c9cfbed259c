/**
 * The secrets that a node holds, in the encrypted database: its TLS identity, its signing key, its
 * OPAQUE setup, the key of its users' pseudonyms, the keys of its key-transparency log and of its
 * cosignatures on the logs of others, and the key of its swarm. Made once by `qpcd init`.
 */
import { hkdfSync } from 'node:crypto';
import { nativeSigner, type Signer } from '@quicprochat/kt-log';
import { loadSwarmKey, type SwarmKey } from '@quicprochat/p2p';
import type { NodeRecordKey, Random, Runtime, SigningKey } from '@quicprochat/proto';
import type { NodeIdentity } from '@quicprochat/proto/transport';
import { createNodeKeys, loadNodeKeys, type NodeKeys } from './node-keys.ts';
import { OpaqueServer } from './opaque.ts';
import { SetupError } from './setup-error.ts';
import type { NodeStore } from './store/store.ts';

/** Ed25519 keys, each for one kind of statement only (kt-log/README.md). */
export interface KeyLogSecrets {
  /** Signs the TreeHeads of the node's log. */
  readonly treeHead: Signer;
  /** Signs its checkpoints and audit bundles. */
  readonly note: Signer;
  /** Seed of the VRF key (32 bytes). It never changes: another one is another log. */
  readonly vrfSeed: Uint8Array;
  /** Cosigns checkpoints of peers that only grew. */
  readonly witness: Signer;
  /** Cosigns checkpoints of peers whose every entry was replayed. */
  readonly auditor: Signer;
}

export interface NodeSecrets {
  readonly identity: NodeIdentity;
  /** Signs the node's record and delivery proofs; apart from the TLS key. */
  readonly signing: SigningKey;
  /** Keys of the node's record: these, and during a rotation the next ones beside them. */
  readonly recordKeys: readonly NodeRecordKey[];
  /** Keys that are in no record any more and sign it still. */
  readonly formerSigners: readonly SigningKey[];
  /** Signing keys that were given up (32 bytes each): what this node certified with them counts. */
  readonly formerSignPubs: readonly Uint8Array[];
  readonly opaqueSetup: Uint8Array;
  readonly pseudonymKey: Uint8Array;
  /** Proves to this node what it said of its store (32 bytes); older copies of the store have it. */
  readonly storeMarkKey: Uint8Array;
  readonly keyLog: KeyLogSecrets;
  /** Key of its libp2p swarm; the swarm's process gets it and no other. */
  readonly swarm: SwarmKey;
}

const names = {
  opaque: 'opaque-setup-1',
  pseudonym: 'pseudonym-key',
  swarm: 'swarm-seed',
} as const;

const keyLogNames = {
  treeHead: 'kt-tree-head-seed',
  note: 'kt-note-seed',
  vrf: 'kt-vrf-seed',
  witness: 'kt-witness-seed',
  auditor: 'kt-auditor-seed',
} as const;

/** Makes and stores all of them. Durable when it resolves. */
export async function createSecrets(store: NodeStore, runtime: Runtime): Promise<NodeSecrets> {
  const { random } = runtime;
  const keys = await createNodeKeys(store, random);
  const opaqueSetup = await OpaqueServer.createSetup();
  const pseudonymKey = random.bytes(32);
  const [keyLog, swarm] = await Promise.all([
    keyLogSecrets(store, random),
    swarmSecret(store, random),
    store.putSecret(names.opaque, opaqueSetup),
    store.putSecret(names.pseudonym, pseudonymKey),
  ]);
  const storeMarkKey = storeMarkKeyOf(pseudonymKey);
  return { ...inUse(keys), opaqueSetup, pseudonymKey, storeMarkKey, keyLog, swarm };
}

/**
 * Reads all of them; the keys of the log are made when the database is older than they are. Throws
 * SetupError when one is missing: the database is no node's.
 */
export async function loadSecrets(store: NodeStore, random: Random): Promise<NodeSecrets> {
  const read = async (name: string): Promise<Uint8Array> => {
    const value = await store.secret(name);
    if (value === undefined) {
      throw new SetupError(`database: holds no ${name}; was it made by qpcd init?`);
    }
    return value;
  };
  const keys = await loadNodeKeys(store);
  const pseudonymKey = await read(names.pseudonym);
  return {
    ...inUse(keys),
    opaqueSetup: await read(names.opaque),
    pseudonymKey,
    storeMarkKey: storeMarkKeyOf(pseudonymKey),
    keyLog: await keyLogSecrets(store, random),
    swarm: await swarmSecret(store, random),
  };
}

function inUse({
  current,
  record,
  former,
  formerSignPubs,
}: NodeKeys): Pick<
  NodeSecrets,
  'identity' | 'signing' | 'recordKeys' | 'formerSigners' | 'formerSignPubs'
> {
  return { ...current, recordKeys: record, formerSigners: former, formerSignPubs };
}

/** Derived, so that every copy of a database has it, however old. */
function storeMarkKeyOf(pseudonymKey: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', pseudonymKey, '', 'qpc store mark', 32));
}

/** Made when the database is older than it: nothing is lost with the peer id before. */
async function swarmSecret(store: NodeStore, random: Random): Promise<SwarmKey> {
  const known = await store.secret(names.swarm);
  const seed = known ?? random.bytes(32);
  if (known === undefined) await store.putSecret(names.swarm, seed);
  const key = loadSwarmKey(seed);
  seed.fill(0);
  return key;
}

/** A log whose keys are gone must not get new ones unseen: its Configuration names the old ones. */
async function keyLogSecrets(store: NodeStore, random: Random): Promise<KeyLogSecrets> {
  const seedNamed = async (name: string): Promise<Uint8Array> => {
    const known = await store.secret(name);
    if (known !== undefined) return known;
    const seed = random.bytes(32);
    await store.putSecret(name, seed);
    return seed;
  };
  const signerNamed = async (name: string): Promise<Signer> => {
    const seed = await seedNamed(name);
    const signer = nativeSigner(seed);
    seed.fill(0);
    return signer;
  };
  return {
    treeHead: await signerNamed(keyLogNames.treeHead),
    note: await signerNamed(keyLogNames.note),
    vrfSeed: await seedNamed(keyLogNames.vrf),
    witness: await signerNamed(keyLogNames.witness),
    auditor: await signerNamed(keyLogNames.auditor),
  };
}
