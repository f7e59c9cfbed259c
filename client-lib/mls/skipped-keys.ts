/**
 * Keys of messages that have not come (RFC 9420 section 9.1). The library keeps for each of them the
 * secret of the chain at that place, which also opens what the sender sealed later in that epoch: so
 * they are dropped when they have waited long enough.
 */
import type { SecretTree } from 'ts-mls';
import { MlsGroup, stateOf } from './group.ts';
import { wipeConsumed, type Wipe } from './wipe.ts';

/** A message key that was skipped. */
export interface SkippedKey {
  readonly epoch: bigint;
  readonly leafIndex: number;
  readonly generation: number;
}

/** Skipped keys of application messages in all kept epochs. */
export function skippedKeys(group: MlsGroup): readonly SkippedKey[] {
  const { secretTree, historicalReceiverData } = stateOf(group);
  const past = [...historicalReceiverData].map(
    ([epoch, data]) => [epoch, data.secretTree] as const,
  );
  return [...past, [group.epoch, secretTree] as const].flatMap(([epoch, tree]) =>
    Object.entries(tree.leafNodes).flatMap(([node, { application }]) =>
      Object.keys(application.unusedGenerations).map((generation) => ({
        epoch,
        leafIndex: Number(node) / 2,
        generation: Number(generation),
      })),
    ),
  );
}

/**
 * The group without these keys; a message that needs one counts as opened before from then on. The
 * wipe is to run when the new state is durable.
 */
export function dropSkippedKeys(
  group: MlsGroup,
  keys: readonly SkippedKey[],
): { readonly next: MlsGroup; readonly wipe: Wipe } {
  const state = stateOf(group);
  const secrets: Uint8Array[] = [];
  const cut = (epoch: bigint, tree: SecretTree): SecretTree => {
    const leafNodes = { ...tree.leafNodes };
    for (const { leafIndex, generation, ...key } of keys) {
      const node = leafNodes[leafIndex * 2];
      const secret = node?.application.unusedGenerations[generation];
      if (key.epoch !== epoch || node === undefined || secret === undefined) continue;
      const { [generation]: _dropped, ...unusedGenerations } = node.application.unusedGenerations;
      leafNodes[leafIndex * 2] = {
        ...node,
        application: { ...node.application, unusedGenerations },
      };
      secrets.push(secret);
    }
    return { ...tree, leafNodes };
  };
  const next = new MlsGroup({
    ...state,
    secretTree: cut(group.epoch, state.secretTree),
    historicalReceiverData: new Map(
      [...state.historicalReceiverData].map(([epoch, data]) => [
        epoch,
        { ...data, secretTree: cut(epoch, data.secretTree) },
      ]),
    ),
  });
  return { next, wipe: wipeConsumed(secrets) };
}
