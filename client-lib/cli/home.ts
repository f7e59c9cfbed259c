/**
 * The directory of one device: the vault with the store's key and the store. Only its owner may
 * enter it. What is in the store is not known here.
 */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '@quicprochat/proto';
import { createKeyVault, openKeyVault } from '../crypto/key-vault.ts';
import type { AskPassphrase, Protection } from '../crypto/key-vault.ts';
import { CommandError, exitSetup, usage } from './failure.ts';

export class Home {
  readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  get vaultPath(): string {
    return join(this.directory, 'store.key');
  }

  get storePath(): string {
    return join(this.directory, 'store.db');
  }

  /** Whether a device lives here. Throws CommandError when others may enter the directory. */
  exists(): boolean {
    if (!existsSync(this.directory)) return false;
    const info = statSync(this.directory);
    if (!info.isDirectory()) {
      throw usage(`${this.directory}: is no directory; name another --home`);
    }
    if (process.platform !== 'win32' && (info.mode & 0o077) !== 0) {
      const mode = (info.mode & 0o777).toString(8);
      throw new CommandError(
        exitSetup,
        'FILE_PERMISSIONS',
        `${this.directory}: others may enter it (mode ${mode}); run: chmod 700 ${this.directory}`,
      );
    }
    if (existsSync(this.vaultPath)) return true;
    if (existsSync(this.storePath)) {
      // A fresh key would not open that store; making one would only hide what is missing.
      throw new CommandError(
        exitSetup,
        'FILE_MISSING',
        `${this.vaultPath}: is missing, and without it the store cannot be opened; put back a copy`,
      );
    }
    return false;
  }

  /** Key of the existing store (32 bytes), to be wiped by the caller. */
  async open(ask: AskPassphrase): Promise<Uint8Array> {
    return openKeyVault(this.vaultPath, ask);
  }

  /** Makes the directory and the vault; returns the key (32 bytes), to be wiped by the caller. */
  async create(protection: Protection, random: Random): Promise<Uint8Array> {
    try {
      mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    } catch (cause) {
      const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown';
      throw new CommandError(
        exitSetup,
        'FILE_UNUSABLE',
        `${this.directory}: cannot be made (${code}); name another --home`,
        { cause },
      );
    }
    return createKeyVault(this.vaultPath, protection, random);
  }
}
