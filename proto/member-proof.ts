/**
 * The proof by which somebody whom nobody knows shows a hub that a member of a group calls, and not which one:
 * signature by the commit key that an entry names for its children, over "qpc/member/1\0" || client SPKI hash ||
 * node SPKI hash || group || entry hash || issued (Unix ms, 8 bytes, big endian). It names this connection's
 * keys, as a guest's proof does (guest-proof.ts): read elsewhere, it is of no use there.
 */
import { guestProofMs, type GuestBinding } from './guest-proof.ts';
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';

/** What a member's proof covers; SPKI hashes are SHA-256, all but the time 32 bytes. */
export interface MemberBinding extends GuestBinding {
  readonly group: Uint8Array;
  /** Hash of the entry behind which the caller stands. */
  readonly entry: Uint8Array;
}

function bindingBytes(binding: MemberBinding): Uint8Array {
  const { clientSpki, nodeSpki, group, entry, issuedMs } = binding;
  const issued = Buffer.alloc(8);
  issued.writeBigUInt64BE(BigInt(issuedMs));
  return Buffer.concat([clientSpki, nodeSpki, group, entry, issued]);
}

/** 64 bytes. */
export function signMemberProof(binding: MemberBinding, commitKey: SigningKey): Uint8Array {
  return signStatement('qpc/member/1', bindingBytes(binding), commitKey);
}

/** False too for a proof that was not made within a day of `nowMs`. */
export function verifyMemberProof(
  binding: MemberBinding,
  signature: Uint8Array,
  commitPub: Uint8Array,
  nowMs: number,
): boolean {
  if (Math.abs(nowMs - binding.issuedMs) > guestProofMs) return false;
  return verifyStatement('qpc/member/1', bindingBytes(binding), signature, commitPub);
}
