/** Columns `via` of the device store: by which path something came or left. */
import { InternalError } from '@quicprochat/proto';
import type { OtherPath, Path } from './store.ts';

/** Throws InternalError for what is none. */
export function pathOf(text: string): Path {
  return text === 'node' || text === 'guest' ? text : otherPathOf(text);
}

/** Throws InternalError for what is none. */
export function otherPathOf(text: string): OtherPath {
  if (text === 'mailbox' || text === 'direct' || text === 'relay') return text;
  throw new InternalError('store: a row has an unknown path');
}
