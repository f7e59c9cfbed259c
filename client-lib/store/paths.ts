/** Columns `via` of the device store: by which path something came or left. */
import { InternalError } from '@quicprochat/proto';
import type { Path, PeerPath } from './store.ts';

/** Throws InternalError for what is none. */
export function pathOf(text: string): Path {
  return text === 'node' || text === 'guest' ? text : peerPathOf(text);
}

/** Throws InternalError for what is none. */
export function peerPathOf(text: string): PeerPath {
  if (text === 'direct' || text === 'relay') return text;
  throw new InternalError('store: a row has an unknown path');
}
