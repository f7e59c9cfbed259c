/** Whom a node keeps connections to: everybody stays in one piece, however many there are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey } from '@quicprochat/p2p';
import { systemRandom } from '@quicprochat/proto';
import { neighbours, neighboursMax } from './neighbours.ts';

const peersOf = (count: number) =>
  Array.from({ length: count }, () => ({
    peerId: makeSwarmKey(systemRandom).peerId,
    addresses: ['/ip4/192.0.2.1/tcp/5002'],
  }));

test('up to twelve peers: all of them', () => {
  const [own, ...peers] = peersOf(13);
  assert(own !== undefined);
  assert.deepEqual(neighbours(own.peerId, peers), peers);
});

const dialedOf = (own: string, peers: ReturnType<typeof peersOf>, away = new Set<string>()) =>
  neighbours(own, peers, away)
    .filter(({ addresses }) => addresses.length > 0)
    .map(({ peerId }) => peerId);

test('more: twelve, among them the next on both sides, so that all are connected; all may come', () => {
  for (const count of [14, 20, 50]) {
    const all = peersOf(count);
    const others = (own: string) => all.filter(({ peerId }) => peerId !== own);
    const dialed = new Map(
      all.map(({ peerId }) => [peerId, dialedOf(peerId, others(peerId))] as const),
    );
    for (const { peerId } of all) {
      assert.equal(neighbours(peerId, others(peerId)).length, count - 1);
      assert.equal(new Set(dialed.get(peerId)).size, neighboursMax);
    }
    // By edges that both ends want: also while each waits for the other.
    const seen = new Set<string>();
    const visit = (peerId: string): void => {
      if (seen.has(peerId)) return;
      seen.add(peerId);
      for (const next of dialed.get(peerId) ?? []) {
        if (dialed.get(next)?.includes(peerId) === true) visit(next);
      }
    };
    visit(all[0]?.peerId ?? '');
    assert.equal(seen.size, count);
  }
});

test('who does not answer is dialed further, and another one in its place', () => {
  const [own, ...peers] = peersOf(40);
  assert(own !== undefined);
  const first = dialedOf(own.peerId, peers);
  const away = new Set(first.slice(0, 5));
  const then = dialedOf(own.peerId, peers, away);
  assert.equal(then.length, neighboursMax + 5);
  for (const peerId of first) assert(then.includes(peerId));
  const nobody = new Set(peers.map(({ peerId }) => peerId));
  assert.equal(dialedOf(own.peerId, peers, nobody).length, peers.length);
});
