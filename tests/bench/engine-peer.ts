/**
 * One side of the engine bench, in a process of its own: `serve ENGINE` answers and tells its port,
 * `load ENGINE PORT SPKI WHAT` measures and prints one line of JSON. Parent: engines.ts.
 */
import http2 from 'node:http2';
import { createHash, type X509Certificate } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { TLSSocket } from 'node:tls';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  defaultLimits,
  engineNames,
  makeIdentity,
  transportOf,
  type NodeIdentity,
  type Transport,
} from '@quicprochat/proto/transport';

/** Method ids of the bench, or paths for http2. */
const method = { echo: 1, swallow: 2, give: 3, usage: 4 } as const;
const mebibyte = 1024 * 1024;
/** Long enough for the compiler to be done with what is measured. */
const warmUpMs = 1000;
const measureMs = 1000;

interface Client {
  call(methodId: number, payload: Uint8Array): Promise<Uint8Array>;
  close(): Promise<void>;
}

// The rate of handshakes is what is measured; every other limit is the default.
const limits = { ...defaultLimits, handshakesPerHostPerSecond: 1_000_000 };
const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

/** Undefined for the baseline, which is none of ours. */
function engineOf(name: string): Transport | undefined {
  const engine = engineNames.find((known) => known === name);
  return engine === undefined ? undefined : transportOf(runtime, [engine]);
}

function answer(methodId: number, payload: Uint8Array): Uint8Array {
  if (methodId === method.echo) return payload;
  if (methodId === method.give) return new Uint8Array(mebibyte);
  if (methodId === method.usage) return Buffer.from(JSON.stringify(usage()));
  return new Uint8Array();
}

function usage(): { cpuUs: number; rss: number } {
  const { user, system } = process.cpuUsage();
  return { cpuUs: user + system, rss: process.memoryUsage.rss() };
}

async function serve(engine: string): Promise<void> {
  const identity = await makeIdentity(systemRandom);
  const port = (await listen(engine, identity)) ?? 0;
  const spki = Buffer.from(identity.spkiSha256).toString('base64url');
  process.stdout.write(`${JSON.stringify({ port, spki })}\n`);
}

async function listen(engine: string, identity: NodeIdentity): Promise<number | undefined> {
  const transport = engineOf(engine);
  if (!transport) return listenHttp2(identity);
  const listener = await transport.listen({
    endpoint: { host: '127.0.0.1', port: 0 },
    identity,
    limits,
    maxRequestBytes: () => 4 * mebibyte,
    onConnection: (connection) =>
      connection.onCall(async ({ methodId, requestId, payload }) => ({
        status: 0,
        requestId,
        payload: answer(methodId, payload),
      })),
  });
  return listener.endpoint.port;
}

const spkiOf = (certificate: X509Certificate | undefined): string =>
  certificate
    ? createHash('sha256')
        .update(certificate.publicKey.export({ type: 'spki', format: 'der' }))
        .digest('base64url')
    : '';

async function listenHttp2(identity: NodeIdentity): Promise<number> {
  const server = http2.createSecureServer({
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    minVersion: 'TLSv1.3',
    requestCert: true,
    rejectUnauthorized: false,
    settings: { maxConcurrentStreams: limits.incomingStreams, initialWindowSize: mebibyte },
  });
  server.on('session', (session) => {
    const { socket } = session;
    // The same judgement as in the other engines: no client certificate, no connection.
    if (!(socket instanceof TLSSocket) || !spkiOf(socket.getPeerX509Certificate())) {
      session.destroy();
    }
    session.setLocalWindowSize(10 * mebibyte);
  });
  server.on('stream', (stream, headers) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', () => {});
    stream.on('end', () => {
      stream.respond({ ':status': 200 });
      stream.end(answer(Number(String(headers[':path']).slice(1)), Buffer.concat(chunks)));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

function dialer(engine: string, port: number, spki: string): () => Promise<Client> {
  const transport = engineOf(engine);
  const identity = makeIdentity(systemRandom);
  if (!transport) return async () => dialHttp2(await identity, port, spki);
  const pins = [Buffer.from(spki, 'base64url')];
  return async () => {
    const connection = await transport.dial(
      { host: '127.0.0.1', port },
      { identity: await identity, limits, maxRequestBytes: () => 0, pins },
    );
    let requestId = 0;
    return {
      async call(methodId, payload) {
        requestId += 1;
        const options = { deadlineMs: 30_000, maxResponseBytes: 4 * mebibyte };
        const response = await connection.call({ methodId, requestId, payload }, options);
        return response.payload;
      },
      close: () => connection.close(0, ''),
    };
  };
}

async function dialHttp2(identity: NodeIdentity, port: number, spki: string): Promise<Client> {
  const session = http2.connect(`https://127.0.0.1:${port}`, {
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    minVersion: 'TLSv1.3',
    rejectUnauthorized: false,
    settings: { initialWindowSize: mebibyte },
  });
  await new Promise<void>((resolve, reject) => {
    session.once('connect', () => resolve());
    session.once('error', reject);
  });
  const { socket } = session;
  if (!(socket instanceof TLSSocket) || spkiOf(socket.getPeerX509Certificate()) !== spki) {
    throw new Error('http2: not the pinned identity');
  }
  session.setLocalWindowSize(10 * mebibyte);
  return {
    call: (methodId, payload) =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ':method': 'POST', ':path': `/${methodId}` });
        const chunks: Buffer[] = [];
        stream.on('data', (chunk: Buffer) => chunks.push(chunk));
        stream.on('error', reject);
        stream.on('end', () => resolve(Buffer.concat(chunks)));
        stream.end(payload);
      }),
    close: () => new Promise((resolve) => session.close(resolve)),
  };
}

/** Keeps `inFlight` steps going for the time; tells how many ended in it. */
async function loop(inFlight: number, ms: number, step: () => Promise<unknown>): Promise<number> {
  const end = performance.now() + ms;
  let count = 0;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (performance.now() < end) {
        await step();
        count += 1;
      }
    }),
  );
  return count;
}

async function serverUsage(client: Client): Promise<{ cpuUs: number; rss: number }> {
  const bytes = await client.call(method.usage, new Uint8Array());
  return JSON.parse(Buffer.from(bytes).toString()) as { cpuUs: number; rss: number };
}

async function measureCalls(client: Client, inFlight: number) {
  const payload = new Uint8Array(256);
  await loop(inFlight, warmUpMs, () => client.call(method.echo, payload));
  const times: number[] = [];
  const [before, here] = [await serverUsage(client), usage()];
  const started = performance.now();
  const calls = await loop(inFlight, measureMs, async () => {
    const at = performance.now();
    await client.call(method.echo, payload);
    times.push(performance.now() - at);
  });
  const seconds = (performance.now() - started) / 1000;
  const [after, there] = [await serverUsage(client), usage()];
  times.sort((a, b) => a - b);
  const name = (what: string): string => `${what} at ${inFlight}`;
  return {
    [name('calls/s')]: calls / seconds,
    [name('p50 ms')]: times[Math.floor(times.length * 0.5)] ?? 0,
    [name('p99 ms')]: times[Math.floor(times.length * 0.99)] ?? 0,
    [name('server us/call')]: (after.cpuUs - before.cpuUs) / calls,
    [name('client us/call')]: (there.cpuUs - here.cpuUs) / calls,
  };
}

async function measureBulk(client: Client) {
  const blob = new Uint8Array(mebibyte);
  const nothing = new Uint8Array();
  const rate = async (step: () => Promise<unknown>): Promise<number> => {
    await loop(4, warmUpMs, step);
    const started = performance.now();
    const count = await loop(4, measureMs, step);
    return (count * mebibyte) / 1e6 / ((performance.now() - started) / 1000);
  };
  return {
    'up MB/s': await rate(() => client.call(method.swallow, blob)),
    'down MB/s': await rate(() => client.call(method.give, nothing)),
  };
}

/** A handshake counts when the first call is answered: only then the listener has judged us. */
async function measureHandshakes(dial: () => Promise<Client>) {
  const step = async (): Promise<void> => {
    const client = await dial();
    await client.call(method.echo, new Uint8Array(32));
    await client.close();
  };
  const rate = async (inFlight: number): Promise<number> => {
    await loop(inFlight, warmUpMs, step);
    const started = performance.now();
    const count = await loop(inFlight, measureMs, step);
    return count / ((performance.now() - started) / 1000);
  };
  return { 'handshakes/s at 1': await rate(1), 'handshakes/s at 16': await rate(16) };
}

async function measureIdle(dial: () => Promise<Client>) {
  const first = await dial();
  await loop(16, warmUpMs, () => first.call(method.echo, new Uint8Array(256)));
  const [before, here] = [await serverUsage(first), usage()];
  const clients: Client[] = [];
  while (clients.length < 1000) {
    const more = await Promise.all(Array.from({ length: 10 }, dial));
    await Promise.all(more.map((client) => client.call(method.echo, new Uint8Array(32))));
    clients.push(...more);
  }
  const [after, there] = [await serverUsage(first), usage()];
  return {
    'server KiB/connection': (after.rss - before.rss) / 1024 / clients.length,
    'client KiB/connection': (there.rss - here.rss) / 1024 / clients.length,
  };
}

async function load(engine: string, port: number, spki: string, what: string): Promise<void> {
  const dial = dialer(engine, port, spki);
  let result: Record<string, number>;
  if (what === 'handshakes') result = await measureHandshakes(dial);
  else if (what === 'idle') result = await measureIdle(dial);
  else {
    const client = await dial();
    result = what === 'bulk' ? await measureBulk(client) : await measureCalls(client, Number(what));
  }
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}

const [role, engine = '', port = '', spki = '', what = ''] = process.argv.slice(2);
if (role === 'serve') await serve(engine);
else await load(engine, Number(port), spki, what);
