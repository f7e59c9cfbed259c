/**
 * The way to a delivery token from an earlier one (docs/protocol/delivery.md, "A token that was replaced"): its device
 * leaves it at its node, sealed for each device that may have it, and a sender whose copies are refused reads it
 * there. Sealed under what two devices have in common anyway: X25519 of their identity keys, the Ed25519 keys of
 * RFC 8032 taken to curve25519 (RFC 7748, section 4.1). Nobody else can tell whom an entry is for.
 */
import type { KeyObject } from 'node:crypto';
import { ed25519 } from '@noble/curves/ed25519.js';
import {
  deliveryTokenHash,
  hex,
  maxRenewalsBytes,
  renewalBytes,
  sameBytes,
  seedOf,
  type SigningKey,
} from '@quicprochat/proto';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal } from '../crypto/aes-gcm.ts';
import { DecryptionError } from '../crypto/decryption-error.ts';
import { hkdfExpand, hkdfExtract } from '../crypto/hkdf.ts';
import { x25519, x25519PrivateKey, x25519PublicKey } from '../crypto/x25519.ts';

export const renewalLimits = {
  /** Devices that a token is sealed for; the number is filled up to a power of two, and to this at least. */
  devices: maxRenewalsBytes / renewalBytes,
  devicesShown: 64,
  /** Devices whose common secret with this one is at hand. */
  secrets: 2_048,
} as const;

const nameBytes = 16;
// Each key seals one token.
const nonce = new Uint8Array(aesGcmNonceLength);
const none = new Uint8Array(0);

export class TokenRenewals {
  readonly #rid: Uint8Array;
  readonly #seed: Uint8Array;
  readonly #privateKey: KeyObject;
  /** By hex of rid, in the order of their making. */
  readonly #secrets = new Map<string, Uint8Array>();

  /** Of a device with this identity key, whose public half (32 bytes) is its `rid`. */
  constructor(identityKey: SigningKey, rid: Uint8Array) {
    this.#rid = rid;
    this.#seed = seedOf(identityKey);
    // RFC 8032, section 5.1.5: its scalar.
    this.#privateKey = x25519PrivateKey(ed25519.utils.toMontgomerySecret(this.#seed));
  }

  /** The own token (16 bytes) for these devices (32 bytes each), those beyond the limit left out; the same for the same. */
  seal(token: Uint8Array, rids: readonly Uint8Array[]): Uint8Array {
    const hash = deliveryTokenHash(token);
    const entries = rids.slice(0, renewalLimits.devices).flatMap((rid) => {
      const keys = this.#keys(hash, this.#rid, rid, rid);
      return keys === undefined
        ? []
        : [Buffer.concat([keys.name, aesGcmSeal(keys.key, nonce, none, token)])];
    });
    let shown: number = renewalLimits.devicesShown;
    while (shown < entries.length) shown *= 2;
    const filling = hkdfExtract('sha256', hash, this.#seed);
    for (let index = entries.length; index < shown; index += 1) {
      const info = Buffer.from(`qpc token renewal, filling ${index}`);
      entries.push(Buffer.from(hkdfExpand('sha256', filling, info, renewalBytes)));
    }
    return new Uint8Array(Buffer.concat(entries.toSorted((a, b) => Buffer.compare(a, b))));
  }

  /** The token of device `from` that has this hash, if it is among these for this device. */
  open(from: Uint8Array, hash: Uint8Array, renewals: Uint8Array): Uint8Array | undefined {
    const keys = this.#keys(hash, from, this.#rid, from);
    if (keys === undefined) return undefined;
    for (let at = 0; at + renewalBytes <= renewals.length; at += renewalBytes) {
      const entry = renewals.subarray(at, at + renewalBytes);
      if (!sameBytes(entry.subarray(0, nameBytes), keys.name)) continue;
      try {
        const token = aesGcmOpen(keys.key, nonce, none, entry.subarray(nameBytes));
        return sameBytes(deliveryTokenHash(token), hash) ? token : undefined;
      } catch (error) {
        if (!(error instanceof DecryptionError)) throw error;
        return undefined;
      }
    }
    return undefined;
  }

  /** Name and key of the entry by `from` for `to`, one of them `other`; undefined where that is no key of a device. */
  #keys(
    hash: Uint8Array,
    from: Uint8Array,
    to: Uint8Array,
    other: Uint8Array,
  ): { readonly name: Uint8Array; readonly key: Uint8Array } | undefined {
    const secret = this.#secretWith(other);
    if (secret === undefined) return undefined;
    const info = Buffer.concat([Buffer.from('qpc token renewal'), from, to]);
    const prk = hkdfExtract('sha256', hash, secret);
    const out = hkdfExpand('sha256', prk, info, nameBytes + 32);
    return { name: out.subarray(0, nameBytes), key: out.subarray(nameBytes) };
  }

  #secretWith(rid: Uint8Array): Uint8Array | undefined {
    const name = hex(rid);
    let secret = this.#secrets.get(name);
    if (secret !== undefined) return secret;
    const u = montgomeryOf(rid);
    if (u === undefined) return undefined;
    try {
      secret = x25519(this.#privateKey, x25519PublicKey(u));
    } catch (error) {
      // Of small order: nobody's key.
      if (!(error instanceof DecryptionError)) throw error;
      return undefined;
    }
    this.#secrets.set(name, secret);
    for (const oldest of this.#secrets.keys()) {
      if (this.#secrets.size <= renewalLimits.secrets) break;
      this.#secrets.delete(oldest);
    }
    return secret;
  }
}

/** Of public keys only, so time tells nothing. Undefined for what is no point of the curve, or has no u. */
function montgomeryOf(publicKey: Uint8Array): Uint8Array | undefined {
  try {
    return ed25519.utils.toMontgomery(publicKey);
  } catch {
    return undefined;
  }
}
