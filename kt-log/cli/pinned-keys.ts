/**
 * Which keys a log is judged by: those a person names, else those that were pinned before, else those
 * that the source states the first time. A source that states others later is refused.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fromBase64, toBase64 } from '../base64.ts';
import { configuration } from '../codec.ts';
import { sameBytes } from '../hash.ts';
import type { StatedKeys } from '../log-source.ts';
import { keysOfRecord } from '../mirror.ts';
import { nativeSha256 } from '../native-hash.ts';
import type { NoteKey } from '../note.ts';
import { formatVkey, parseVkey } from '../note.ts';
import { decode, encode } from '../presentation.ts';
import { verify, VerificationError } from '../verification-error.ts';
import { makeDirectory, readIfThere, writeDurably } from './durable-file.ts';
import { UsageError } from './usage.ts';

/** How the keys came to be trusted. */
export type PinnedBy = 'vkey' | 'state' | 'first use';

export interface PinnedKeys extends StatedKeys {
  readonly pinnedBy: PinnedBy;
}

/** Throws UsageError for text that is no verifier key. */
export function vkeyOf(text: string): NoteKey {
  try {
    return parseVkey(nativeSha256, text);
  } catch (error) {
    if (error instanceof VerificationError) throw new UsageError(`--vkey: ${error.message}`);
    throw error;
  }
}

/** Throws UsageError when there is no such record. */
export async function keysOfRecordFile(path: string): Promise<StatedKeys> {
  try {
    return keysOfRecord(nativeSha256, new Uint8Array(await readFile(path)));
  } catch (error) {
    throw new UsageError(
      `--record ${path}: ${error instanceof Error ? error.message : 'unreadable'}`,
    );
  }
}

/**
 * The keys to follow a log by; pinned in `folder` from now on. Throws VerificationError CHAIN when
 * the source states other keys than those that are trusted.
 */
export async function pinKeys(
  stated: StatedKeys,
  folder: string,
  vkey: NoteKey | undefined,
): Promise<PinnedKeys> {
  if (vkey !== undefined) {
    const isSame = vkey.name === stated.key.name && sameBytes(vkey.publicKey, stated.key.publicKey);
    verify(isSame, 'CHAIN', 'checkpoint key of the source', 'the one of --vkey');
  }
  const path = join(folder, 'keys.json');
  const bytes = await readIfThere(path);
  const text = `${JSON.stringify(jsonOf(stated), undefined, 2)}\n`;
  if (bytes === undefined) {
    await makeDirectory(folder);
    await writeDurably(path, text);
    return { ...stated, pinnedBy: vkey === undefined ? 'first use' : 'vkey' };
  }
  const pinned = parsePinned(path, new TextDecoder().decode(bytes));
  const isSame =
    sameBytes(pinned.key.publicKey, stated.key.publicKey) &&
    sameBytes(encode(configuration, pinned.config), encode(configuration, stated.config));
  verify(isSame, 'CHAIN', 'keys that the source states', `those that are pinned in ${path}`);
  return { ...stated, pinnedBy: vkey === undefined ? 'state' : 'vkey' };
}

const jsonOf = ({ key, config }: StatedKeys) => ({
  vkey: formatVkey(key),
  config: toBase64(encode(configuration, config)),
});

function parsePinned(path: string, text: string): Pick<StatedKeys, 'key' | 'config'> {
  try {
    const { vkey, config } = JSON.parse(text) as { vkey?: unknown; config?: unknown };
    const bytes = typeof config === 'string' ? fromBase64(config) : undefined;
    if (typeof vkey !== 'string' || bytes === undefined) throw new Error('not vkey and config');
    return { key: parseVkey(nativeSha256, vkey), config: decode(configuration, bytes) };
  } catch (error) {
    throw new UsageError(`${path}: damaged (${error instanceof Error ? error.message : ''})`);
  }
}
