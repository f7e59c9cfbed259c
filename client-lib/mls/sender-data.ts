/**
 * The sender data of a PrivateMessage (RFC 9420 section 6.3.2), opened ahead of the library, so
 * that a repeated, overtaken or own message is told apart from a forged one by its numbers.
 */
import type { CiphersuiteImpl, PrivateMessage, SecretTree } from 'ts-mls';
import { concat } from '../crypto/octets.ts';
import { MlsError } from './errors.ts';
import { contentTypes } from './library.ts';
import { Reader, expandWithLabel, uint64, vector } from './presentation.ts';
import { limits } from './suite.ts';

/** Which key a message used. */
export interface SenderData {
  readonly leafIndex: number;
  readonly generation: number;
}

/** Throws MlsError DECRYPT_FAILED when it is not authentic under this epoch's secret. */
export async function openSenderData(
  cs: CiphersuiteImpl,
  senderDataSecret: Uint8Array,
  message: PrivateMessage,
): Promise<SenderData> {
  const sample = message.ciphertext.subarray(0, cs.kdf.size);
  const { keyLength, nonceLength } = cs.hpke;
  const key = await expandWithLabel(cs, senderDataSecret, 'key', sample, keyLength);
  const nonce = await expandWithLabel(cs, senderDataSecret, 'nonce', sample, nonceLength);
  const aad = concat(
    vector(message.groupId),
    uint64(message.epoch),
    Uint8Array.of(message.contentType),
  );
  let opened: Uint8Array;
  try {
    opened = await cs.hpke.decryptAead(key, nonce, aad, message.encryptedSenderData);
  } catch (cause) {
    throw new MlsError('DECRYPT_FAILED', 'message: sender data is not authentic', { cause });
  }
  const reader = new Reader(opened);
  const sender = { leafIndex: reader.uint(4), generation: reader.uint(4) };
  reader.take(4); // the reuse guard
  reader.end();
  return sender;
}

/** The next generation that a leaf will use for a content type. RFC 9420 section 9.1. */
export function nextGeneration(
  tree: SecretTree,
  leafIndex: number,
  contentType: PrivateMessage['contentType'],
): number {
  return ratchetOf(tree, leafIndex, contentType)?.generation ?? 0;
}

/**
 * Throws MlsError DUPLICATE, GENERATION_GONE or GENERATION_AHEAD when the message's key is not
 * there to be had; returns otherwise.
 */
export function checkGeneration(
  tree: SecretTree,
  sender: SenderData,
  contentType: PrivateMessage['contentType'],
): void {
  const { leafIndex, generation } = sender;
  const ratchet = ratchetOf(tree, leafIndex, contentType);
  const next = ratchet?.generation ?? 0;
  if (generation >= next) {
    if (generation - next <= limits.generationsAheadMax) return;
    throw new MlsError(
      'GENERATION_AHEAD',
      `message: ${generation - next} generations ahead, at most ${limits.generationsAheadMax}`,
    );
  }
  if (ratchet !== undefined && Object.hasOwn(ratchet.unusedGenerations, generation)) return;
  // A skipped key is dropped only after 256 later ones were skipped too: nearer, it was used.
  if (next - generation <= limits.generationsKept) {
    throw new MlsError('DUPLICATE', 'message: opened before');
  }
  throw new MlsError('GENERATION_GONE', `message: ${next - generation} generations behind`);
}

function ratchetOf(
  tree: SecretTree,
  leafIndex: number,
  contentType: PrivateMessage['contentType'],
): SecretTree['leafNodes'][number]['application'] | undefined {
  const node = tree.leafNodes[leafIndex * 2];
  return contentType === contentTypes.application ? node?.application : node?.handshake;
}
