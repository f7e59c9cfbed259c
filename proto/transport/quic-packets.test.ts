/** Garbage, altered, repeated and corrupted UDP packets at a QUIC listener: calls go on. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { callEcho, Rig } from './contract-rig.ts';
import { quicEngineNames, quicEngines } from './quic-rig.ts';
import { udpRelay } from './udp-relay.ts';

/** A small generator with a printed seed, so that a failure can be run again. */
function randomFrom(t: TestContext, seed: number) {
  t.diagnostic(`seed ${seed}`);
  let state = seed >>> 0;
  const next = (bound: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => next(256)));
  return { next, bytes };
}

/** Random bytes, bytes that look like QUIC headers, and altered copies of a real packet. */
function badPacket(random: ReturnType<typeof randomFrom>, real: Buffer): Buffer {
  switch (random.next(5)) {
    case 0:
      return random.bytes(random.next(1400));
    case 1: {
      // A long header of version 1: Initial, 0-RTT, Handshake or Retry, full-sized.
      const packet = random.bytes(1200);
      packet[0] = 0xc0 | (random.next(4) << 4);
      packet.writeUInt32BE(1, 1);
      packet[5] = random.next(30);
      return packet;
    }
    case 2: {
      const packet = Buffer.from(real);
      for (let flips = 0; flips < 1 + random.next(8); flips += 1) {
        const at = random.next(packet.length);
        packet[at] = (packet[at] ?? 0) ^ (1 << random.next(8));
      }
      return packet;
    }
    case 3:
      return real.subarray(0, random.next(real.length));
    default:
      // Another version: the listener must answer with its own, or not at all.
      return Buffer.concat([Buffer.of(0xc0), random.bytes(4), real.subarray(5)]);
  }
}

function failOnUnhandled(t: TestContext): void {
  const seen: unknown[] = [];
  const remember = (error: unknown): void => void seen.push(error);
  process.on('unhandledRejection', remember);
  t.after(() => {
    process.off('unhandledRejection', remember);
    assert.deepEqual(seen, []);
  });
}

for (const name of quicEngineNames) {
  const make = quicEngines[name];
  test(`${name}: thousands of bad packets at the listener harm nobody`, async (t) => {
    failOnUnhandled(t);
    const startMs = performance.now();
    const random = randomFrom(t, 20_261);
    const rig = await Rig.listen(t, make);
    const relay = await udpRelay(rig.listener.endpoint);
    t.after(() => relay.close());
    const recorded: Buffer[] = [];
    relay.onDatagram = (datagram, towards) => {
      if (towards === 'listener' && recorded.length < 40) recorded.push(Buffer.from(datagram));
      return [datagram];
    };
    const live = await rig.dial({}, relay.endpoint);
    await callEcho(live);
    const attacker = createSocket('udp4');
    t.after(() => attacker.close());
    const { port } = rig.listener.endpoint;
    const before = process.memoryUsage().rss;
    for (let count = 0; count < 4000; count += 1) {
      const real = recorded[random.next(recorded.length)];
      assert.ok(real);
      // One in ten is a true packet, sent again from a foreign address.
      const packet = random.next(10) === 0 ? real : badPacket(random, real);
      await new Promise((resolve) => attacker.send(packet, port, '127.0.0.1', resolve));
      if (count % 500 === 0) await callEcho(live);
      if (count % 50 === 0) await setImmediate();
    }
    await callEcho(live);
    await callEcho(await rig.dial());
    // One line a minute, however many of the packets are faults to the engine.
    const faults = rig.runtime.lines.filter((line) => line.startsWith('quic.packet.fault'));
    assert.ok(
      faults.length <= 1 + (performance.now() - startMs) / 60_000,
      `${faults.length} lines`,
    );
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 200 * 1024 * 1024, `${grown} bytes of memory`);
  });

  test(`${name}: bad packets from the address of a live connection do not end it`, async (t) => {
    failOnUnhandled(t);
    const random = randomFrom(t, 20_262);
    const rig = await Rig.listen(t, make);
    const relay = await udpRelay(rig.listener.endpoint);
    t.after(() => relay.close());
    const connection = await rig.dial({}, relay.endpoint);
    await callEcho(connection);
    relay.onDatagram = (datagram) => {
      // A third is corrupted, a third doubled, and every one is followed by an altered copy.
      const altered = badPacket(random, datagram);
      if (random.next(3) === 0) return [altered];
      return random.next(2) === 0 ? [datagram, datagram, altered] : [datagram, altered];
    };
    for (let id = 0; id < 12; id += 1) await callEcho(connection, id, 3000);
    relay.onDatagram = (datagram) => [datagram];
    await callEcho(connection);
  });

  test(`${name}: a first packet that is too short to be one gets no answer`, async (t) => {
    const rig = await Rig.listen(t, make);
    const socket = createSocket('udp4');
    t.after(() => socket.close());
    let answers = 0;
    socket.on('message', () => (answers += 1));
    const { port } = rig.listener.endpoint;
    const initial = (length: number, version: number): Buffer => {
      const packet = Buffer.alloc(length);
      packet[0] = 0xc0;
      packet.writeUInt32BE(version, 1);
      packet[5] = 8;
      packet[14] = 8;
      return packet;
    };
    socket.send(initial(1199, 1), port, '127.0.0.1');
    socket.send(initial(1199, 0x0a0a0a0a), port, '127.0.0.1');
    socket.send(initial(1200, 0x0a0a0a0a), port, '127.0.0.1');
    // The third is answered with the versions that are spoken; the first two came before it.
    const [answer] = (await once(socket, 'message')) as [Buffer];
    assert.equal(answer.readUInt32BE(1), 0);
    assert.equal(answers, 1);
  });
}
