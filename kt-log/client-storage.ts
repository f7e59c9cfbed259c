/**
 * What a log client keeps between runs: named blobs behind a small synchronous interface, each
 * guarded by a checksum, so that damage is told apart from a lying log. Browser-safe.
 */
import { DataLossError } from '@quicprochat/proto/status';
import type { Sha256 } from './hash.ts';
import { sameBytes } from './hash.ts';
import type { Structure } from './presentation.ts';
import { decode, encode } from './presentation.ts';
import { VerificationError } from './verification-error.ts';

/**
 * Where one client keeps what it knows of one log; like a table (log, key, blob) of its database.
 * Keys are short ASCII text. Blobs may be stored encrypted, they are not secret from their owner.
 */
export interface LogClientStore {
  get(key: string): Uint8Array | undefined;
  /** Applies all changes in ONE transaction, durable on return; undefined deletes. */
  save(changes: ReadonlyMap<string, Uint8Array | undefined>): void;
}

/** Blobs begin with this: a later layout takes the next number. */
const layout = 1;
const checksumBytes = 16;

/** `layout || checksum over key, 0, body || body`: a blob under another key does not pass either. */
function checksum(sha256: Sha256, key: string, body: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode(`${key}\0`);
  const input = new Uint8Array(name.length + body.length);
  input.set(name);
  input.set(body, name.length);
  return sha256(input).subarray(0, checksumBytes);
}

export function sealBlob<T>(
  sha256: Sha256,
  key: string,
  structure: Structure<T>,
  value: T,
): Uint8Array {
  const body = encode(structure, value);
  const blob = new Uint8Array(1 + checksumBytes + body.length);
  blob[0] = layout;
  blob.set(checksum(sha256, key, body), 1);
  blob.set(body, 1 + checksumBytes);
  return blob;
}

/** Throws DataLossError STORE_CHANGED for a blob that is not what was stored under this key. */
export function openBlob<T>(
  sha256: Sha256,
  key: string,
  structure: Structure<T>,
  blob: Uint8Array,
): T {
  const body = blob.slice(1 + checksumBytes);
  const isWhole =
    blob[0] === layout &&
    blob.length >= 1 + checksumBytes &&
    sameBytes(blob.subarray(1, 1 + checksumBytes), checksum(sha256, key, body));
  const [kind] = key.split('/');
  if (!isWhole) throw new DataLossError('STORE_CHANGED', `log client: ${kind} state is damaged`);
  try {
    return decode(structure, body);
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
    const message = `log client: ${kind} state does not decode`;
    throw new DataLossError('STORE_CHANGED', message, { cause: error });
  }
}
