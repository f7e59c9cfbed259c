/**
 * The group without the next handshake key of this device (RFC 9420 section 9.1): a commit was sealed with
 * it and refused for good, so the next commit of the epoch has to take another one. The others skip it.
 */
import type { CiphersuiteImpl, SecretTree } from 'ts-mls';
import type { MlsParts } from './context.ts';
import { cipherSuite } from './context.ts';
import { MlsGroup, stateOf } from './group.ts';
import { encrypt } from './message.ts';
import { expandWithLabel } from './presentation.ts';
import type { Wipe } from './wipe.ts';

/** An application key is spent with it. Throws MlsError REMOVED. */
export async function spendHandshakeKey(
  parts: MlsParts,
  group: MlsGroup,
): Promise<{ readonly next: MlsGroup; readonly wipe: Wipe }> {
  // Makes the library derive this leaf's keys; the message itself is thrown away.
  const sealed = await encrypt(parts, group, new Uint8Array(0), new Uint8Array(0));
  const state = stateOf(sealed.next);
  const cs = await cipherSuite(parts, group.suite);
  const secretTree = await advanced(cs, state.secretTree, group.ownLeafIndex);
  return { next: new MlsGroup({ ...state, secretTree }), wipe: sealed.wipe };
}

async function advanced(
  cs: CiphersuiteImpl,
  tree: SecretTree,
  leafIndex: number,
): Promise<SecretTree> {
  const index = leafIndex * 2;
  const node = tree.leafNodes[index];
  if (node === undefined) throw new Error('the keys of the own leaf were not derived');
  const { handshake } = node;
  const generation = new Uint8Array(4);
  new DataView(generation.buffer).setUint32(0, handshake.generation);
  const { size } = cs.kdf;
  const secret = await expandWithLabel(cs, handshake.secret, 'secret', generation, size);
  const next = { ...handshake, secret, generation: handshake.generation + 1 };
  return { ...tree, leafNodes: { ...tree.leafNodes, [index]: { ...node, handshake: next } } };
}
