/**
 * The key of the device store (32 random bytes) in a file: wrapped by AES-256-GCM under a
 * passphrase (argon2id), or plain for machines without a person. The passphrase is its own and
 * never the account's password: guessing at a stolen file must not become taking over the account.
 *
 * Version 1 is one line of JSON with these members in this order, byte strings in base64url:
 * {"format":"qpc-key-vault","version":1,"protection":"passphrase","salt","nonce","wrapped"} or
 * {"format":"qpc-key-vault","version":1,"protection":"none","key","check"}.
 */
import { hash } from 'node:crypto';
import { QpcError, Status } from '@quicprochat/proto';
import type { Random } from '@quicprochat/proto';
import { aesGcmNonceLength, aesGcmOpen, aesGcmSeal, aesGcmTagLength } from './aes-gcm.ts';
import { argon2SaltLength, preferredArgon2id } from './argon2.ts';
import { DecryptionError } from './decryption-error.ts';
import { concat } from './octets.ts';
import { canonicalPassword } from './password.ts';
import { createPrivateFile, readPrivateFile, replacePrivateFile } from './private-file.ts';

/** Size of the store key (bytes). */
export const storeKeyLength = 32;
const checkLength = 8;
const vaultBytesMax = 4096;
const context = new TextEncoder().encode('qpc/key-vault/1\0');

/** How the key lies on disk. `none` says it plainly: who can read the file has the key. */
export type Protection =
  | { readonly kind: 'passphrase'; readonly passphrase: Uint8Array }
  | { readonly kind: 'none' };

/** Called when a vault needs its passphrase (UTF-8); the vault wipes what it returns. */
export type AskPassphrase = () => Promise<Uint8Array>;

/**
 * VAULT_FORMAT: the file is no vault of this version, or damaged. VAULT_PASSPHRASE: wrong
 * passphrase, or a damaged file; the two cannot be told apart.
 */
export class KeyVaultError extends QpcError {
  override name = 'KeyVaultError';
  constructor(
    reason: 'VAULT_FORMAT' | 'VAULT_PASSPHRASE',
    message: string,
    options?: { readonly cause?: unknown },
  ) {
    super(Status.FailedPrecondition, reason, message, options);
  }
}

type Vault =
  | {
      readonly protection: 'passphrase';
      readonly salt: Uint8Array;
      readonly nonce: Uint8Array;
      readonly wrapped: Uint8Array;
    }
  | { readonly protection: 'none'; readonly key: Uint8Array; readonly check: Uint8Array };

/**
 * Makes a vault with a fresh store key and returns the key (32 bytes), which the caller wipes.
 * Durable on return. Throws PrivateFileError FILE_EXISTS and never replaces a vault: its key is
 * the only way into the store.
 */
export async function createKeyVault(
  path: string,
  protection: Protection,
  random: Random,
): Promise<Uint8Array> {
  const key = random.bytes(storeKeyLength);
  createPrivateFile(path, encode(await wrap(key, protection, random)), random);
  return key;
}

/**
 * The store key (32 bytes), which the caller wipes. Throws PrivateFileError (missing, others may
 * read it), KeyVaultError VAULT_FORMAT or VAULT_PASSPHRASE.
 */
export async function openKeyVault(path: string, ask: AskPassphrase): Promise<Uint8Array> {
  const vault = decode(path, readPrivateFile(path, vaultBytesMax));
  if (vault.protection === 'none') return vault.key;
  return unwrap(path, vault, await ask());
}

/**
 * Wraps the same store key anew. Durable on return; a crash leaves the old file or the new one.
 * Throws what `openKeyVault` throws.
 */
export async function rewrapKeyVault(
  path: string,
  ask: AskPassphrase,
  protection: Protection,
  random: Random,
): Promise<void> {
  const key = await openKeyVault(path, ask);
  try {
    replacePrivateFile(path, encode(await wrap(key, protection, random)), random);
  } finally {
    key.fill(0);
  }
}

async function wrap(key: Uint8Array, protection: Protection, random: Random): Promise<Vault> {
  if (protection.kind === 'none') return { protection: 'none', key, check: checkOf(key) };
  const salt = random.bytes(argon2SaltLength);
  const nonce = random.bytes(aesGcmNonceLength);
  const wrapping = await wrappingKey(protection.passphrase, salt);
  const wrapped = aesGcmSeal(wrapping, nonce, concat(context, salt), key);
  wrapping.fill(0);
  return { protection: 'passphrase', salt, nonce, wrapped };
}

async function unwrap(
  path: string,
  vault: Vault & { readonly protection: 'passphrase' },
  passphrase: Uint8Array,
): Promise<Uint8Array> {
  const wrapping = await wrappingKey(passphrase, vault.salt).finally(() => passphrase.fill(0));
  try {
    return aesGcmOpen(wrapping, vault.nonce, concat(context, vault.salt), vault.wrapped);
  } catch (cause) {
    if (!(cause instanceof DecryptionError)) throw cause;
    throw new KeyVaultError('VAULT_PASSPHRASE', `${path}: wrong passphrase, or a damaged file`, {
      cause,
    });
  } finally {
    wrapping.fill(0);
  }
}

async function wrappingKey(passphrase: Uint8Array, salt: Uint8Array): Promise<Uint8Array> {
  const canonical = canonicalPassword(passphrase);
  return preferredArgon2id()(canonical, salt).finally(() => canonical.fill(0));
}

/** Tells a damaged plain key from a right one before it meets a store. */
function checkOf(key: Uint8Array): Uint8Array {
  return Uint8Array.from(hash('sha256', concat(context, key), 'buffer').subarray(0, checkLength));
}

function encode(vault: Vault): Uint8Array {
  const fields = Object.fromEntries(
    Object.entries(vault).map(([name, value]) => [
      name,
      typeof value === 'string' ? value : text(value),
    ]),
  );
  const line = JSON.stringify({ format: 'qpc-key-vault', version: 1, ...fields });
  return new TextEncoder().encode(`${line}\n`);
}

/** Accepts exactly what `encode` writes, byte for byte. */
function decode(path: string, bytes: Uint8Array): Vault {
  const fields = parsed(path, bytes);
  if (fields.get('format') !== 'qpc-key-vault') throw bad(path, 'is no qpc key vault');
  if (fields.get('version') !== 1) {
    throw bad(path, 'has a version that this program does not know: use a newer qpc');
  }
  const field = (name: string, length: number): Uint8Array => {
    const value = fields.get(name);
    const decoded = Uint8Array.from(
      Buffer.from(typeof value === 'string' ? value : '', 'base64url'),
    );
    if (decoded.length !== length) throw damaged(path);
    return decoded;
  };
  const vault: Vault =
    fields.get('protection') === 'none'
      ? {
          protection: 'none',
          key: field('key', storeKeyLength),
          check: field('check', checkLength),
        }
      : {
          protection: 'passphrase',
          salt: field('salt', argon2SaltLength),
          nonce: field('nonce', aesGcmNonceLength),
          wrapped: field('wrapped', storeKeyLength + aesGcmTagLength),
        };
  if (Buffer.compare(encode(vault), bytes) !== 0) throw damaged(path);
  if (vault.protection === 'none' && Buffer.compare(vault.check, checkOf(vault.key)) !== 0) {
    throw damaged(path);
  }
  return vault;
}

function parsed(path: string, bytes: Uint8Array): ReadonlyMap<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    // The cause stays out on purpose: JSON's errors quote the text, which may be a key.
    throw bad(path, 'is no qpc key vault');
  }
  if (typeof value !== 'object' || value === null) throw bad(path, 'is no qpc key vault');
  return new Map<string, unknown>(Object.entries(value));
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64url');
}

function damaged(path: string): KeyVaultError {
  return bad(path, 'is damaged: put back a copy, without it the store cannot be opened');
}

function bad(path: string, what: string): KeyVaultError {
  return new KeyVaultError('VAULT_FORMAT', `${path}: ${what}`);
}
