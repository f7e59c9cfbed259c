/** Who may reserve at the node's relay: devices with a session, whatever others say of their swarms. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, signEndpointRecord, type SwarmKey } from '@quicprochat/p2p';
import { signingKeyFromSeed, systemClock, systemRandom, type SigningKey } from '@quicprochat/proto';
import type { NodeStore } from '../store/store.ts';
import { Reservers } from './reservers.ts';

const hourMs = 3_600_000;

function makeRig(guests = { all: 2, perDomain: 2, perUser: 2 }) {
  let nowMs = 1_800_000_000_000;
  const sessions = new Map<string, number>();
  const store: Pick<NodeStore, 'sessionByTransportKey'> = {
    sessionByTransportKey: async (key) => {
      const sessionExpiresMs = sessions.get(Buffer.from(key).toString('hex'));
      if (sessionExpiresMs === undefined) return undefined;
      return { identityPub: key, deviceId: '', sessionExpiresMs, userId: '' };
    },
  };
  const reservers = new Reservers(store, { ...systemClock, now: () => nowMs }, guests);
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
  const come = (device: SigningKey, swarm: SwarmKey, userId = 'bob@blue.example') =>
    reservers.publishGuest(recordOf(device, swarm), device.publicKey, userId);
  return {
    reservers,
    newDevice,
    publish,
    recordOf,
    come,
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
  const { reservers, recordOf, come, publish, newDevice, wait } = makeRig();
  const [one, two, three] = [newDevice(), newDevice(), newDevice()];
  const [first, third] = [makeSwarmKey(systemRandom), makeSwarmKey(systemRandom)];
  come(one, first);
  come(two, makeSwarmKey(systemRandom));
  come(one, first);
  assert.equal(await reservers.mayReserve(first.peerId), true);
  assert.throws(() => come(three, third), { reason: 'QUOTA' });
  assert.equal(await reservers.mayReserve(third.peerId), false);
  // Those of this node have theirs all the same.
  publish(three, third);
  assert.equal(await reservers.mayReserve(third.peerId), true);
  wait(hourMs);
  assert.equal(await reservers.mayReserve(first.peerId), false);
  const late = makeSwarmKey(systemRandom);
  come(newDevice(), late);
  assert.equal(await reservers.mayReserve(late.peerId), true);
  assert.throws(() => reservers.publishGuest(recordOf(one, first), two.publicKey, 'bob@x'), {
    reason: 'BAD_CREDENTIAL',
  });
});

test('a user and a domain with many devices leave places to others, and get theirs back', async () => {
  const { reservers, come, newDevice, wait } = makeRig({ all: 10, perDomain: 3, perUser: 2 });
  const guest = (userId: string, device = newDevice(), swarm = makeSwarmKey(systemRandom)) => {
    come(device, swarm, userId);
    return { device, swarm };
  };
  const first = guest('bob@blue.example');
  guest('bob@blue.example');
  assert.throws(() => guest('bob@blue.example'), { reason: 'QUOTA' });
  // With another swarm it is the same device still.
  const moved = guest('bob@blue.example', first.device);
  assert.equal(await reservers.mayReserve(first.swarm.peerId), false);
  assert.equal(await reservers.mayReserve(moved.swarm.peerId), true);
  guest('eve@blue.example');
  assert.throws(() => guest('dan@blue.example'), { reason: 'QUOTA' });
  guest('dan@green.example');
  wait(hourMs);
  guest('bob@blue.example');
  guest('bob@blue.example');
  guest('dan@blue.example');
  assert.throws(() => guest('eve@blue.example'), { reason: 'QUOTA' });
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

test('who shows another record of a guest than the guest itself costs it no place', async () => {
  const { reservers, newDevice, recordOf, wait } = makeRig();
  const [bob, swarm, other] = [newDevice(), makeSwarmKey(systemRandom), makeSwarmKey(systemRandom)];
  const show = (by: SwarmKey, seq: number): void =>
    reservers.publishGuest(recordOf(bob, by, seq), bob.publicKey, 'bob@blue.example');
  // The one with its addresses, which contacts have, is newer by one than the one for relays.
  show(swarm, 8);
  show(swarm, 7);
  assert.equal(await reservers.mayReserve(swarm.peerId), true);
  // Of a swarm that it had before, nothing is taken.
  assert.throws(() => show(other, 7), { reason: 'BAD_FIELD' });
  assert.equal(await reservers.mayReserve(other.peerId), false);
  show(other, 9);
  assert.equal(await reservers.mayReserve(swarm.peerId), false);
  wait(hourMs);
  show(swarm, 7);
  assert.equal(await reservers.mayReserve(swarm.peerId), true);
});
