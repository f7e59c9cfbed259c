/** One side of the RPC bench, in a process of its own: an echo of an engine, or the load on it. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { events, QUICClient, QUICServer, type native, type QUICStream } from '@matrixai/quic';
import {
  call,
  encodeRequest,
  encodeResponse,
  formatNodeAddress,
  maxRequestBytes,
  methods,
  parseNodeAddress,
  responseHeaderBytes,
  silentLog,
  systemClock,
  systemRandom,
} from '@quicprochat/proto';
import { create, HealthResponseSchema, toBinary } from '@quicprochat/proto/messages';
import { defaultLimits, makeIdentity, quicTransport } from '@quicprochat/proto/transport';
import { dialAs } from './devices.ts';
import { measureLoad } from './measure.ts';
import { answerParent } from './peer-process.ts';

export type EchoEngine = 'stock' | 'ours';
/** Answer: ServingPeer. */
export interface RpcServer {
  readonly do: 'serve';
  readonly engine: EchoEngine;
}
export interface ServingPeer {
  /** `qpc://127.0.0.1:port#pin` */
  readonly address: string;
}
/** Answer: Round. */
export interface RpcLoad {
  readonly do: 'load';
  readonly target: EchoEngine | 'node';
  readonly address: string;
  readonly inFlight: number;
  readonly serverPid: number;
}

const warmUpMs = 500;
const measureMs = 1_500;
/** A Health request and its answer, as long as a node really sends them. */
const request = { methodId: methods.health.id, requestId: 1, payload: new Uint8Array() };
const requestBytes = encodeRequest(request).length;
const health = { status: 'ready', uptimeMs: 5_000n, software: 'qpcd 0.1.0' } as const;
const responseBytes = encodeResponse({
  status: 0,
  requestId: 1,
  payload: toBinary(HealthResponseSchema, create(HealthResponseSchema, health)),
}).length;

const quiet: unknown = { info() {}, debug() {}, warn() {}, error() {}, getChild: () => quiet };
/** The glue calls nothing of a logger but the five methods above. */
const logger = quiet as NonNullable<ConstructorParameters<typeof QUICServer>[0]['logger']>;

const mebibyte = 1024 * 1024;

/** The stock glue with certificates, windows and idle time of our engine; Retry is its default. */
async function stockConfig() {
  const identity = await makeIdentity(systemRandom);
  const config = {
    key: identity.privateKeyPem,
    cert: identity.certificatePem,
    sigalgs: 'ed25519',
    applicationProtos: ['qpc'],
    verifyPeer: true,
    // As in our engine, certificates are judged by a callback; which key it is costs nothing later.
    verifyCallback: async () => undefined as native.CryptoError | undefined,
    maxIdleTimeout: defaultLimits.idleMs,
    initialMaxData: 10 * mebibyte,
    initialMaxStreamDataBidiLocal: mebibyte,
    initialMaxStreamDataBidiRemote: mebibyte,
    // The stock glue breaks its connection when it meets the limit once; without our queue in front
    // of it the bare side needs room. It is the baseline that gains by it.
    initialMaxStreamsBidi: 10_000,
  };
  return { identity, config };
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

async function answerStock(stream: QUICStream): Promise<void> {
  try {
    await read(stream, requestBytes);
    await write(stream, responseBytes);
    stream.cancel();
  } catch {
    // A caller that has its answer may stop the stream first; one without it fails on its side.
  }
}

async function serveStock(): Promise<ServingPeer> {
  const { identity, config } = await stockConfig();
  const mac = (key: ArrayBuffer, data: ArrayBuffer): Buffer =>
    createHmac('sha256', new Uint8Array(key)).update(new Uint8Array(data)).digest();
  const server = new QUICServer({
    crypto: {
      key: new Uint8Array(randomBytes(32)).buffer,
      ops: {
        sign: async (key, data) => new Uint8Array(mac(key, data)).buffer,
        verify: async (key, data, signature) =>
          timingSafeEqual(mac(key, data), new Uint8Array(signature)),
      },
    },
    logger,
    config,
  });
  server.addEventListener(events.EventQUICServerConnection.name, (accepted) => {
    if (!(accepted instanceof events.EventQUICServerConnection)) return;
    accepted.detail.addEventListener(events.EventQUICConnectionStream.name, (opened) => {
      if (opened instanceof events.EventQUICConnectionStream) void answerStock(opened.detail);
    });
  });
  await server.start({ host: '127.0.0.1', port: 0 });
  return addressOf(server.port, identity.spkiSha256);
}

async function serveOurs(): Promise<ServingPeer> {
  const identity = await makeIdentity(systemRandom);
  const transport = quicTransport({ clock: systemClock, random: systemRandom, log: silentLog });
  const payload = new Uint8Array(responseBytes - responseHeaderBytes);
  const { endpoint } = await transport.listen({
    endpoint: { host: '127.0.0.1', port: 0 },
    identity,
    limits: defaultLimits,
    maxRequestBytes,
    onConnection: (connection) =>
      connection.onCall(async ({ requestId }) => ({ status: 0, requestId, payload })),
  });
  return addressOf(endpoint.port, identity.spkiSha256);
}

function addressOf(port: number, pin: Uint8Array): ServingPeer {
  return { address: formatNodeAddress({ host: '127.0.0.1', port, pin }) };
}

async function dialStock(address: string): Promise<() => Promise<void>> {
  const { config } = await stockConfig();
  const client = await QUICClient.createQUICClient(
    {
      host: '127.0.0.1',
      port: parseNodeAddress(address).port,
      localHost: '127.0.0.1',
      crypto: {
        ops: {
          randomBytes: async (data: ArrayBuffer) => {
            new Uint8Array(data).set(randomBytes(data.byteLength));
          },
        },
      },
      logger,
      config: { ...config, keepAliveIntervalTime: defaultLimits.keepAliveMs },
    },
    { timer: 5_000 },
  );
  return async () => {
    const stream = client.connection.newStream('bidi');
    await write(stream, requestBytes);
    await read(stream, responseBytes);
    stream.cancel();
  };
}

async function stepOf({ target, address }: RpcLoad): Promise<() => Promise<unknown>> {
  if (target === 'stock') return dialStock(address);
  const connection = await dialAs(address, await makeIdentity(systemRandom));
  if (target === 'node') return () => call(connection, methods.health, {});
  const options = { deadlineMs: 15_000, maxResponseBytes: 1024 };
  return () => connection.call(request, options);
}

answerParent(async (input: RpcServer | RpcLoad) => {
  if (input.do === 'serve') return input.engine === 'stock' ? serveStock() : serveOurs();
  const { inFlight: loops, serverPid } = input;
  return measureLoad({ loops, warmUpMs, measureMs, serverPid, step: await stepOf(input) });
});
