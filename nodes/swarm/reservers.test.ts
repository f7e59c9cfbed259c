/** Who may reserve at the node's relay: devices with a session, whatever others say of their swarms. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, signEndpointRecord, type SwarmKey } from '@quicprochat/p2p';
import { signingKeyFromSeed, systemClock, systemRandom, type SigningKey } from '@quicprochat/proto';
import type { NodeStore } from '../store/store.ts';
import { Reservers } from './reservers.ts';

const hourMs = 3_600_000;

function makeRig() {
  let nowMs = 1_800_000_000_000;
  const sessions = new Map<string, number>();
  const store: Pick<NodeStore, 'sessionByTransportKey'> = {
    sessionByTransportKey: async (key) => {
      const sessionExpiresMs = sessions.get(Buffer.from(key).toString('hex'));
      if (sessionExpiresMs === undefined) return undefined;
      return { identityPub: key, deviceId: '', sessionExpiresMs, userId: '' };
    },
  };
  const reservers = new Reservers(store, { ...systemClock, now: () => nowMs });
  const newDevice = () => {
    const key = signingKeyFromSeed(systemRandom.bytes(32));
    sessions.set(Buffer.from(key.publicKey).toString('hex'), nowMs + 24 * hourMs);
    return key;
  };
  const publish = (device: SigningKey, swarm: SwarmKey, seq = nowMs) =>
    reservers.publish(
      signEndpointRecord(
        {
          ...{ swarmKey: swarm.publicKey, addresses: [], relays: [], mailboxes: [] },
          ...{ seq, issuedMs: nowMs, expiresMs: nowMs + hourMs },
        },
        device,
      ),
      { device: device.publicKey, transportKey: device.publicKey },
    );
  return {
    reservers,
    newDevice,
    publish,
    wait: (ms: number) => void (nowMs += ms),
    logout: (device: SigningKey) => sessions.delete(Buffer.from(device.publicKey).toString('hex')),
  };
}

test('a device may reserve by the swarm that it signed, while its record and session last', async () => {
  const { reservers, newDevice, publish, wait, logout } = makeRig();
  const anna = newDevice();
  const swarm = makeSwarmKey(systemRandom);
  assert.equal(await reservers.mayReserve(swarm.peerId), false);
  publish(anna, swarm);
  publish(anna, swarm);
  assert.equal(await reservers.mayReserve(swarm.peerId), true);
  assert.throws(() => publish(anna, swarm, 1), { reason: 'BAD_FIELD' });
  wait(hourMs);
  assert.equal(await reservers.mayReserve(swarm.peerId), false, 'expired');
  const next = makeSwarmKey(systemRandom);
  publish(anna, next);
  assert.equal(await reservers.mayReserve(next.peerId), true);
  assert.equal(await reservers.mayReserve(swarm.peerId), false, 'the swarm before');
  logout(anna);
  assert.equal(await reservers.mayReserve(next.peerId), false);
});

test('who names the swarm of another first does not keep it out', async () => {
  const { reservers, newDevice, publish, logout } = makeRig();
  const [anna, mallory] = [newDevice(), newDevice()];
  const swarm = makeSwarmKey(systemRandom);
  publish(mallory, swarm);
  publish(anna, swarm);
  logout(mallory);
  assert.equal(await reservers.mayReserve(swarm.peerId), true);
  publish(mallory, makeSwarmKey(systemRandom));
  assert.equal(await reservers.mayReserve(swarm.peerId), true);
});
