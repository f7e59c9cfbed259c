/**
 * Delivery proof: what a node signs when it says OK to an Enqueue, that a third party can check
 * with the node's record alone. Signed (Ed25519, a `sign` key of the NodeRecord):
 * `"qpc/stored/1" || 0x00 || mid || tag || target || received_ms`, where `target` is
 * `0x01 || rid || length of domain (u8) || domain` for the inbox of a device, and `0x02 || cid` for
 * a channel; received_ms is a big-endian u64. Knows neither stores nor records.
 */
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';
import { InvalidArgumentError } from './status.ts';
import { midBytes, tagBytes } from './tag.ts';

/** Where the node put the message, or promised to relay it to. */
export type StoredTarget =
  | { readonly rid: Uint8Array; readonly domain: string }
  | { readonly cid: Uint8Array };

/** What a delivery proof says. */
export interface StoredStatement {
  /** 16 bytes. */
  readonly mid: Uint8Array;
  /** 16 bytes (`messageTag`). */
  readonly tag: Uint8Array;
  readonly target: StoredTarget;
  /** Unix ms by the node's clock: of the first time, also for a repeat. */
  readonly receivedMs: number;
}

const targetKinds = { inbox: 1, channel: 2 } as const;
const keyBytes = 32;

/** The signed bytes behind the prefix. Throws InvalidArgumentError BAD_FIELD on a wrong length. */
export function storedBytes({ mid, tag, target, receivedMs }: StoredStatement): Uint8Array {
  need(mid, midBytes, 'mid');
  need(tag, tagBytes, 'tag');
  const received = Buffer.alloc(8);
  received.writeBigUInt64BE(BigInt(receivedMs));
  return Buffer.concat([mid, tag, targetBytes(target), received]);
}

function targetBytes(target: StoredTarget): Uint8Array {
  if ('cid' in target) {
    need(target.cid, keyBytes, 'cid');
    return Buffer.concat([Buffer.of(targetKinds.channel), target.cid]);
  }
  need(target.rid, keyBytes, 'rid');
  const domain = Buffer.from(target.domain);
  if (domain.length > 0xff) {
    throw new InvalidArgumentError('BAD_FIELD', `domain: ${domain.length} bytes, at most 255`);
  }
  const head = [Buffer.of(targetKinds.inbox), target.rid, Buffer.of(domain.length), domain];
  return Buffer.concat(head);
}

/** Signs a statement (64 bytes). Throws InvalidArgumentError BAD_FIELD on a wrong length. */
export function signDeliveryProof(statement: StoredStatement, key: SigningKey): Uint8Array {
  return signStatement('qpc/stored/1', storedBytes(statement), key);
}

/** True when one of the node's signing keys (32 bytes each) signed the statement. */
export function verifyDeliveryProof(
  statement: StoredStatement,
  proof: Uint8Array,
  signKeys: readonly Uint8Array[],
): boolean {
  const bytes = storedBytes(statement);
  return signKeys.some((key) => verifyStatement('qpc/stored/1', bytes, proof, key));
}

function need(value: Uint8Array, length: number, name: string): void {
  if (value.length !== length) {
    throw new InvalidArgumentError('BAD_FIELD', `${name}: ${value.length} bytes, need ${length}`);
  }
}
