/**
 * The Ed25519 key of a swarm: one for each device and node, apart from the identity key and the QUIC
 * transport key (docs/protocol/p2p.md). The secret never prints or serializes.
 */
import { inspect } from 'node:util';
import {
  InvalidArgumentError,
  seedOf,
  signingKeyFromSeed,
  type Random,
  type SigningKey,
} from '@quicprochat/proto';
import { peerIdOf, type PeerIdText } from './peer-id.ts';

export const swarmSeedBytes = 32;

export class SwarmKey {
  /** Raw Ed25519 public key (32 bytes). */
  readonly publicKey: Uint8Array;
  readonly peerId: PeerIdText;
  readonly #key: SigningKey;

  constructor(key: SigningKey) {
    this.publicKey = key.publicKey;
    this.peerId = peerIdOf(key.publicKey);
    this.#key = key;
  }

  /** The 32-byte seed: for sealed storage, and for the swarm itself. Secret; the caller wipes it. */
  seed(): Uint8Array {
    return seedOf(this.#key);
  }

  toJSON(): Record<string, string> {
    return { peerId: this.peerId, privateKey: '[secret]' };
  }

  [inspect.custom](): string {
    return `SwarmKey ${this.peerId}`;
  }
}

export function makeSwarmKey(random: Random): SwarmKey {
  const seed = random.bytes(swarmSeedBytes);
  try {
    return loadSwarmKey(seed);
  } finally {
    seed.fill(0);
  }
}

/** The key of a stored seed (32 bytes, copied). Throws InvalidArgumentError BAD_FIELD. */
export function loadSwarmKey(seed: Uint8Array): SwarmKey {
  if (seed.length !== swarmSeedBytes) {
    throw new InvalidArgumentError('BAD_FIELD', `swarm seed: ${seed.length} bytes, need 32`);
  }
  return new SwarmKey(signingKeyFromSeed(seed));
}
