/**
 * The live server of the transport fuzzers and the soak, in a process of its own: answers each call
 * with its payload, or with its memory for method 2. Prints one line of JSON: port and pin.
 */
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  defaultLimits,
  engineNames,
  makeIdentity,
  transportOf,
} from '@quicprochat/proto/transport';

const engine = engineNames.find((name) => name === process.argv[2]) ?? 'quic';
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const identity = await makeIdentity(systemRandom);
let unhandled = 0;
process.on('unhandledRejection', () => (unhandled += 1));
const listener = await transportOf(runtime, [engine]).listen({
  endpoint: { host: '127.0.0.1', port: 0 },
  identity,
  limits: {
    ...defaultLimits,
    // All clients have one address here.
    handshakesPerHostPerSecond: 1_000_000,
    connectionsPerHost: 100_000,
    connections: 100_000,
  },
  maxRequestBytes: () => defaultLimits.maxPayloadBytes,
  onConnection: (connection) =>
    connection.onCall(async ({ methodId, requestId, payload }) => ({
      status: 0,
      requestId,
      payload:
        methodId === 2
          ? Buffer.from(JSON.stringify({ rss: process.memoryUsage.rss(), unhandled }))
          : payload,
    })),
});
const pin = Buffer.from(identity.spkiSha256).toString('base64url');
process.stdout.write(`${JSON.stringify({ port: listener.endpoint.port, pin })}\n`);
process.stdin.resume().once('end', () => process.exit(0));
