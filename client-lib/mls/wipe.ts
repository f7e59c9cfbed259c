/**
 * Zeroing spent secrets. Best effort in JavaScript: V8 may have copied. Secrets of an old
 * state are aliased by that state, so a wipe runs only after the caller's transaction with the
 * new state has committed; running it earlier would leave nothing to fall back to.
 */
import type { ClientState, EpochReceiverData, SecretTree } from 'ts-mls';

/** Zeroes what an operation has spent. Call once, after the new state is durable. */
export type Wipe = () => void;

/** A wipe of the secrets that the library lists as consumed. */
export function wipeConsumed(consumed: readonly Uint8Array[]): Wipe {
  return () => {
    for (const secret of consumed) secret.fill(0);
  };
}

/**
 * A wipe for a change of epoch: the consumed secrets, the old key schedule except for what past
 * epochs still need, and epochs that fell out of the window (the library lists none of these).
 */
export function wipeEpoch(
  old: ClientState,
  next: ClientState,
  consumed: readonly Uint8Array[],
): Wipe {
  const { exporterSecret, externalSecret, confirmationKey, membershipKey, initSecret } =
    old.keySchedule;
  return wipeConsumed([
    ...consumed,
    exporterSecret,
    externalSecret,
    confirmationKey,
    membershipKey,
    initSecret,
    ...droppedSecrets(old, next),
  ]);
}

/** A wipe of the past epochs that a state has no more. */
export function wipeDropped(old: ClientState, next: ClientState): Wipe {
  return wipeConsumed(droppedSecrets(old, next));
}

function droppedSecrets(old: ClientState, next: ClientState): Uint8Array[] {
  return [...old.historicalReceiverData]
    .filter(([epoch]) => !next.historicalReceiverData.has(epoch))
    .flatMap(([, data]) => secretsOf(data));
}

function secretsOf(data: EpochReceiverData): Uint8Array[] {
  return [data.senderDataSecret, data.resumptionPsk, ...secretTreeSecrets(data.secretTree)];
}

function secretTreeSecrets(tree: SecretTree): Uint8Array[] {
  const ratchets = Object.values(tree.leafNodes).flatMap((node) => [
    node.handshake,
    node.application,
  ]);
  return [
    ...Object.values(tree.intermediateNodes),
    ...ratchets.flatMap((r) => [r.secret, ...Object.values(r.unusedGenerations)]),
  ];
}
