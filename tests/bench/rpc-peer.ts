/**
 * One side of the RPC bench, in a process of its own: `serve-bare`, `load-bare PORT N`,
 * `load-node ADDRESS N`. Servers print their port, loads print calls/s. Parent: rpc.ts.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { events, QUICClient, QUICServer, type native, type QUICStream } from '@matrixai/quic';
import {
  call,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  quicTransport,
} from '@quicprochat/proto/transport';
import { perSecond } from './measure.ts';

/** Bytes of a Health request and of its answer, frames included, as a node really sends them. */
const requestBytes = 10;
const responseBytes = 34;
const warmUpMs = 500;
const measureMs = 2_500;

const quiet = { info() {}, debug() {}, warn() {}, error() {}, getChild: () => quiet } as never;

async function bareConfig() {
  const identity = await makeIdentity(systemRandom);
  return {
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    applicationProtos: ['qpc'],
    verifyPeer: true,
    // As in our engine, the certificate is judged by code of ours: here any is good.
    verifyCallback: async () => undefined as native.CryptoError | undefined,
    maxIdleTimeout: defaultLimits.idleMs,
    // The stock glue breaks its connection when it meets the limit once; without our queue in front
    // of it the bare side needs room. It is the baseline that gains by it.
    initialMaxStreamsBidi: 10_000,
  };
}

/** Reads exactly `wanted` bytes; the end of the stream is not waited for. */
async function read(stream: QUICStream, wanted: number): Promise<void> {
  const reader = stream.readable.getReader();
  for (let got = 0; got < wanted;) {
    const { value, done } = await reader.read();
    if (done) throw new Error('bench: the stream ended early');
    got += value.length;
  }
  reader.releaseLock();
}

async function write(stream: QUICStream, bytes: number): Promise<void> {
  const writer = stream.writable.getWriter();
  await writer.write(new Uint8Array(bytes));
  await writer.close();
}

async function serveBare(): Promise<void> {
  const secret = randomBytes(32);
  const mac = (key: ArrayBuffer, data: ArrayBuffer): Buffer =>
    createHmac('sha256', new Uint8Array(key)).update(new Uint8Array(data)).digest();
  const server = new QUICServer({
    crypto: {
      key: secret.buffer.slice(secret.byteOffset, secret.byteOffset + secret.byteLength),
      ops: {
        sign: async (key, data) => new Uint8Array(mac(key, data)).buffer,
        verify: async (key, data, signature) =>
          timingSafeEqual(mac(key, data), new Uint8Array(signature)),
      },
    },
    logger: quiet,
    config: await bareConfig(),
  });
  server.addEventListener(events.EventQUICServerConnection.name, (event) => {
    const connection = (event as events.EventQUICServerConnection).detail;
    connection.addEventListener(events.EventQUICConnectionStream.name, (opened) => {
      const stream = (opened as events.EventQUICConnectionStream).detail;
      const answer = async (): Promise<void> => {
        await read(stream, requestBytes);
        await write(stream, responseBytes);
        stream.cancel();
      };
      // A load that ends closes its streams under our hands.
      answer().catch(() => undefined);
    });
  });
  await server.start({ host: '127.0.0.1', port: 0 });
  console.log(server.port);
}

async function loadBare(port: number, inFlight: number): Promise<void> {
  const client = await QUICClient.createQUICClient(
    {
      host: '127.0.0.1',
      port,
      localHost: '127.0.0.1',
      crypto: {
        ops: {
          randomBytes: async (data: ArrayBuffer) => {
            new Uint8Array(data).set(randomBytes(data.byteLength));
          },
        },
      },
      logger: quiet,
      config: { ...(await bareConfig()), keepAliveIntervalTime: defaultLimits.keepAliveMs },
    },
    { timer: 5_000 },
  );
  const echo = async (): Promise<void> => {
    const stream = client.connection.newStream('bidi');
    await write(stream, requestBytes);
    await read(stream, responseBytes);
    stream.cancel();
  };
  await perSecond(inFlight, warmUpMs, echo);
  console.log(await perSecond(inFlight, measureMs, echo));
  process.exit(0);
}

async function loadNode(address: string, inFlight: number): Promise<void> {
  const { host, port, pin } = parseNodeAddress(address);
  const transport = quicTransport({ clock: systemClock, random: systemRandom, log: silentLog });
  const identity = await makeIdentity(systemRandom);
  const connection = await transport.dial(
    { host, port },
    { identity, limits: defaultLimits, maxRequestBytes, pins: [pin] },
  );
  const health = () => call(connection, methods.health, {});
  await perSecond(inFlight, warmUpMs, health);
  console.log(await perSecond(inFlight, measureMs, health));
  await connection.close(CloseCode.Normal, 'done');
}

const [mode, where = '', inFlight = '1'] = process.argv.slice(2);
if (mode === 'serve-bare') await serveBare();
else if (mode === 'load-bare') await loadBare(Number(where), Number(inFlight));
else if (mode === 'load-node') await loadNode(where, Number(inFlight));
else throw new Error('usage: rpc-peer.ts serve-bare | load-bare PORT N | load-node ADDRESS N');
