/**
 * Records of nodes that the own node peers with, by its word: what it says of an address can mislead this
 * device as far as the own node could anyway. And in which order a device asks them.
 */
import { createHash } from 'node:crypto';
import { methods, QpcError, type Clock } from '@quicprochat/proto';
import { checkRecord, knownRecordOf } from '../kt/log-record.ts';
import { nodeRecordIn } from '../kt/node-address.ts';
import type { Session } from '../session.ts';
import type { ClientStore } from '../store/store.ts';

/**
 * SignedNodeRecord, encoded: the own node's if it shows one, else the one that is known here. Undefined
 * when neither is there, or the own node shows one that contradicts what is known.
 */
export async function nodeRecordOf(
  domain: string,
  session: Session | undefined,
  { store, clock }: { readonly store: ClientStore; readonly clock: Clock },
): Promise<Uint8Array | undefined> {
  const known = nodeRecordIn(store, domain);
  if (session === undefined || session.signal.aborted) return known;
  try {
    const { record } = await session.call(methods.getNodeRecord, { domain });
    if (record === undefined) return known;
    const older = known === undefined ? undefined : knownRecordOf(known);
    return checkRecord(domain, record, { older }, clock.now()).bytes;
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    return undefined;
  }
}

/** Each device its own order: users of one node do not all ask the same two. Without the own domain. */
export function inOwnOrder(
  domains: readonly string[],
  { rid, ownDomain, max }: { rid: Uint8Array; ownDomain: string; max: number },
): readonly string[] {
  const lotOf = (domain: string): string =>
    createHash('sha256').update(rid).update(domain).digest('hex');
  return [...new Set(domains)]
    .filter((domain) => domain !== ownDomain)
    .slice(0, max)
    .map((domain) => ({ domain, lot: lotOf(domain) }))
    .toSorted((a, b) => (a.lot < b.lot ? -1 : 1))
    .map(({ domain }) => domain);
}
