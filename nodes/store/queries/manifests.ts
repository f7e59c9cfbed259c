/** A signed manifest as four columns of its account. */
import type { StoredManifest } from '../account-store.ts';

export interface ManifestColumns {
  readonly manifest: Uint8Array;
  readonly manifest_signature: Uint8Array;
  readonly ak_prev_signature: Uint8Array;
  readonly manifest_approval: Uint8Array;
}

/** For a SELECT of an account. */
export const manifestColumns = 'manifest, manifest_signature, ak_prev_signature, manifest_approval';

/** In the order of `manifestColumns`. */
export function toColumns({
  manifest,
  signature,
  akPrevSignature = new Uint8Array(),
  approval = new Uint8Array(),
}: StoredManifest): [Uint8Array, Uint8Array, Uint8Array, Uint8Array] {
  return [manifest, signature, akPrevSignature, approval];
}

export function fromColumns(row: ManifestColumns): StoredManifest {
  const { manifest, manifest_signature, ak_prev_signature, manifest_approval } = row;
  return {
    manifest,
    signature: manifest_signature,
    ...(ak_prev_signature.length > 0 && { akPrevSignature: ak_prev_signature }),
    ...(manifest_approval.length > 0 && { approval: manifest_approval }),
  };
}
