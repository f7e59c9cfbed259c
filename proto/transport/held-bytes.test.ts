/** Peers that fill quiche with what nobody can read are ended; peers whose packets get lost are not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { callEcho, Rig } from './contract-rig.ts';
import { ForgingPeer, frames } from './forging-peer.ts';
import { HeldGuard } from './held-bytes.ts';
import { quicheEngine } from './quic-rig.ts';
import { CloseCode } from './transport.ts';
import { udpRelay } from './udp-relay.ts';

const mebibyte = 1024 * 1024;
const one = Buffer.of(0);

/** Pieces of one byte, none of which can be handed out: the byte before them never comes. */
const floods: Record<string, (n: number) => Uint8Array> = {
  'a hundred streams': (n) => frames.stream(4 * (n % 100), 1 + Math.floor(n / 100), one),
  'the handshake': (n) => frames.crypto(1 + n, one),
};

for (const [where, piece] of Object.entries(floods)) {
  test(`a peer that leaves a hole in ${where} and fills memory behind it is ended`, async (t) => {
    const rig = await Rig.listen(t, quicheEngine);
    const honest = await rig.dial();
    await callEcho(honest);
    await rig.accepted();
    const peer = await ForgingPeer.dial(rig.listener.endpoint);
    t.after(() => peer.close());
    const accepted = await rig.accepted();
    for (let n = 0, packets = 0; !peer.closed && peer.sentBytes < 16 * mebibyte; packets += 1) {
      const list: Uint8Array[] = [];
      for (let left = ForgingPeer.room - 12; left > 0; n += 1) {
        const frame = piece(n);
        list.push(frame);
        left -= frame.length;
      }
      peer.send(...list);
      if (packets % 32 === 0) await sleep(1);
    }
    const info = await accepted.closed;
    assert.deepEqual([info.failure, info.code, info.local], ['limit', CloseCode.Limit, true]);
    // Its window and a little more; what was under way behind the last byte counted comes on top.
    assert.ok(peer.sentBytes < 4 * mebibyte, `${peer.sentBytes} bytes`);
    await callEcho(honest);
  });
}

test('requests get through a path that loses three of ten datagrams, on one connection', async (t) => {
  const rig = await Rig.listen(t, quicheEngine);
  const relay = await udpRelay(rig.listener.endpoint);
  t.after(() => relay.close());
  const connection = await rig.dial({}, relay.endpoint);
  // The same ones are lost each time; some in a row, and some of those that were sent again.
  let state = 1;
  relay.onDatagram = (datagram) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return (state >> 16) % 10 < 3 ? [] : [datagram];
  };
  await Promise.all(Array.from({ length: 100 }, (_, n) => callEcho(connection, n, 300)));
  await Promise.all(Array.from({ length: 4 }, (_, n) => callEcho(connection, n, 8 * 1024)));
  assert.ok(!rig.runtime.lines.some((line) => line.startsWith('quic.connection.flooded')));
});

/** An account of a connection that is established, what quiche took, and whether it was ended. */
function accountOf(guard: HeldGuard) {
  const state = { taken: 0, isEnded: false };
  const account = guard.open({
    windowBytes: 2 * mebibyte,
    now: 0,
    taken: () => state.taken,
    end: () => {
      state.isEnded = true;
      guard.close(account);
    },
  });
  account.established();
  return { account, state };
}

/** As many bytes in a turn that explains none of them, beyond what is explained in advance. */
function receive({ account, state }: ReturnType<typeof accountOf>, bytes: number): void {
  state.taken += bytes;
  account.received(bytes);
  account.settle(0);
}

test('of many peers that go far together the one that went farthest is ended', () => {
  const guard = new HeldGuard(3 * mebibyte);
  const first = accountOf(guard);
  const peers = [first, ...Array.from({ length: 3 }, () => accountOf(guard))];
  const small = accountOf(guard);
  receive(small, 3 * 1024);
  for (const [index, peer] of peers.entries()) receive(peer, (700 + index) * 1024);
  assert.ok(peers.every(({ state }) => !state.isEnded));
  receive(first, 300 * 1024);
  assert.deepEqual(
    peers.map(({ state }) => state.isEnded),
    [true, false, false, false],
  );
  assert.ok(guard.bytes < 3 * mebibyte);
  // Who has next to nothing is never the one.
  for (const peer of peers.slice(1)) receive(peer, 500 * 1024);
  assert.ok(!small.state.isEnded);
  assert.ok(guard.bytes < 3 * mebibyte);
});

test('what is read explains what came, and a packet of junk explains itself by none of its bytes', () => {
  const guard = new HeldGuard(16 * mebibyte);
  const honest = accountOf(guard);
  for (let n = 0; n < 10_000; n += 1) {
    honest.account.read(1250);
    receive(honest, 1300);
  }
  assert.equal(honest.account.bytes, 0);
  const junk = accountOf(guard);
  for (let n = 0; n < 2500 && !junk.state.isEnded; n += 1) {
    // A byte on each of a hundred streams.
    for (let stream = 0; stream < 100; stream += 1) junk.account.read(1);
    receive(junk, 1300);
  }
  assert.ok(junk.state.isEnded);
});

test('a handshake may bring less than a connection', () => {
  const guard = new HeldGuard(16 * mebibyte);
  let [isEnded, taken] = [false, 0];
  const end = (): boolean => (isEnded = true);
  const account = guard.open({ windowBytes: 2 * mebibyte, now: 0, taken: () => taken, end });
  for (let n = 0; n < 400 && !isEnded; n += 1) {
    taken += 1200;
    account.received(1200);
    account.settle(0);
  }
  assert.ok(isEnded && account.bytes < 160 * 1024);
});

test('what quiche dropped is not held against the peer, before its handshake and behind it', () => {
  const guard = new HeldGuard(16 * mebibyte);
  const victim = accountOf(guard);
  const junk = (bytes: number): void => {
    victim.account.received(bytes);
    victim.account.settle(0);
  };
  for (let n = 0; n < 10_000; n += 1) junk(1300);
  assert.ok(!victim.state.isEnded && victim.account.bytes <= 64 * 1024);
  // Nor does it pay for what the peer itself sends later.
  for (let n = 0; n < 3000 && !victim.state.isEnded; n += 1) receive(victim, 1300);
  assert.ok(victim.state.isEnded && victim.account.bytes < 3 * mebibyte);
});

test('of many that an onlooker writes to none is ended in the place of who did it', () => {
  const guard = new HeldGuard(mebibyte);
  const victims = Array.from({ length: 40 }, () => accountOf(guard));
  for (const { account } of victims) {
    account.received(300 * 1024);
    account.settle(0);
    account.received(50 * 1024);
    account.settle(0);
  }
  const culprit = accountOf(guard);
  receive(culprit, 300 * 1024);
  receive(culprit, 1024 * 1024);
  assert.ok(victims.every(({ state }) => !state.isEnded));
  assert.ok(culprit.state.isEnded);
});
