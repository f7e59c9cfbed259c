/** A UDP socket whose packets the system refuses: strangers choose whom it answers. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { test } from 'node:test';
import { contractRuntime } from './contract-rig.ts';
import { openUdp, PacketSlab } from './quiche-socket.ts';

test('faults of a socket are told of once a minute, with their number', async (t) => {
  // Faults that the system alone can cause are put in at the border to Node.
  const sockets: dgram.Socket[] = [];
  const createSocket = dgram.createSocket.bind(dgram);
  t.mock.method(dgram, 'createSocket', (options: dgram.SocketOptions) => {
    const socket = createSocket(options);
    sockets.push(socket);
    return socket;
  });
  const { clock, lines, ...rest } = contractRuntime();
  let nowMs = 0;
  const runtime = { ...rest, clock: { ...clock, monotonic: () => nowMs } };
  const handlers = { onDatagram() {}, onLost() {} };
  const at = { host: '127.0.0.1', port: 0 };
  const socket = await openUdp(at, new PacketSlab(), runtime, handlers);
  t.after(() => socket.close());
  const flood = (): void => {
    for (let n = 0; n < 100; n += 1) {
      socket.sendCopy(new Uint8Array(8), { host: '127.0.0.1', port: 70_000 });
      sockets[0]?.emit('error', new Error('planted'));
    }
  };
  flood();
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0] ?? '', /^quic\.socket\.error .*"faults":1\b/);
  nowMs = 59_999;
  flood();
  assert.equal(lines.length, 1);
  nowMs = 60_000;
  flood();
  assert.equal(lines.length, 2);
  assert.match(lines[1] ?? '', /"faults":400\b/);
});
