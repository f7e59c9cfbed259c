/** What crosses between a listener's processes ends with its connection, whoever forgot to answer. */
import assert from 'node:assert/strict';
import { suite, test, type TestContext } from 'node:test';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { contractRuntime, fourMiB, rejectsWith } from './contract-rig.ts';
import { Status } from '../status.ts';
import { makeIdentity } from './certificate.ts';
import { memoryNetwork } from './memory.ts';
import { PortRpc, type Port } from './port-rpc.ts';
import {
  ExposedConnections,
  RemoteConnections,
  type RemoteConnection,
} from './remote-connection.ts';
import { CloseCode, defaultLimits, type CallHandler, type Connection } from './transport.ts';

/** The two ends of a process's channel. */
function ends(t: TestContext): { readonly there: PortRpc; readonly here: PortRpc } {
  const { port1, port2 } = new MessageChannel();
  t.after(() => port1.close());
  const portOf = (port: MessagePort): Port => ({
    post: (messages) => port.postMessage(messages),
    onMessages: (listener) => void port.on('message', listener),
  });
  return { there: new PortRpc(portOf(port1)), here: new PortRpc(portOf(port2)) };
}

suite('connections of another process', () => {
  test('one that nobody took ends its calls and push streams when it closes', async (t) => {
    const { there, here } = ends(t);
    const connections = new RemoteConnections(here, () => {});
    const peer = { spkiSha256: new Uint8Array(32), address: 'a', host: 'a' };
    there.notify('opened', { connection: 1, peer });
    const request = { methodId: 1, requestId: 1, payload: new Uint8Array(8) };
    const frame = { kind: 1, payload: new Uint8Array(8) };
    const waiting = [
      there.request('call', { connection: 1, request }),
      there.request('push-opened', { connection: 1, stream: 2 }),
      there.request('push-frame', { connection: 1, stream: 2, frame }),
    ];
    const info = { failure: 'closed', code: 0, reason: 'gone', local: false };
    there.notify('closed', { connection: 1, info });
    const [call, opened, given] = waiting;
    assert(call !== undefined && opened !== undefined);
    await rejectsWith(call, 'closed');
    await rejectsWith(opened, 'closed');
    assert.equal(await given, false);
    assert.deepEqual(connections.all, []);
  });

  test('push streams that were not ended are let go with their connection', async (t) => {
    const { there, here } = ends(t);
    const opened = Promise.withResolvers<RemoteConnection>();
    const connections = new RemoteConnections(here, opened.resolve);
    const exposed = new ExposedConnections(there);
    const runtime = contractRuntime();
    const [node, device] = [await makeIdentity(runtime.random), await makeIdentity(runtime.random)];
    const network = memoryNetwork(runtime);
    const accepted = Promise.withResolvers<Connection>();
    const common = { limits: defaultLimits, maxRequestBytes: () => fourMiB };
    const listener = await network.transport('node').listen({
      ...common,
      endpoint: { host: 'node', port: 1 },
      identity: node,
      onConnection: (connection) => {
        exposed.add(connection);
        accepted.resolve(connection);
      },
    });
    t.after(() => listener.close(CloseCode.Normal, 'over'));
    const dialed = await network
      .transport('device')
      .dial({ host: 'node', port: 1 }, { ...common, identity: device });
    const connection = await opened.promise;
    const open = async (): Promise<unknown> => here.request('open-push', { connection: 1 });
    const stream = await open();
    await dialed.close(CloseCode.Normal, 'gone');
    await (
      await accepted.promise
    ).closed;
    await connection.closed;
    const frame = { kind: 1, payload: new Uint8Array(8) };
    const late = here.request('write-push', { connection: 1, stream, frame });
    const error = await rejectsWith(late, 'closed');
    // The process has no such stream any more: its own words, not those of the stream.
    assert.equal(error.message, 'push: closed');
    assert.deepEqual(connections.all, []);
  });

  test('calls above what may wait for the other process are refused where they came in', async (t) => {
    const { there, here } = ends(t);
    const gate = Promise.withResolvers<void>();
    let crossed = 0;
    here.onRequest('call', async (body) => {
      const { request } = body as { request: { requestId: number; payload: Uint8Array } };
      crossed += 1;
      await gate.promise;
      return { status: 0, requestId: request.requestId, payload: request.payload };
    });
    const exposed = new ExposedConnections(there, { calls: 3, bytes: 1000 });
    const handler = Promise.withResolvers<CallHandler>();
    const connection: Connection = {
      peer: { spkiSha256: new Uint8Array(32), address: 'a', host: 'a' },
      call: () => Promise.reject(new Error('nobody calls here')),
      onCall: handler.resolve,
      openPushStream: () => Promise.reject(new Error('nobody pushes here')),
      onPushStream() {},
      close: async () => {},
      closed: new Promise(() => {}),
    };
    exposed.add(connection);
    const serve = await handler.promise;
    const { signal } = new AbortController();
    const call = async (requestId: number, bytes: number): Promise<readonly number[]> => {
      const request = { methodId: 1, requestId, payload: new Uint8Array(bytes) };
      const response = await serve(request, { signal });
      return [response.status, response.requestId];
    };
    const first = call(1, 600);
    assert.deepEqual(await call(2, 401), [Status.ResourceExhausted, 2]);
    const [second, third] = [call(3, 400), call(4, 0)];
    assert.deepEqual(await call(5, 0), [Status.ResourceExhausted, 5]);
    gate.resolve();
    assert.deepEqual(await Promise.all([first, second, third]), [
      [0, 1],
      [0, 3],
      [0, 4],
    ]);
    assert.deepEqual(await call(6, 1000), [0, 6]);
    assert.equal(crossed, 4);
  });
});
