/**
 * Argon2id (RFC 9106) with the one parameter set of key vaults: 3 passes over 64 MiB in 4 lanes,
 * 32 bytes out. OpenSSL's where Node has it (24.7 and later, 0.1 s in the thread pool), noble's
 * otherwise (0.8 s in this thread, in slices).
 */
import * as crypto from 'node:crypto';
import { argon2idAsync } from '@noble/hashes/argon2.js';
import { octets, plain } from './octets.ts';

export const argon2SaltLength = 16;
const passes = 3;
const memoryKib = 65_536;
const lanes = 4;
const outputLength = 32;

/** 32 bytes of a password and a salt (16 bytes). Wipes neither. */
export type Argon2id = (password: Uint8Array, salt: Uint8Array) => Promise<Uint8Array>;

export const nobleArgon2id: Argon2id = async (password, salt) => {
  octets(salt, argon2SaltLength, 'salt');
  return argon2idAsync(password, salt, {
    t: passes,
    m: memoryKib,
    p: lanes,
    dkLen: outputLength,
  });
};

export const opensslArgon2id: Argon2id = async (password, salt) => {
  octets(salt, argon2SaltLength, 'salt');
  const parameters = {
    message: password,
    nonce: salt,
    parallelism: lanes,
    tagLength: outputLength,
    memory: memoryKib,
    passes,
  };
  return new Promise((resolve, reject) => {
    crypto.argon2('argon2id', parameters, (error, key) => {
      if (error === null) resolve(plain(key));
      else reject(error);
    });
  });
};

/** Whether this Node has Argon2; its types say always. */
export function hasOpensslArgon2(): boolean {
  return typeof crypto.argon2 === 'function';
}

/** The faster engine that is here. Both give the same bytes. */
export function preferredArgon2id(): Argon2id {
  return hasOpensslArgon2() ? opensslArgon2id : nobleArgon2id;
}
