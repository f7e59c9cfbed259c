/** Who may reserve at the node's relay: devices with a session, whatever others say of their swarms. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, signEndpointRecord, type SwarmKey } from '@quicprochat/p2p';
import { signingKeyFromSeed, systemClock, systemRandom, type SigningKey } from '@quicprochat/proto';
import type { NodeStore } from '../store/store.ts';
import { Reservers } from './reservers.ts';

const hourMs = 3_600_000;

function makeRig(guestsMax = 2) {
  let nowMs = 1_800_000_000_000;
  const sessions = new Map<string, number>();
  const store: Pick<NodeStore, 'sessionByTransportKey'> = {
    sessionByTransportKey: async (key) => {
      const sessionExpiresMs = sessions.get(Buffer.from(key).toString('hex'));
      if (sessionExpiresMs === undefined) return undefined;
      return { identityPub: key, deviceId: '', sessionExpiresMs, userId: '' };
    },
  };
  const reservers = new Reservers(store, { ...systemClock, now: () => nowMs }, guestsMax);
  const newDevice = () => {
    const key = signingKeyFromSeed(systemRandom.bytes(32));
    sessions.set(Buffer.from(key.publicKey).toString('hex'), nowMs + 24 * hourMs);
    return key;
  };
  const recordOf = (device: SigningKey, swarm: SwarmKey, seq = nowMs) =>
    signEndpointRecord(
      {
        ...{ swarmKey: swarm.publicKey, addresses: [], relays: [], mailboxes: [] },
        ...{ seq, issuedMs: nowMs, expiresMs: nowMs + hourMs },
      },
      device,
    );
  const publish = (device: SigningKey, swarm: SwarmKey, seq = nowMs, isShared = false) =>
    reservers.publish(recordOf(device, swarm, seq), {
      ...{ device: device.publicKey, transportKey: device.publicKey, isShared },
    });
  return {
    reservers,
    newDevice,
    publish,
    recordOf,
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

test('guests have places of their own, so many, for as long as their records last', async () => {
  const { reservers, recordOf, publish, newDevice, wait } = makeRig(2);
  const guests = [1, 2, 3].map(() => ({ device: newDevice(), swarm: makeSwarmKey(systemRandom) }));
  const come = ({ device, swarm }: (typeof guests)[number]) =>
    reservers.publishGuest(recordOf(device, swarm), device.publicKey);
  const [one, two, three] = guests;
  assert(one !== undefined && two !== undefined && three !== undefined);
  come(one);
  come(two);
  come(one);
  assert.equal(await reservers.mayReserve(one.swarm.peerId), true);
  assert.throws(() => come(three), { reason: 'QUOTA' });
  assert.equal(await reservers.mayReserve(three.swarm.peerId), false);
  // Those of this node have theirs all the same.
  publish(three.device, three.swarm);
  assert.equal(await reservers.mayReserve(three.swarm.peerId), true);
  wait(hourMs);
  assert.equal(await reservers.mayReserve(one.swarm.peerId), false);
  const late = { device: newDevice(), swarm: makeSwarmKey(systemRandom) };
  come(late);
  assert.equal(await reservers.mayReserve(late.swarm.peerId), true);
  assert.throws(
    () => reservers.publishGuest(recordOf(one.device, one.swarm), two.device.publicKey),
    {
      reason: 'BAD_CREDENTIAL',
    },
  );
});

test('a record is told while its device wants that and has a session', async () => {
  const { reservers, publish, newDevice, logout } = makeRig();
  const anna = newDevice();
  const swarm = makeSwarmKey(systemRandom);
  publish(anna, swarm);
  assert.equal(await reservers.shared(anna.publicKey), undefined);
  publish(anna, swarm, undefined, true);
  assert.notEqual(await reservers.shared(anna.publicKey), undefined);
  logout(anna);
  assert.equal(await reservers.shared(anna.publicKey), undefined);
});
