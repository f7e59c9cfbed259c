/** A node whose disk is full: every call that would store something says so, and changes nothing. */
import { test } from 'node:test';
import { createMls, mandatorySuite } from '@quicprochat/client-lib/mls';
import { makePeer } from '@quicprochat/federation';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import {
  call,
  channelId,
  deviceChannelSeed,
  deviceIdOf,
  formatNodeAddress,
  methods,
  seedOf,
  systemRandom,
} from '@quicprochat/proto';
import { Lane } from '@quicprochat/proto/messages';
import { makeIdentity, memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, refused, testRuntime } from '../cluster/local-node.ts';
import { Person, writesOf } from './account-rig.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
/** However large the disk of this machine is. */
const full = { redShare: 0, fullShare: 0, lastShare: 1, freeBytes: Infinity };

test('a full disk takes nothing that has to be kept, and at last no account either', async () => {
  const network = memoryNetwork(testRuntime);
  await using red = await LocalNode.create(network, 'red.example');
  await red.start();
  const dial: typeof red.dial = (identity) => red.dial(identity);
  await using alice = new Person('alice@red.example', dial);
  const first = await alice.newDevice();
  await first.register();
  await alice.addDevice();
  const { transport, rid } = first;
  await red.reopen({ disk: full });
  await red.start();
  const blue = await makeIdentity(systemRandom);
  const address = formatNodeAddress({ host: 'blue.example', port: 5001, pin: blue.spkiSha256 });
  const peers = [makePeer('blue.example', [address])];
  await red.node?.reloadPeers({ peers, deniedDomains: [], deniedPins: [] });
  const peer = await red.dial(blue, 'blue.example');
  await call(peer, methods.fedHello, { domain: 'blue.example', versionMin: 1, versionMax: 1 });
  const device = await red.dial(transport);

  const mls = createMls({ ...testRuntime, manifests: () => undefined });
  const { publicBytes } = await mls.makeKeyPackage({
    suite: mandatorySuite,
    identity: { userId: alice.userId, deviceId: deviceIdOf(rid) },
    signatureKey: { publicKey: rid, seed: seedOf(first.identityKey) },
    lastResort: false,
  });
  const keyPackages = [publicBytes];
  const hubs = ['red.example'];
  const nonce = bytes(32);
  const cid = channelId(deviceChannelSeed(rid, nonce), hubs);
  const message = { mid: bytes(16), payload: bytes(9) };
  const targets = [{ payload: 0, rid, domain: 'red.example' }];
  const items = [{ ...message, kind: 1, rids: [rid], ttlS: 60 }];
  const batch = { streamId: bytes(16), firstSeq: 1n, items };
  const refusals = [
    call(device, methods.enqueue, { ...message, rid, domain: 'red.example' }),
    call(device, methods.batchEnqueue, { payloads: [message], targets }),
    call(device, methods.createGroup, { entry: new TestCommitter().sign(undefined), hubs }),
    call(device, methods.createChannel, { cid, hubs, writePub: bytes(32), nonce }),
    call(device, methods.uploadKeyPackage, { keyPackages }),
    call(device, methods.storeRecoveryBundle, { bundle: bytes(9) }),
    call(peer, methods.fedRelay, { ...batch, lane: Lane.BULK }),
    call(peer, methods.fedRelayBatch, { ...batch, lane: Lane.CONTROL }),
  ];
  await Promise.all(refusals.map((one) => refused(one, 'STORE_FULL')));

  await red.reopen({ disk: { ...full, lastShare: 0 } });
  await red.start();
  const again = await red.dial(transport);
  for (const write of await writesOf(alice, again, dial)) await refused(write(), 'STORE_FULL');
});
