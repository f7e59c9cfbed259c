/** Deliveries over a relay: when nothing else works, after it came back, and for nobody it must not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey } from '@quicprochat/p2p';
import { createHost } from '@quicprochat/p2p/swarm';
import { systemRandom, TransportError } from '@quicprochat/proto';
import { startDroppingRelay } from './dropping-relay.ts';
import { at, message, runtime, startDevice, startRelay, until, type Device } from './devices.ts';

/** Retries at once: jitter is what would make the tests slow. */
const hasty = {
  ...runtime,
  random: { bytes: (length: number) => new Uint8Array(length) },
};

const isReserved = ({ swarm }: Device) => swarm.relays.every((relay) => relay.isReserved);

test('a device behind a relay is reached through it, by one that never dials directly', async () => {
  await using relay = await startRelay();
  await using anna = await startDevice({ relayOnly: true });
  await using bert = await startDevice({ relayOnly: true });
  bert.swarm.setRelays([relay.address]);
  await until(() => isReserved(bert));
  const to = bert.destination();
  assert.deepEqual([to.record.addresses, to.record.relays], [[], [relay.address]]);
  for (let i = 0; i < 3; i++) {
    const { via } = await anna.swarm.deliver(to, message(bert, systemRandom.bytes(50_000)));
    assert.equal(via, 'relay');
  }
  assert.equal(bert.received.length, 3);
  assert.equal(bert.received[0]?.via, 'relay');
  assert.deepEqual(bert.received[0]?.from.addresses, []);
});

test('a direct address that does not answer costs a second, then the relay delivers', async () => {
  await using relay = await startRelay();
  await using anna = await startDevice();
  await using bert = await startDevice();
  bert.swarm.setRelays([relay.address]);
  await until(() => isReserved(bert));
  // Nobody listens there: QUIC hears nothing for its whole handshake, five seconds.
  const to = at(bert.destination(), { addresses: ['/ip4/127.0.0.1/udp/9/quic-v1'] });
  const startMs = performance.now();
  assert.equal((await anna.swarm.deliver(to, message(bert))).via, 'relay');
  assert.ok(performance.now() - startMs < 4_500);
});

test('a relay that comes back is found again, and so is the device', async () => {
  const relay = await startRelay();
  await using anna = await startDevice({ relayOnly: true });
  await using bert = await startDevice({ relayOnly: true, runtime: hasty });
  bert.swarm.setRelays([relay.address]);
  await until(() => isReserved(bert));
  const to = bert.destination();
  await anna.swarm.deliver(to, message(bert));
  await relay[Symbol.asyncDispose]();
  await until(() => !isReserved(bert));
  await assert.rejects(anna.swarm.deliver(to, message(bert), { budgetMs: 2_000 }));
  await using again = await startRelay({ key: relay.key, port: relay.port });
  assert.equal(again.address, relay.address);
  await until(() => isReserved(bert));
  assert.equal((await anna.swarm.deliver(to, message(bert))).via, 'relay');
  assert.equal(bert.received.length, 2);
});

test('who leaves a relay leaves its place to others', async () => {
  await using relay = await startRelay({ limits: { reservations: 1 } });
  for (let i = 0; i < 3; i++) {
    await using device = await startDevice({ relayOnly: true, runtime: hasty });
    device.swarm.setRelays([relay.address]);
    await until(() => isReserved(device));
  }
});

test('a stranger makes a relay keep no more than a request', async () => {
  await using relay = await startRelay();
  const host = await createHost({ key: makeSwarmKey(systemRandom), runtime, listen: [] });
  try {
    const signal = AbortSignal.timeout(20_000);
    const connection = await host.dial(relay.address, signal);
    const stream = await connection.openStream('/libp2p/circuit/relay/0.2.0/hop', signal);
    // A request of 2 MiB, of which less comes: libp2p waits 30 s for the rest.
    stream.write(Uint8Array.of(0x80, 0x80, 0x80, 0x01));
    stream.write(new Uint8Array(64 * 1024));
    let isClosed = false;
    void stream.closed.then(() => (isClosed = true));
    await until(() => isClosed, 20_000);
  } finally {
    await host.stop();
  }
});

test('a relay that is not wanted any more is left', async () => {
  await using relay = await startRelay();
  await using anna = await startDevice({ relayOnly: true });
  await using bert = await startDevice({ relayOnly: true });
  bert.swarm.setRelays([relay.address]);
  await until(() => isReserved(bert));
  const to = bert.destination();
  await anna.swarm.deliver(to, message(bert));
  bert.swarm.setRelays([]);
  assert.deepEqual(bert.destination().record.relays, []);
  // The way through it ends with the reservation.
  await until(() => anna.swarm.links.length === 0);
  await assert.rejects(anna.swarm.deliver(to, message(bert), { budgetMs: 2_000 }));
});

test('a relay gives places to those it may, and no others', async () => {
  await using bert = await startDevice({ relayOnly: true, runtime: hasty });
  const asked = new Set<string>();
  await using relay = await startRelay({
    mayReserve: (peerId) => {
      asked.add(peerId);
      return Promise.resolve(false);
    },
  });
  bert.swarm.setRelays([relay.address]);
  await until(() => asked.has(bert.swarm.peerId));
  assert.equal(isReserved(bert), false);
});

test('a relay passes only so many bytes on, and the next delivery gets a new connection', async () => {
  await using relay = await startRelay({ limits: { bytesPerConnection: 200_000 } });
  await using anna = await startDevice({ relayOnly: true });
  await using bert = await startDevice({ relayOnly: true });
  bert.swarm.setRelays([relay.address]);
  await until(() => isReserved(bert));
  const to = bert.destination();
  let failures = 0;
  for (let sent = 0; sent < 8;) {
    const one = message(bert, systemRandom.bytes(60_000));
    try {
      await anna.swarm.deliver(to, one);
      sent += 1;
    } catch {
      failures += 1;
      assert.ok(failures < 8);
    }
  }
  assert.equal(bert.received.length >= 8, true);
  assert.ok(failures > 0, 'the limit was never met');
});

test('who is not a relay of this device cannot hand it connections', async () => {
  await using bert = await startDevice();
  const host = await createHost({ key: makeSwarmKey(systemRandom), runtime, listen: [] });
  const [address = ''] = bert.destination().record.addresses;
  const signal = AbortSignal.timeout(5_000);
  const connection = await host.dial(`${address}/p2p/${bert.swarm.peerId}`, signal);
  const stream = await connection.openStream('/libp2p/circuit/relay/0.2.0/stop', signal);
  await stream.closed;
  assert.equal(signal.aborted, false);
  assert.deepEqual(bert.destination().record.relays, []);
  await host.stop();
});

test('a relay that drops every byte costs neither other relays nor direct ways anything', async () => {
  await using dropping = await startDroppingRelay();
  await using sound = await startRelay();
  await using anna = await startDevice();
  await using bert = await startDevice({ relayOnly: true });
  await using carl = await startDevice();
  bert.swarm.setRelays([dropping.address, sound.address]);
  await until(() => isReserved(bert));
  dropping.swallow(true);
  const both = bert.destination();
  const startMs = performance.now();
  const [relayed, direct] = await Promise.all([
    anna.swarm.deliver(both, message(bert)),
    anna.swarm.deliver(carl.destination(), message(carl)),
  ]);
  assert.ok(performance.now() - startMs < 8_000);
  assert.deepEqual([relayed.via, direct.via], ['relay', 'direct']);
  assert.deepEqual([bert.received.length, carl.received.length], [1, 1]);
});

test('with nothing but a relay that drops a delivery fails in time, and works once that is over', async () => {
  await using dropping = await startDroppingRelay();
  await using anna = await startDevice({ relayOnly: true });
  await using bert = await startDevice({ relayOnly: true, runtime: hasty });
  bert.swarm.setRelays([dropping.address]);
  await until(() => isReserved(bert));
  const to = bert.destination();
  dropping.swallow(true);
  const one = message(bert);
  const startMs = performance.now();
  await assert.rejects(anna.swarm.deliver(to, one, { budgetMs: 1_500 }), (error: Error) => {
    return error instanceof TransportError;
  });
  assert.ok(performance.now() - startMs < 4_000);
  assert.equal(bert.received.length, 0);
  dropping.swallow(false);
  const deadlineMs = performance.now() + 60_000;
  for (;;) {
    try {
      assert.equal((await anna.swarm.deliver(to, one, { budgetMs: 3_000 })).via, 'relay');
      break;
    } catch (error) {
      if (!(error instanceof TransportError) || performance.now() > deadlineMs) throw error;
    }
  }
  assert.equal(bert.received.length, 1);
});

test('a way that was open and whose relay begins to drop everything is left for another one', async () => {
  await using dropping = await startDroppingRelay();
  await using sound = await startRelay();
  await using anna = await startDevice();
  await using bert = await startDevice({ relayOnly: true });
  bert.swarm.setRelays([dropping.address]);
  await until(() => isReserved(bert));
  await anna.swarm.deliver(bert.destination(), message(bert));
  bert.swarm.setRelays([dropping.address, sound.address]);
  await until(() => isReserved(bert));
  dropping.swallow(true);
  const startMs = performance.now();
  assert.equal((await anna.swarm.deliver(bert.destination(), message(bert))).via, 'relay');
  assert.ok(performance.now() - startMs < 9_000);
  assert.equal(bert.received.length, 2);
});
