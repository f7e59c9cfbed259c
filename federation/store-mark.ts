/**
 * Marks of a store as nodes tell them to each other, so that whoever was restored from an older copy
 * learns it from the others (docs/protocol/federation.md). The proof keeps a peer from claiming that
 * it remembers what was never said: only this node's own words make it renew its store's id.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { ProvenMark, StoreMark } from './store.ts';

export const proofBytes = 16;
const storeIdBytes = 8;

/** The three fields of a mark on the wire. */
export interface WireMark {
  readonly storeId: Uint8Array;
  readonly counter: bigint;
  readonly proof: Uint8Array;
}

/** Makes and knows the marks of one node. */
export class StoreMarks {
  readonly #key: Uint8Array;

  /** `key`: 32 bytes that stay the same in every copy of the store, and that no peer knows. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  prove({ storeId, commits }: StoreMark): ProvenMark {
    return { storeId, commits, proof: this.#proofOf(storeId, commits) };
  }

  /** True for a mark that this node said once. */
  isOwn({ storeId, commits, proof }: ProvenMark): boolean {
    return timingSafeEqual(proof, this.#proofOf(storeId, commits));
  }

  #proofOf(storeId: Uint8Array, commits: number): Uint8Array {
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(BigInt(commits));
    const mac = createHmac('sha256', this.#key).update('qpc/store-mark\0');
    return new Uint8Array(mac.update(storeId).update(counter).digest().subarray(0, proofBytes));
  }
}

export function markToWire({ storeId, commits, proof }: ProvenMark): WireMark {
  return { storeId, counter: BigInt(commits), proof };
}

/** Undefined when there is none, or when it is none: exact lengths, a number below 2^53. */
export function markFromWire({ storeId, counter, proof }: WireMark): ProvenMark | undefined {
  const isSound =
    storeId.length === storeIdBytes &&
    proof.length === proofBytes &&
    counter <= BigInt(Number.MAX_SAFE_INTEGER);
  return isSound ? { storeId, commits: Number(counter), proof } : undefined;
}
