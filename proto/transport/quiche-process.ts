/**
 * A process of the QUIC listener: one socket of the shared port with its connections, whose calls and
 * pushes are handed to the process that forked it (quiche-processes.ts).
 */
import type { RemoteInfo } from 'node:dgram';
import { systemClock, systemRandom, type Log } from '../runtime.ts';
import { loadIdentity } from './certificate.ts';
import { PortRpc } from './port-rpc.ts';
import { processPort } from './process-port.ts';
import { QuicheListener } from './quiche-listener.ts';
import { loadQuiche } from './quiche-native.ts';
import { Turn } from './quiche-turn.ts';
import { ExposedConnections } from './remote-connection.ts';
import { withSeldomWarnings } from './seldom-warnings.ts';
import type { Endpoint, TransportLimits } from './transport.ts';

export interface ListenBody {
  readonly endpoint: Endpoint;
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly limits: TransportLimits;
  /** Bound of a request's payload for every method id: 65 536 words. */
  readonly bounds: Uint32Array;
  readonly index: number;
  readonly count: number;
}
/** A datagram on its way to the process that its connection belongs to. */
export interface ForwardBody {
  readonly to: number;
  readonly data: Uint8Array;
  readonly from: RemoteInfo;
}

/**
 * Datagrams on their way to other processes at a time. Anybody can make up ids that seem to be another
 * process's; what is above is dropped, and QUIC sends what was real again.
 */
const forwardsMax = 256;
let forwarding = 0;

if (process.send === undefined) throw new Error('quiche-process.ts is forked, never run');
// Nobody would ever close it.
process.once('disconnect', () => process.exit(0));
// A signal to the whole group is for the parent to act on.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
const port = processPort(process);
const rpc = new PortRpc(port);
/** Lines that were left out: anybody can make this process log, nobody acknowledges a line. */
let unsaid = 0;
const tell =
  (level: keyof Log): Log[keyof Log] =>
  (event, fields) => {
    if (port.isBehind) {
      unsaid += 1;
      return;
    }
    rpc.notify('log', { level, event, fields });
    if (unsaid === 0) return;
    rpc.notify('log', { level: 'warn', event: 'quic.process.unsaid', fields: { lines: unsaid } });
    unsaid = 0;
  };
const runtime = withSeldomWarnings({
  clock: systemClock,
  random: systemRandom,
  log: { debug: tell('debug'), info: tell('info'), warn: tell('warn'), error: tell('error') },
});
// As in a node's own process: one peer's fault must not end the calls of the others.
process.on('unhandledRejection', (error) => {
  runtime.log.error('quic.process.rejection', { error: String(error) });
});
const connections = new ExposedConnections(rpc);
let listener: QuicheListener | undefined;

rpc.onRequest('listen', async (body) => {
  const { endpoint, limits, bounds, index, count, ...pem } = body as ListenBody;
  const identity = loadIdentity(pem.certificatePem, pem.privateKeyPem);
  const shard = {
    index,
    count,
    forward(to: number, data: Buffer, from: RemoteInfo): void {
      if (forwarding >= forwardsMax) return;
      forwarding += 1;
      const body: ForwardBody = { to, data: Uint8Array.from(data), from };
      rpc
        .request('forward', body)
        .catch(() => {})
        .finally(() => (forwarding -= 1));
    },
  };
  listener = await QuicheListener.open(
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
  return listener.endpoint;
});

rpc.onRequest('forward', (body) => {
  const { data, from } = body as ForwardBody;
  listener?.receive(Buffer.from(data.buffer, data.byteOffset, data.byteLength), from, true);
});

rpc.onRequest('close-listener', async (body) => {
  const { code, reason } = body as { readonly code: number; readonly reason: string };
  await listener?.close(code, reason);
});
