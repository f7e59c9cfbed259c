/** Where a node is and what it signs with, as far as that is known here: by its log, or by the own node's word. */
import type { ClientStore } from '../store/store.ts';

/** SignedNodeRecord, encoded; what a log showed goes first. */
export function nodeRecordIn(
  { logs, mailboxes }: Pick<ClientStore, 'logs' | 'mailboxes'>,
  domain: string,
): Uint8Array | undefined {
  return logs.pinned(domain)?.record ?? mailboxes.node(domain)?.record;
}
