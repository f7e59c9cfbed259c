/** Columns `via` of the device store: by which path something came or left. */
import { InternalError } from '@quicprochat/proto';

/**
 * How a message came here, or a copy of an own one left: through the own node, straight to the
 * recipient's node, through a mailbox at another one, or to the device itself, directly or over a relay.
 */
export type Path = 'node' | 'guest' | OtherPath;

/** Past the recipient's own node. */
export type OtherPath = 'mailbox' | PeerPath;

/** Past all nodes. */
export type PeerPath = 'direct' | 'relay';

/** Throws InternalError for what is none. */
export function pathOf(text: string): Path {
  return text === 'node' || text === 'guest' ? text : otherPathOf(text);
}

/** Throws InternalError for what is none. */
export function otherPathOf(text: string): OtherPath {
  if (text === 'mailbox' || text === 'direct' || text === 'relay') return text;
  throw new InternalError('store: a row has an unknown path');
}
