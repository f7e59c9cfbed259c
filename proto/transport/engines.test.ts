/** Several engines as one: a shared port, the head start, who is remembered, and what is final. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { suite, test } from 'node:test';
import { TransportError } from '../status.ts';
import { callEcho, contractRuntime, echo, fourMiB, rejectsWith } from './contract-rig.ts';
import { makeIdentity } from './certificate.ts';
import { inOrder, transportOf, type EngineName } from './engines.ts';
import {
  defaultLimits,
  type DialOptions,
  type ListenOptions,
  type Transport,
} from './transport.ts';

const runtime = contractRuntime();
const [listening, dialing] = [
  await makeIdentity(runtime.random),
  await makeIdentity(runtime.random),
];
const limits = { ...defaultLimits, handshakeMs: 1_500 };
const base = { limits, maxRequestBytes: () => fourMiB };
const dialOptions: DialOptions = { ...base, identity: dialing, pins: [listening.spkiSha256] };
const listenOptions: ListenOptions = {
  ...base,
  endpoint: { host: '127.0.0.1', port: 0 },
  identity: listening,
  onConnection: (connection) => connection.onCall(echo),
};
const order = { headStartMs: 150, rememberMs: 60_000, rememberedNodes: 2 };

/** A real engine that says when it is dialed. */
function watched(name: EngineName, dialed: string[], refuse?: () => TransportError): Transport {
  const engine = transportOf(runtime, [name]);
  return {
    ...engine,
    name,
    listen: (options) => engine.listen(options),
    dial(endpoint, options) {
      dialed.push(name);
      return refuse ? Promise.reject(refuse()) : engine.dial(endpoint, options);
    },
  };
}

suite('engines in order', () => {
  test('a listener on all engines has one port, and either answers', async () => {
    const both = transportOf(runtime, ['quic', 'tls']);
    const listener = await both.listen(listenOptions);
    for (const name of ['quic', 'tls'] as const) {
      const connection = await transportOf(runtime, [name]).dial(listener.endpoint, dialOptions);
      await callEcho(connection);
      await connection.close(0, 'done');
    }
    await listener.close(0, 'done');
  });

  test('the first engine that answers is the only one dialed', async () => {
    const dialed: string[] = [];
    const engines = [watched('quic', dialed), watched('tls', dialed)];
    const both = inOrder(runtime.clock, engines, order);
    const listener = await both.listen(listenOptions);
    const connection = await both.dial(listener.endpoint, dialOptions);
    await callEcho(connection);
    assert.deepEqual(dialed, ['quic']);
    await connection.close(0, 'done');
    await listener.close(0, 'done');
  });

  test('where UDP does not pass, TLS takes over after the head start, then goes first', async (t) => {
    const dialed: string[] = [];
    const engines = [watched('quic', dialed), watched('tls', dialed)];
    const both = inOrder(runtime.clock, engines, order);
    // The listener is TLS alone; a UDP socket that says nothing stands on the same port.
    const silent = createSocket('udp4').bind(0, '127.0.0.1');
    await once(silent, 'listening');
    t.after(() => silent.close());
    const endpoint = { host: '127.0.0.1', port: silent.address().port };
    const listener = await transportOf(runtime, ['tls']).listen({ ...listenOptions, endpoint });
    t.after(() => listener.close(0, 'done'));
    const startMs = runtime.clock.monotonic();
    const connection = await both.dial(listener.endpoint, dialOptions);
    const tookMs = runtime.clock.monotonic() - startMs;
    await callEcho(connection);
    assert.ok(tookMs >= order.headStartMs && tookMs < limits.handshakeMs, `${tookMs} ms`);
    assert.deepEqual(dialed.splice(0), ['quic', 'tls']);
    const again = await both.dial(listener.endpoint, dialOptions);
    assert.deepEqual(dialed, ['tls']);
    await again.close(0, 'done');
    await connection.close(0, 'done');
  });

  test('the better engine is tried again when the time is over', async (t) => {
    const dialed: string[] = [];
    const unreachable = () => new TransportError('unreachable', 'test: no UDP');
    const engines = [watched('quic', dialed, unreachable), watched('tls', dialed)];
    const both = inOrder(runtime.clock, engines, { ...order, rememberMs: 0 });
    const listener = await transportOf(runtime, ['tls']).listen(listenOptions);
    t.after(() => listener.close(0, 'done'));
    for (let count = 0; count < 2; count += 1) {
      // A failure hands over at once.
      const connection = await both.dial(listener.endpoint, dialOptions);
      await connection.close(0, 'done');
    }
    assert.deepEqual(dialed, ['quic', 'tls', 'quic', 'tls']);
  });

  test('a wrong identity is final, a signal ends all dials, no answer fails', async (t) => {
    const dialed: string[] = [];
    const both = inOrder(runtime.clock, [watched('quic', dialed), watched('tls', dialed)], {
      ...order,
      headStartMs: 5_000,
    });
    const listener = await both.listen(listenOptions);
    t.after(() => listener.close(0, 'done'));
    const pins = [dialing.spkiSha256];
    await rejectsWith(both.dial(listener.endpoint, { ...dialOptions, pins }), 'refusedIdentity');
    assert.deepEqual(dialed, ['quic']);
    const signal = AbortSignal.abort();
    await rejectsWith(both.dial(listener.endpoint, { ...dialOptions, signal }), 'cancelled');
    const nobody = { host: '127.0.0.1', port: 9 };
    await rejectsWith(both.dial(nobody, dialOptions), 'timeout', 'unreachable');
  });
});
