/**
 * A thread of the QUIC listener: one socket of the shared port with its connections, whose calls and
 * pushes are handed to the main thread. Started by quiche-threads.ts.
 */
import type { RemoteInfo } from 'node:dgram';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { systemClock, systemRandom, type Log, type Runtime } from '../runtime.ts';
import { loadIdentity } from './certificate.ts';
import { PortRpc } from './port-rpc.ts';
import { QuicheListener } from './quiche-listener.ts';
import { loadQuiche } from './quiche-native.ts';
import { Turn } from './quiche-turn.ts';
import { ExposedConnections } from './thread-connection.ts';
import type { Endpoint, TransportLimits } from './transport.ts';

/** What a thread is started with. */
export interface ThreadInput {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly limits: TransportLimits;
  /** Bound of a request's payload for every method id, 65 536 words that all threads share. */
  readonly bounds: SharedArrayBuffer;
  readonly index: number;
  readonly count: number;
}
export interface ListenBody {
  readonly endpoint: Endpoint;
  /** A channel to each other thread, by its index. */
  readonly siblings: readonly (readonly [index: number, port: MessagePort])[];
}

const input = workerData as ThreadInput;
if (parentPort === null) throw new Error('quiche-thread.ts is the entry of a worker thread');
const rpc = new PortRpc(parentPort);
const tell =
  (level: keyof Log): Log[keyof Log] =>
  (event, fields) =>
    rpc.notify('log', { level, event, fields });
const runtime: Runtime = {
  clock: systemClock,
  random: systemRandom,
  log: { debug: tell('debug'), info: tell('info'), warn: tell('warn'), error: tell('error') },
};
// As in the main thread of a node: one peer's fault must not end the calls of the others.
process.on('unhandledRejection', (error) => {
  runtime.log.error('quic.thread.rejection', { error: String(error) });
});
const bounds = new Uint32Array(input.bounds);
const siblings = new Map<number, MessagePort>();
const connections = new ExposedConnections(rpc);
let listener: QuicheListener | undefined;

rpc.onRequest('listen', async (body) => {
  const { endpoint, siblings: ports } = body as ListenBody;
  const identity = loadIdentity(input.certificatePem, input.privateKeyPem);
  const { limits, index, count } = input;
  const shard = {
    index,
    count,
    forward(to: number, data: Buffer, from: RemoteInfo): void {
      siblings.get(to)?.postMessage([Uint8Array.from(data), from]);
    },
  };
  const opened = await QuicheListener.open(
    await loadQuiche(),
    runtime,
    new Turn(),
    {
      endpoint,
      identity,
      limits,
      maxRequestBytes: (methodId) => bounds[methodId] ?? 0,
      onConnection: (connection) => connections.add(connection),
    },
    { shard, gate: async (address) => (await rpc.request('handshake', address)) === true },
  );
  listener = opened;
  for (const [to, port] of ports) {
    siblings.set(to, port);
    port.on('message', ([data, from]: readonly [Uint8Array, RemoteInfo]) => {
      opened.receive(Buffer.from(data.buffer, data.byteOffset, data.byteLength), from, true);
    });
  }
  return opened.endpoint;
});

rpc.onRequest('close-listener', async (body) => {
  const { code, reason } = body as { readonly code: number; readonly reason: string };
  await listener?.close(code, reason);
  for (const port of siblings.values()) port.close();
});
