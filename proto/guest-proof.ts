/**
 * The proof by which a device of another node shows that a connection is its own: signature over
 * "qpc/guest/1\0" || client SPKI hash || node SPKI hash || issued (Unix ms, 8 bytes, big endian). It names
 * this connection's keys, so whoever it is shown to can show it to nobody else. That the device is
 * somebody's, it does not say.
 */
import { signStatement, verifyStatement, type SigningKey } from './signature.ts';

/** Clocks of a device and a node may differ by this much (ms). */
export const guestProofMs = 24 * 3_600_000;

/** What a guest's proof covers; hashes are SHA-256 (32 bytes each). */
export interface GuestBinding {
  readonly clientSpki: Uint8Array;
  readonly nodeSpki: Uint8Array;
  readonly issuedMs: number;
}

function bindingBytes({ clientSpki, nodeSpki, issuedMs }: GuestBinding): Uint8Array {
  const issued = Buffer.alloc(8);
  issued.writeBigUInt64BE(BigInt(issuedMs));
  return Buffer.concat([clientSpki, nodeSpki, issued]);
}

/** 64 bytes. */
export function signGuestProof(binding: GuestBinding, identityKey: SigningKey): Uint8Array {
  return signStatement('qpc/guest/1', bindingBytes(binding), identityKey);
}

/** False too for a proof that was not made within a day of `nowMs`. */
export function verifyGuestProof(
  binding: GuestBinding,
  proof: Uint8Array,
  identityPub: Uint8Array,
  nowMs: number,
): boolean {
  if (Math.abs(nowMs - binding.issuedMs) > guestProofMs) return false;
  return verifyStatement('qpc/guest/1', bindingBytes(binding), proof, identityPub);
}
