/** QUIC peers that are processes of their own and die by SIGKILL, and sockets that die under us. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { test, type TestContext } from 'node:test';
import { callEcho, patient, rejectsWith, Rig } from './contract-rig.ts';
import { quicEngineNames, quicEngines, type QuicEngineName } from './quic-rig.ts';

const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };
const limits = { idleMs: 1000, keepAliveMs: 200 };

/** Starts quic-peer.ts; `next` is its next line. */
function startPeer(t: TestContext, name: QuicEngineName, ...args: readonly string[]) {
  const script = fileURLToPath(new URL('./quic-peer.ts', import.meta.url));
  const child = spawn(process.execPath, [script, name, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    kill: async () => {
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
    next: async (): Promise<unknown> => JSON.parse(String((await lines.next()).value)),
  };
}

for (const name of quicEngineNames) {
  const make = quicEngines[name];
  test(`${name}: a dialer killed in the middle of a call is noticed and its handler told`, async (t) => {
    const entered = Promise.withResolvers<AbortSignal>();
    const rig = await Rig.listen(t, make, {
      limits,
      onCall: async (_incoming, { signal }) => {
        entered.resolve(signal);
        return new Promise(() => {});
      },
    });
    const peer = startPeer(t, name, 'dial', String(rig.listener.endpoint.port));
    assert.deepEqual(await peer.next(), { state: 'dialed' });
    const signal = await entered.promise;
    const aborted = once(signal, 'abort');
    await peer.kill();
    const { failure, reason, local } = await (await rig.accepted()).closed;
    assert.deepEqual([failure, reason, local], ['closed', 'idle time-out', true]);
    await aborted;
  });

  test(`${name}: a listener killed in the middle of a call fails the call`, async (t) => {
    const rig = await Rig.listen(t, make, { limits });
    const peer = startPeer(t, name, 'listen');
    const { port, spki } = (await peer.next()) as { port: number; spki: string };
    const connection = await rig.dial(
      { pins: [Buffer.from(spki, 'base64url')] },
      { host: '127.0.0.1', port },
    );
    const failed = rejectsWith(connection.call(request, patient), 'closed');
    assert.deepEqual(await peer.next(), { state: 'called' });
    await peer.kill();
    await failed;
    assert.equal((await connection.closed).reason, 'idle time-out');
  });

  test(`${name}: a listener whose socket is lost binds its port again`, async (t) => {
    // The fault is put in at the border to Node: the sockets that the engine makes are remembered.
    const sockets: dgram.Socket[] = [];
    const createSocket = dgram.createSocket.bind(dgram);
    t.mock.method(dgram, 'createSocket', (options: dgram.SocketOptions) => {
      const socket = createSocket(options);
      sockets.push(socket);
      return socket;
    });
    const rig = await Rig.listen(t, make);
    const first = await rig.dial();
    await callEcho(first);
    const { port } = rig.listener.endpoint;
    const own = sockets.find((socket) => socket.address().port === port);
    assert.ok(own);
    own.emit('error', new Error('planted: not fatal'));
    await callEcho(first);
    const accepted = await rig.accepted();
    own.close();
    assert.equal((await accepted.closed).reason, 'socket lost');
    // A dial that comes before the port is bound again is sent again by QUIC itself.
    await callEcho(await rig.dial());
    assert.equal(rig.listener.endpoint.port, port);
    assert.ok(rig.runtime.lines.some((line) => line.startsWith('quic.listener.lost')));
  });
}
