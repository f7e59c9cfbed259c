/** What the listener answers to packets that belong to no connection, and what it leaves unanswered. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test, type TestContext } from 'node:test';
import { systemRandom } from '../runtime.ts';
import { callEcho, contractRuntime, Rig } from './contract-rig.ts';
import { quicheEngine } from './quic-rig.ts';
import { openUdp, PacketSlab } from './quiche-socket.ts';
import type { Endpoint } from './transport.ts';

const [initial, zeroRtt, handshake, retry] = [0xc0, 0xd0, 0xe0, 0xf0] as const;

/** A datagram with a long header (RFC 9000 section 17.2), filled up with noise. */
function long(type: number, version: number, token?: Uint8Array, bytes = 1200): Buffer {
  const packet = Buffer.from(systemRandom.bytes(bytes));
  packet[0] = type | 3;
  packet.writeUInt32BE(version, 1);
  packet[5] = packet[14] = 8;
  if (!token) return packet;
  packet[23] = token.length;
  packet.set(token, 24);
  return packet;
}

/** A stranger's socket, and what has come back to it. */
async function stranger(t: TestContext, to: Endpoint) {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  const answers: Buffer[] = [];
  socket.on('message', (data) => answers.push(Buffer.from(data)));
  return {
    answers,
    send: (packet: Buffer) => socket.send(packet, to.port, to.host),
    /** What has come up to the answer to one more first packet, without that. */
    settle: async (): Promise<Buffer[]> => {
      const last = long(initial, 1, Buffer.alloc(0));
      socket.send(last, to.port, to.host);
      for (;;) {
        const at = answers.findIndex((one) => one.subarray(6, 14).equals(last.subarray(15, 23)));
        if (at >= 0) return answers.slice(0, at);
        await once(socket, 'message');
      }
    },
  };
}

test('a first packet without a token gets a Retry of less than its size, and costs no handshake', async (t) => {
  const rig = await Rig.listen(t, quicheEngine, {
    listenerLimits: { handshakesPerHostPerSecond: 1 },
  });
  const { answers, send } = await stranger(t, rig.listener.endpoint);
  for (let round = 0; round < 40; round += 1) {
    for (let n = 0; n < 25; n += 1) send(long(initial, 1, Buffer.alloc(0)));
    await rig.runtime.clock.sleep(1);
  }
  // Were one of the thousand counted, or kept, this one would not get in.
  await callEcho(await rig.dial());
  assert.ok(answers.length > 0);
  for (const packet of answers) {
    assert.equal((packet[0] ?? 0) & 0xf0, retry);
    assert.ok(packet.length < 200, `${packet.length} bytes`);
  }
});

test('a token that is not ours, and what belongs to no connection, gets no answer', async (t) => {
  const rig = await Rig.listen(t, quicheEngine);
  const { send, settle } = await stranger(t, rig.listener.endpoint);
  send(long(initial, 1, systemRandom.bytes(54)));
  send(long(initial, 1, systemRandom.bytes(1)));
  send(long(zeroRtt, 1));
  send(long(handshake, 1));
  send(long(retry, 1));
  // Version 0 is an answer itself; to answer it would have two listeners talk for ever.
  send(long(initial, 0));
  // A short header with an unknown id: no stateless reset, which would be the same for all.
  send(Buffer.concat([Buffer.of(0x41), systemRandom.bytes(1300)]));
  // Too short for a client's first packet.
  send(long(initial, 1, Buffer.alloc(0), 1199));
  assert.deepEqual(await settle(), []);
});

test('another version is answered with those there are', async (t) => {
  const rig = await Rig.listen(t, quicheEngine);
  const { send, settle } = await stranger(t, rig.listener.endpoint);
  const asked = long(initial, 0x0a0a0a0a);
  send(asked);
  send(long(initial, 0x0a0a0a0a, undefined, 1199));
  const [answer, ...more] = await settle();
  assert.ok(answer && more.length === 0);
  assert.equal(answer.readUInt32BE(1), 0);
  // Both ids come back, changed over, and version 1 is in the list (RFC 9000 section 17.2.1).
  assert.deepEqual(answer.subarray(6, 14), asked.subarray(15, 23));
  assert.deepEqual(answer.subarray(15, 23), asked.subarray(6, 14));
  const versions = answer.subarray(23);
  assert.ok(
    Array.from({ length: versions.length / 4 }, (_, n) => versions.readUInt32BE(4 * n)).includes(1),
  );
});

test('what the system refuses to send is a lost packet', async (t) => {
  const runtime = contractRuntime();
  const got: string[] = [];
  const socket = await openUdp({ host: '127.0.0.1', port: 0 }, new PacketSlab(), runtime.log, {
    onDatagram: (data) => got.push(data.toString()),
    onLost: () => assert.fail('lost'),
  });
  t.after(() => socket.close());
  // EMSGSIZE, no route, the other family, no such port.
  socket.sendCopy(new Uint8Array(70_000), socket.local);
  socket.sendCopy(Buffer.from('x'), { host: '240.0.0.1', port: 9 });
  socket.sendCopy(Buffer.from('x'), { host: '::1', port: 9 });
  socket.sendCopy(Buffer.from('x'), { host: '127.0.0.1', port: 65_536 });
  const refused = Promise.withResolvers<Error>();
  socket.room();
  socket.send(100, { host: '240.0.0.1', port: 9 }, refused.resolve);
  assert.ok((await refused.promise) instanceof Error);
  socket.sendCopy(Buffer.from('still here'), socket.local);
  while (got.length === 0) await runtime.clock.sleep(1);
  assert.deepEqual(got, ['still here']);
});
