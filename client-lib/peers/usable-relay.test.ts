/** A node names its own relay, where the readers of the record may look for it, or none. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey } from '@quicprochat/p2p';
import { systemRandom } from '@quicprochat/proto';
import { usableRelay } from './usable-relay.ts';

const [node, own, victim] = [1, 2, 3].map(() => makeSwarmKey(systemRandom));
assert(node !== undefined && own !== undefined && victim !== undefined);
const rules = { reach: ['public'], ownPeerId: own.peerId, swarmKey: node.publicKey } as const;
const at = (address: string, { peerId } = node): string => `${address}/p2p/${peerId}`;
const [quic, tcp] = ['/ip4/192.0.2.1/udp/5002/quic-v1', '/ip4/192.0.2.1/tcp/5002'];

test('one address of the node itself is used, TCP first', () => {
  assert.equal(usableRelay([at(quic), at(tcp)], rules), at(tcp));
  assert.equal(usableRelay([at(quic)], rules), at(quic));
  assert.equal(usableRelay([], rules), undefined);
});

test('nothing else that a node says sends a device, or those who look for it, anywhere', () => {
  for (const named of [
    at(tcp, victim),
    at(tcp, own),
    tcp,
    at('/ip4/127.0.0.1/tcp/22'),
    at('/ip4/10.0.0.1/tcp/22'),
    at('/dns4/victim.example/tcp/443'),
    `${at(tcp)}/p2p-circuit`,
    '\u0000'.repeat(4_096),
  ]) {
    assert.equal(usableRelay([named], rules), undefined, named);
    assert.equal(usableRelay([named, at(quic)], rules), at(quic), named);
  }
  // The own node is not judged by its swarm, but this device is no relay of itself there either.
  const { swarmKey: _, ...ofOwn } = rules;
  assert.equal(usableRelay([at(tcp, victim)], ofOwn), at(tcp, victim));
  assert.equal(usableRelay([at(tcp, own)], ofOwn), undefined);
});
