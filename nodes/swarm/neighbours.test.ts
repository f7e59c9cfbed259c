/** Whom a node keeps connections to: everybody stays in one piece, however many there are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey } from '@quicprochat/p2p';
import { systemRandom } from '@quicprochat/proto';
import { neighbours, neighboursMax } from './neighbours.ts';

const peersOf = (count: number) =>
  Array.from({ length: count }, () => ({
    peerId: makeSwarmKey(systemRandom).peerId,
    addresses: [],
  }));

test('up to twelve peers: all of them', () => {
  const [own, ...peers] = peersOf(13);
  assert(own !== undefined);
  assert.deepEqual(neighbours(own.peerId, peers), peers);
});

test('more: twelve, among them the next on both sides, so that all are connected', () => {
  for (const count of [14, 20, 50]) {
    const all = peersOf(count);
    const chosen = new Map(
      all.map(({ peerId }) => [
        peerId,
        neighbours(
          peerId,
          all.filter((one) => one.peerId !== peerId),
        ).map((one) => one.peerId),
      ]),
    );
    for (const peers of chosen.values()) {
      assert.equal(new Set(peers).size, neighboursMax);
    }
    // Only edges that both ends chose: gossip takes nobody whom it does not list.
    const seen = new Set<string>();
    const visit = (peerId: string): void => {
      if (seen.has(peerId)) return;
      seen.add(peerId);
      for (const next of chosen.get(peerId) ?? []) {
        if (chosen.get(next)?.includes(peerId) === true) visit(next);
      }
    };
    visit(all[0]?.peerId ?? '');
    assert.equal(seen.size, count);
  }
});
