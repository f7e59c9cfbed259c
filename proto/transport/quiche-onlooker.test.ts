/**
 * Somebody who sees a connection's packets, and can send some of their own but stop none: neither junk
 * with the right connection id nor copies of what was sent end the connection (RFC 9000 section 21.1.3.2).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { callEcho, Rig } from './contract-rig.ts';
import { quicheEngine } from './quic-rig.ts';
import { udpRelay } from './udp-relay.ts';

const mebibyte = 1024 * 1024;

/** The same with one byte changed: nobody can open it. */
function altered(datagram: Buffer): Buffer {
  const copy = Buffer.from(datagram);
  copy.writeUInt8(copy.readUInt8(copy.length - 1) ^ 1, copy.length - 1);
  return copy;
}

test('neither end blames its peer for what an onlooker sent', async (t) => {
  const rig = await Rig.listen(t, quicheEngine);
  const relay = await udpRelay(rig.listener.endpoint);
  t.after(() => relay.close());
  const connection = await rig.dial({}, relay.endpoint);
  const sent = { listener: 0, dialer: 0 };
  relay.onDatagram = (datagram, towards) => {
    // More would not fit into the socket's buffer.
    const list = Array.from({ length: 24 }, (_, n) => (n % 2 ? datagram : altered(datagram)));
    sent[towards] += datagram.length * list.length;
    return [datagram, ...list];
  };
  // A listener allows 2.5 MiB that nobody can read, a dialer 10.5.
  for (let n = 0; sent.listener < 4 * mebibyte || sent.dialer < 12 * mebibyte; n += 1) {
    await callEcho(connection, n, 1200);
  }
  const blamed = rig.runtime.lines.filter((line) => line.startsWith('quic.connection.flooded'));
  assert.deepEqual(blamed, []);
});

test('an onlooker’s junk is no sign of life: a silent connection is kept alive all the same', async (t) => {
  const limits = { keepAliveMs: 100, idleMs: 1500 };
  const rig = await Rig.listen(t, quicheEngine, { limits });
  const relay = await udpRelay(rig.listener.endpoint);
  t.after(() => relay.close());
  const connection = await rig.dial({}, relay.endpoint);
  const seen: Partial<Record<'listener' | 'dialer', Buffer>> = {};
  relay.onDatagram = (datagram, towards) => {
    seen[towards] = Buffer.from(datagram);
    return [datagram];
  };
  await callEcho(connection);
  relay.onDatagram = (datagram) => [datagram];
  for (let waited = 0; waited < 2500; waited += 50) {
    relay.inject(altered(seen.listener ?? Buffer.alloc(0)), 'listener');
    relay.inject(altered(seen.dialer ?? Buffer.alloc(0)), 'dialer');
    await sleep(50);
  }
  await callEcho(connection, 2);
});
