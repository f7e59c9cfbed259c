/**
 * The keys by which others know this node, in generations: a TLS key with a signing key beside it.
 * A rotation is prepared (both generations stand in the node's record, which both sign), and finished
 * no earlier than seven days later (the newer one alone is used). docs/operator/federation.md
 */
import {
  InvalidArgumentError,
  nodeRecordLimits,
  seedOf,
  signingKeyFromSeed,
  type NodeRecordKey,
  type Random,
  type SigningKey,
} from '@quicprochat/proto';
import { loadIdentity, makeIdentity, type NodeIdentity } from '@quicprochat/proto/transport';
import { SetupError } from './setup-error.ts';
import type { NodeStore } from './store/store.ts';

/** How long both generations are valid before the older one may go (ms). */
export const rotationMs = 7 * 24 * 3_600_000;

/** One TLS key with its signing key. */
export interface KeyPair {
  readonly identity: NodeIdentity;
  readonly signing: SigningKey;
}

export interface NodeKeys {
  /** What the node uses now. */
  readonly current: KeyPair;
  /** What it will use, once the rotation is finished. */
  readonly next: KeyPair | undefined;
  /** When that was prepared (Unix ms). */
  readonly preparedMs: number;
  /** All that stand in the node's record. */
  readonly record: readonly NodeRecordKey[];
  /** The generation before sees to it that whoever was away still believes the record. */
  readonly former: readonly SigningKey[];
  /** Signing keys of all generations before (32 bytes each, newest first, at most 8): what they certified counts. */
  readonly formerSignPubs: readonly Uint8Array[];
  /** Number of the current generation, from 1. */
  readonly generation: number;
}

const firstNames = {
  certificate: 'tls-certificate',
  privateKey: 'tls-private-key',
  signing: 'signing-seed',
} as const;
const pairName = (generation: number): string => `node-keys-${generation}`;
const preparedName = (generation: number): string => `node-keys-${generation}-prepared`;
const finishedName = (generation: number): string => `node-keys-${generation}-finished`;

/** Makes and stores the first generation. Durable when it resolves. */
export async function createNodeKeys(store: NodeStore, random: Random): Promise<NodeKeys> {
  const identity = await makeIdentity(random);
  const signing = signingKeyFromSeed(random.bytes(32));
  const text = new TextEncoder();
  await Promise.all([
    store.putSecret(firstNames.certificate, text.encode(identity.certificatePem)),
    store.putSecret(firstNames.privateKey, text.encode(identity.privateKeyPem)),
    store.putSecret(firstNames.signing, seedOf(signing)),
  ]);
  return keysOf({ identity, signing }, undefined, 0, [], 1);
}

/** Throws SetupError when one is missing: the database is no node's. */
export async function loadNodeKeys(store: NodeStore): Promise<NodeKeys> {
  let current = await firstPair(store);
  const former: SigningKey[] = [];
  for (let generation = 1; ; generation += 1) {
    const preparedMs = await timeOf(store, preparedName(generation + 1));
    if (preparedMs === undefined) return keysOf(current, undefined, 0, former, generation);
    const next = await laterPair(store, generation + 1);
    if ((await timeOf(store, finishedName(generation + 1))) === undefined) {
      return keysOf(current, next, preparedMs, former, generation);
    }
    former.unshift(current.signing);
    current = next;
  }
}

/** Makes the next generation. Throws InvalidArgumentError BAD_FIELD when one waits already. */
export async function prepareRotation(
  store: NodeStore,
  random: Random,
  nowMs: number,
): Promise<NodeKeys> {
  const { next, generation } = await loadNodeKeys(store);
  if (next !== undefined) {
    throw new InvalidArgumentError('BAD_FIELD', 'a rotation is prepared already; finish it first');
  }
  const name = pairName(generation + 1);
  // A crash may have left a pair that was never announced: it is as good as a new one.
  if ((await store.secret(name)) === undefined) {
    const { certificatePem, privateKeyPem } = await makeIdentity(random);
    const seed = Buffer.from(random.bytes(32)).toString('base64');
    const pair = JSON.stringify({ certificatePem, privateKeyPem, seed });
    await store.putSecret(name, new TextEncoder().encode(pair));
  }
  await store.putSecret(preparedName(generation + 1), timeBytes(nowMs));
  return loadNodeKeys(store);
}

/**
 * From now on the next generation is used alone. Throws InvalidArgumentError BAD_FIELD when none is
 * prepared, or not for seven days yet and `isForced` is not set.
 */
export async function finishRotation(
  store: NodeStore,
  nowMs: number,
  isForced = false,
): Promise<NodeKeys> {
  const { next, preparedMs, generation } = await loadNodeKeys(store);
  if (next === undefined) {
    throw new InvalidArgumentError('BAD_FIELD', 'no rotation is prepared; begin with prepare');
  }
  const leftMs = preparedMs + rotationMs - nowMs;
  if (leftMs > 0 && !isForced) {
    const hours = Math.ceil(leftMs / 3_600_000);
    const message =
      `prepared for less than 7 days, ${hours} h are left: a peer or client that has not seen ` +
      `the new key by then is locked out (--now does it all the same)`;
    throw new InvalidArgumentError('BAD_FIELD', message);
  }
  await store.putSecret(finishedName(generation + 1), timeBytes(nowMs));
  return loadNodeKeys(store);
}

function keysOf(
  current: KeyPair,
  next: KeyPair | undefined,
  preparedMs: number,
  former: readonly SigningKey[],
  generation: number,
): NodeKeys {
  const inRecord = ({ identity, signing }: KeyPair, fromMs: number): NodeRecordKey => ({
    spkiSha256: identity.spkiSha256,
    signing,
    fromMs,
    toMs: 0,
  });
  return {
    current,
    next,
    preparedMs,
    record: [inRecord(current, 0), ...(next === undefined ? [] : [inRecord(next, preparedMs)])],
    former: former.slice(0, 1),
    formerSignPubs: former.slice(0, nodeRecordLimits.formerKeys).map(({ publicKey }) => publicKey),
    generation,
  };
}

async function firstPair(store: NodeStore): Promise<KeyPair> {
  const text = new TextDecoder();
  const certificate = text.decode(await secretNamed(store, firstNames.certificate));
  const privateKey = text.decode(await secretNamed(store, firstNames.privateKey));
  const seed = await secretNamed(store, firstNames.signing);
  const signing = signingKeyFromSeed(seed);
  seed.fill(0);
  return { identity: loadIdentity(certificate, privateKey), signing };
}

async function laterPair(store: NodeStore, generation: number): Promise<KeyPair> {
  const bytes = await secretNamed(store, pairName(generation));
  // Written by prepareRotation.
  const pair = JSON.parse(new TextDecoder().decode(bytes)) as {
    readonly certificatePem: string;
    readonly privateKeyPem: string;
    readonly seed: string;
  };
  const seed = Buffer.from(pair.seed, 'base64');
  const signing = signingKeyFromSeed(seed);
  seed.fill(0);
  return { identity: loadIdentity(pair.certificatePem, pair.privateKeyPem), signing };
}

async function secretNamed(store: NodeStore, name: string): Promise<Uint8Array> {
  const value = await store.secret(name);
  if (value !== undefined) return value;
  throw new SetupError(`database: holds no ${name}; was it made by qpcd init?`);
}

function timeBytes(ms: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(ms));
  return new Uint8Array(bytes);
}

async function timeOf(store: NodeStore, name: string): Promise<number | undefined> {
  const bytes = await store.secret(name);
  return bytes === undefined ? undefined : Number(Buffer.from(bytes).readBigUInt64BE());
}
