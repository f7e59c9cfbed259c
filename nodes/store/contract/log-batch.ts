/**
 * Entries of a key log for tests that are about rows, not about proofs: right in form, with tiles,
 * roots and signatures that nobody checks. A real log over a real store: key-log.test.ts.
 */
import type { LogBatch } from '@quicprochat/kt-log';
import type { AccountEffect, NewAccount } from '../account-store.ts';
import type { NodeStore } from '../store.ts';

const filled = (length: number, fill: number): Uint8Array => new Uint8Array(length).fill(fill);

/** Entry `position` with one tile, the versions that the effects name, and the effects. */
export function logBatch(position: number, effects: readonly AccountEffect[]): LogBatch {
  const versions = effects.map((effect) => {
    const { userId, manifestSeq, manifest } = effect.kind === 'register' ? effect.account : effect;
    return {
      label: labelOf(userId),
      version: manifestSeq,
      commitment: filled(32, manifestSeq),
      opening: filled(16, manifestSeq),
      value: manifest.manifest,
    };
  });
  return {
    position,
    entry: { timestampMs: position, prefixRoot: filled(32, position), rootTile: position + 1 },
    head: {
      size: position + 1,
      root: filled(32, position),
      signature: filled(64, position),
      rfc6962Root: filled(32, position),
      noteSignature: filled(64, position),
    },
    tiles: [{ id: position + 1, bytes: filled(100, position) }],
    superseded: position === 0 ? [] : [position],
    logTiles: [],
    versions,
    effects,
  };
}

/** A user's label. */
export function labelOf(userId: string): Uint8Array {
  return new TextEncoder().encode(userId);
}

/** Writes effects with the next entry of the log. */
export async function commitEffects(
  store: NodeStore,
  ...effects: readonly AccountEffect[]
): Promise<void> {
  const head = await store.keyLog.newestHead();
  await store.keyLog.commit(logBatch(head?.size ?? 0, effects));
}

/** Makes an account as a registration does: with its entry in the log. */
export function registerAccount(store: NodeStore, account: NewAccount): Promise<void> {
  return commitEffects(store, { kind: 'register', account });
}
