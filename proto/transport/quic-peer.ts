/**
 * A process for the QUIC tests to kill. `ENGINE listen` prints its port and SPKI; `ENGINE dial PORT`
 * calls and never reads on. Both print one line of JSON when they are where the test wants them.
 */
import { silentLog, systemClock, systemRandom } from '../runtime.ts';
import { makeIdentity } from './certificate.ts';
import { quicEngineNames, quicEngines } from './quic-rig.ts';
import { defaultLimits } from './transport.ts';

const [engine, role, port = '0'] = process.argv.slice(2);
const name = quicEngineNames.find((known) => known === engine);
if (name === undefined) throw new Error(`quic-peer.ts: no engine ${engine ?? ''}`);
const limits = { ...defaultLimits, idleMs: 1000, keepAliveMs: 200 };
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const { transport } = quicEngines[name](runtime);
const identity = await makeIdentity(systemRandom);
const common = { identity, limits, maxRequestBytes: () => 1024 };

function tell(state: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(state)}\n`);
}

if (role === 'listen') {
  const listener = await transport.listen({
    ...common,
    endpoint: { host: '127.0.0.1', port: 0 },
    onConnection: (connection) =>
      connection.onCall(() => {
        tell({ state: 'called' });
        return new Promise(() => {});
      }),
  });
  const spki = Buffer.from(identity.spkiSha256).toString('base64url');
  tell({ state: 'listening', port: listener.endpoint.port, spki });
} else {
  const connection = await transport.dial({ host: '127.0.0.1', port: Number(port) }, common);
  tell({ state: 'dialed' });
  const request = { methodId: 1, requestId: 1, payload: new Uint8Array() };
  await connection.call(request, { deadlineMs: 60_000, maxResponseBytes: 1024 });
}
