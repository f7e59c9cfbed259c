/**
 * Whom of its peers a node dials: all up to twelve; above that the two next to it in a ring of all, which
 * keeps everybody in one piece, and ten that both sides draw alike. Who does not answer is dialed further, and
 * another one in its place. Whoever dials is taken in, if it is a peer.
 */
import { createHash } from 'node:crypto';
import type { SwarmPeer } from '@quicprochat/p2p';

export const neighboursMax = 12;

/** All peers; those that are not dialed have no address. `away`: peer ids that do not answer. */
export function neighbours(
  own: string,
  peers: readonly SwarmPeer[],
  away: ReadonlySet<string> = new Set(),
): readonly SwarmPeer[] {
  if (peers.length <= neighboursMax) return peers;
  const sorted = peers.toSorted((a, b) => (a.peerId < b.peerId ? -1 : 1));
  const at = sorted.findIndex(({ peerId }) => peerId > own);
  const next = sorted[at < 0 ? 0 : at];
  const last = sorted[(at < 0 ? sorted.length : at) - 1] ?? sorted.at(-1);
  const ring = [next, last].filter((peer) => peer !== undefined);
  const drawn = sorted
    .filter((peer) => !ring.includes(peer))
    .map((peer) => ({ peer, lot: lotOf(own, peer.peerId) }))
    .toSorted((a, b) => (a.lot < b.lot ? -1 : 1))
    .map(({ peer }) => peer);
  let present = 0;
  return [...ring, ...drawn].map((peer) => {
    if (present >= neighboursMax) return { ...peer, addresses: [] };
    if (!away.has(peer.peerId)) present += 1;
    return peer;
  });
}

/** The same from both sides. */
function lotOf(a: string, b: string): string {
  const pair = a < b ? `${a} ${b}` : `${b} ${a}`;
  return createHash('sha256').update(pair).digest('hex');
}
