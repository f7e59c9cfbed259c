/** Whatever needs another node: refused for one that is no peer, and for a peer that is not there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makePeer } from '@quicprochat/federation';
import {
  call,
  commitHash,
  formatNodeAddress,
  methods,
  parseEntry,
  systemRandom,
} from '@quicprochat/proto';
import { makeIdentity, memoryNetwork } from '@quicprochat/proto/transport';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, testRuntime } from '../cluster/local-node.ts';
import { Person } from './account-rig.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

test('who is no peer is told apart from a peer that is not there', async () => {
  const network = memoryNetwork(testRuntime);
  await using node = await LocalNode.create(
    network,
    'red.example',
    '[limits]\noutbox_rows_per_peer = 1\n[federation]\nmode = "open"\n',
  );
  // Nobody is at any site either.
  node.site = { fetch: () => Promise.reject(new Error('no such place')) };
  await node.start();
  const [alice, device] = await Person.register('alice@red.example', (key) => node.dial(key));
  await using _ = alice;
  const { spkiSha256: pin } = await makeIdentity(systemRandom);
  const address = formatNodeAddress({ host: 'dark.example', port: 5001, pin });
  const peers = [makePeer('dark.example', [address])];
  await node.node?.reloadPeers({ peers, deniedDomains: ['green.example'], deniedPins: [] });

  const group = new TestCommitter();
  const first = parseEntry(group.sign(undefined));
  const commit = bytes(100);
  const commitTo = (hub: string, removal = false) => ({
    ...{ hub, commit, mid: bytes(16) },
    entry: group.sign(first, { commitHash: commitHash(commit), removal }),
  });
  const settle = { label: bytes(9), last: 1n, entry: bytes(12) };
  const asked = (domain: string): readonly (() => Promise<unknown>)[] => {
    const userId = `bob@${domain}`;
    const { groupId } = group;
    return [
      () => device.call(methods.getNodeRecord, { domain }),
      () => device.call(methods.fetchKeyPackage, { userId, claimId: bytes(16), suites: [1] }),
      () => device.call(methods.fetchHybridKey, { userId }),
      () => device.call(methods.resolveUser, { userId }),
      () => device.call(methods.checkRevocation, { userId, identityPub: bytes(32) }),
      () => device.call(methods.ktSearch, { domain, request: bytes(9) }),
      () =>
        device.call(methods.ktMonitor, { domain, request: { case: 'contact', value: bytes(9) } }),
      () => device.call(methods.ktDistinguished, { domain, request: bytes(9) }),
      () => device.call(methods.ktTreeHead, { domain }),
      () =>
        device.call(methods.ktCredential, { domain, request: { case: 'settle', value: settle } }),
      () => device.call(methods.groupLog, { hub: domain, group: groupId }),
      () => device.call(methods.groupTakeover, { hub: domain, group: groupId }),
      () => device.call(methods.submitCommit, commitTo(domain)),
      () => device.call(methods.updateGroupMetadata, commitTo(domain)),
      () => device.call(methods.rotateKeys, commitTo(domain)),
      () => device.call(methods.removeMember, commitTo(domain, true)),
    ];
  };
  for (const one of asked('green.example')) await refused(one(), 'PEER_DENIED');
  for (const one of asked('dark.example')) await refused(one(), 'PEER_UNREACHABLE');
  // Of many users at once, those that cannot be asked for cost the others nothing.
  const userIds = ['bob@green.example', 'bob@dark.example', alice.userId];
  const { users } = await device.call(methods.fetchHybridKeys, { userIds });
  assert.deepEqual(
    users.map(({ userId, keys }) => [userId, keys !== undefined]),
    userIds.map((userId) => [userId, userId === alice.userId]),
  );

  const send = (domain: string) =>
    device.call(methods.enqueue, { rid: bytes(32), domain, mid: bytes(16), payload: bytes(9) });
  await refused(send('green.example'), 'PEER_DENIED');
  // Rows wait for a peer that is away, but no more than there is room for.
  await send('dark.example');
  await refused(send('dark.example'), 'PEER_UNREACHABLE');

  // A node that speaks for a domain is looked for at the site of that domain.
  const stranger = await node.dial(await makeIdentity(systemRandom), 'somewhere');
  const hello = (domain: string) =>
    call(stranger, methods.fedHello, { domain, versionMin: 1, versionMax: 1 });
  await refused(hello('green.example'), 'PEER_DENIED');
  await refused(hello('violet.example'), 'PEER_UNREACHABLE');
  await stranger.close(0, 'done');
});
