/** Which swarm is whose, as records say and peers files allow. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, type SwarmKey } from '@quicprochat/p2p';
import { systemRandom } from '@quicprochat/proto';
import { create, NodeRecordSchema } from '@quicprochat/proto/messages';
import { SwarmPeers } from './peers.ts';

const recordOf = (key: SwarmKey, ...addresses: string[]) =>
  create(NodeRecordSchema, { swarm: { swarmKey: key.publicKey, addresses } });
const address = '/ip4/192.0.2.1/tcp/5002';

test('a record that names the swarm of another domain takes nothing from it', () => {
  const peers = new SwarmPeers();
  const [ofBlue, ofEvil] = [makeSwarmKey(systemRandom), makeSwarmKey(systemRandom)];
  assert.equal(peers.set('blue.example', recordOf(ofBlue, address, 'nonsense')), true);
  assert.equal(peers.set('blue.example', recordOf(ofBlue, address)), false, 'the same again');
  assert.equal(peers.set('evil.example', recordOf(ofBlue, '/ip4/192.0.2.66/tcp/1')), false);
  assert.deepEqual(peers.all, [{ peerId: ofBlue.peerId, addresses: [address] }]);
  assert.equal(peers.set('evil.example', recordOf(ofEvil)), true);
  assert.equal(peers.set('evil.example', recordOf(ofBlue)), true, 'it has none now');
  assert.equal(peers.domainOf(ofBlue.peerId), 'blue.example');
  assert.equal(peers.domainOf(ofEvil.peerId), undefined);
  assert.equal(peers.set('blue.example', create(NodeRecordSchema, {})), true);
  assert.deepEqual(peers.all, []);
});

test('who is denied leaves', () => {
  const peers = new SwarmPeers();
  const key = makeSwarmKey(systemRandom);
  peers.set('blue.example', recordOf(key, address));
  assert.equal(
    peers.keepOnly(() => true),
    false,
  );
  assert.equal(
    peers.keepOnly((domain) => domain !== 'blue.example'),
    true,
  );
  assert.deepEqual(peers.all, []);
  assert.equal(peers.domainOf(key.peerId), undefined);
});
