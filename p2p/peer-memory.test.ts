/** What libp2p keeps of who is gone: nothing, also when it hears of a peer after the peer left. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { generateKeyPair } from '@libp2p/crypto/keys';
import { identify } from '@libp2p/identify';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { tcp } from '@libp2p/tcp';
import { silentLog, systemClock } from '@quicprochat/proto';
import { createLibp2p } from 'libp2p';
import { PeerMemory } from './peer-memory.ts';

const start = (listen: string[]) =>
  createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify() },
  });

async function until({ signal }: TestContext, what: () => Promise<boolean>): Promise<void> {
  while (!(await what())) await systemClock.sleep(10, signal);
}

test('a peer that leaves while what it said of itself is written down is not remembered', async (t) => {
  const server = await start(['/ip4/127.0.0.1/tcp/0']);
  t.after(() => server.stop());
  const memory = new PeerMemory(server, silentLog);
  const client = await start([]);
  t.after(() => client.stop());
  const { peerStore } = server;
  const merge = peerStore.merge.bind(peerStore);
  let noted = 0;
  // The last of what identify writes waits until the peer is gone, and what goes with that is done.
  t.mock.method(peerStore, 'merge', async (...args: Parameters<typeof merge>) => {
    if (args[1].metadata === undefined) return merge(...args);
    const gone = Promise.withResolvers<void>();
    server.addEventListener('peer:disconnect', () => gone.resolve(), { once: true });
    await client.hangUp(server.peerId);
    await gone.promise;
    await until(t, async () => !(await peerStore.has(client.peerId)));
    const kept = await merge(...args);
    noted += 1;
    return kept;
  });
  const [address] = server.getMultiaddrs();
  assert(address);
  await client.dial(address);
  await until(t, () => Promise.resolve(noted > 0));
  await until(t, async () => (await peerStore.all()).length === 0);
  assert.equal(memory.places, undefined);
});

test('a sweep forgets who is not connected, and nobody else', async (t) => {
  const server = await start(['/ip4/127.0.0.1/tcp/0']);
  t.after(() => server.stop());
  const memory = new PeerMemory(server, silentLog);
  const client = await start([]);
  t.after(() => client.stop());
  const identified = new Promise((resolve) => {
    server.addEventListener('peer:identify', resolve, { once: true });
  });
  const [address] = server.getMultiaddrs();
  assert(address);
  await client.dial(address);
  await identified;
  const stranger = peerIdFromPrivateKey(await generateKeyPair('Ed25519'));
  await server.peerStore.merge(stranger, { protocols: ['/late/1'] });
  await memory.sweep();
  const known = await server.peerStore.all();
  assert.deepEqual(
    known.map(({ id }) => id.toString()),
    [client.peerId.toString()],
  );
});
