/**
 * The node's read-only HTTP door (docs/operator/http-door.md): sockets, bounds and headers; what is
 * answered stands in http/routes.ts. Whatever comes over a socket ends in a reply or a closed
 * connection, never in an error that leaves this file.
 */
import { once } from 'node:events';
import {
  createServer,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { QpcError, Status, TokenBuckets, type Rates, type Runtime } from '@quicprochat/proto';
import { limitKey, type Endpoint } from '@quicprochat/proto/transport';
import { refusal, type Reply } from './http/reply.ts';
import type { Routes } from './http/routes.ts';

export const httpLimits = {
  /** All headers of a request (bytes). */
  headerBytes: 8 * 1024,
  /** A request target; no path of the door is longer. */
  targetBytes: 512,
  /** Body of a search: a label of 255 bytes and two numbers. */
  bodyBytes: 1024,
  connections: 512,
  /** Connections of one address (IPv6: of a /64, which one customer gets); a proxy on this host has no such bound. */
  connectionsPerAddress: 32,
  /** Time for the headers, for the whole request, and for nothing at all between requests (ms). */
  headersMs: 5_000,
  requestMs: 10_000,
  idleMs: 10_000,
  /** A reply has to be taken by then (ms): slow readers hold memory. */
  replyMs: 30_000,
  requestsPerConnection: 1_000,
  /** How often the times of connections are looked at (ms). */
  checkMs: 1_000,
} as const;
export type HttpLimits = { readonly [name in keyof typeof httpLimits]: number };

const securityHeaders = {
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
} as const;
const cacheHeaders = {
  immutable: 'public, max-age=31536000, immutable',
  fresh: 'no-cache',
} as const;

export interface HttpDoorOptions {
  readonly listen: Endpoint;
  readonly routes: Routes;
  readonly rates: Pick<Rates, 'cheap' | 'audit' | 'lookup'>;
  readonly runtime: Runtime;
  readonly limits?: Partial<HttpLimits>;
}

interface Door extends HttpDoorOptions {
  readonly limits: HttpLimits;
  readonly buckets: TokenBuckets;
}

export interface HttpDoor extends AsyncDisposable {
  /** The bound address. */
  readonly endpoint: Endpoint;
}

/** Listens. Throws what the system says when the address cannot be bound. */
export async function openHttpDoor(options: HttpDoorOptions): Promise<HttpDoor> {
  const { listen, runtime } = options;
  const limits: HttpLimits = { ...httpLimits, ...options.limits };
  const door: Door = { ...options, limits, buckets: new TokenBuckets(runtime.clock) };
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headersMs,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.idleMs,
    connectionsCheckingInterval: limits.checkMs,
  });
  server.maxConnections = limits.connections;
  // Nobody listens for it, so the connection is destroyed.
  server.timeout = limits.idleMs;
  server.maxRequestsPerSocket = limits.requestsPerConnection;
  boundConnections(server, limits);
  server.on('request', (request, response) => {
    void serve(door, request, response);
  });
  server.on('clientError', (_error, socket: Socket) => {
    // What is no HTTP, or takes too long, gets one line; what it sends after that is not waited for.
    if (socket.writable) socket.write('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n');
    socket.destroySoon();
  });
  server.listen({ host: listen.host, port: listen.port });
  await once(server, 'listening');
  server.on('error', (error) => runtime.log.error('http door', { error: String(error) }));
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : listen.port;
  return {
    endpoint: { host: listen.host, port },
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      if (server.listening) await once(server, 'close');
    },
  };
}

const isLoopback = (address: string): boolean => /^(?:::ffff:)?127\.|^::1$/.test(address);

function boundConnections(server: Server, { connectionsPerAddress }: HttpLimits): void {
  const counts = new Map<string, number>();
  server.on('connection', (socket: Socket) => {
    const remote = socket.remoteAddress ?? '';
    const address = limitKey(remote);
    const count = (counts.get(address) ?? 0) + 1;
    if (count > connectionsPerAddress && !isLoopback(remote)) {
      socket.destroy();
      return;
    }
    counts.set(address, count);
    // A reset by the other side is no news.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      const left = (counts.get(address) ?? 1) - 1;
      if (left === 0) counts.delete(address);
      else counts.set(address, left);
    });
  });
}

/** Never rejects. */
async function serve(
  door: Door,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { runtime, limits } = door;
  const timer = runtime.clock.timer(limits.replyMs, () => request.socket.destroy());
  response.on('close', () => timer.cancel());
  response.on('error', () => request.socket.destroy());
  try {
    send(request, response, await answer(door, request));
  } catch (error) {
    // Whoever asked went away, or was cut off, before all of the body was there.
    if (request.destroyed && !request.complete) return;
    runtime.log.error('http request failed', {
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
    send(request, response, refusal(503, 'this did not work; the log of the node says why'));
  }
}

async function answer(
  { routes, rates, limits, buckets }: Door,
  request: IncomingMessage,
): Promise<Reply | MethodRefusal> {
  const target = request.url ?? '';
  const [path = ''] = target.split('?', 1);
  const isSearch = path === '/kt/search' && routes.hasSearch;
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (isSearch && request.method !== 'POST') return { allow: 'POST' };
  if (!isSearch && !isRead) return { allow: 'GET, HEAD' };
  if (target.length > limits.targetBytes) return refusal(404, 'there is nothing here');
  const kind = isSearch ? 'lookup' : routes.costOf(path);
  const waitMs = buckets.take(`${kind} ${addressOf(request)}`, rates[kind]);
  if (waitMs > 0) {
    const retryAfterS = Math.ceil(waitMs / 1000);
    return { ...refusal(429, `too many requests; again in ${retryAfterS} s`), retryAfterS };
  }
  if (!isSearch) return routes.get(path);
  const body = await readBody(request, limits.bodyBytes);
  if (body === undefined) return refusal(413, `at most ${limits.bodyBytes} bytes`);
  try {
    return await routes.search(body);
  } catch (error) {
    if (!(error instanceof QpcError)) throw error;
    if (error.status === Status.InvalidArgument) return refusal(400, error.message);
    if (error.status === Status.ResourceExhausted) return refusal(429, error.message);
    throw error;
  }
}

/** Who asks, for the rate: behind a proxy of this host, whom that one names last. */
function addressOf(request: IncomingMessage): string {
  const address = request.socket.remoteAddress ?? '';
  const forwarded = request.headers['x-forwarded-for'];
  if (!isLoopback(address) || typeof forwarded !== 'string') return limitKey(address);
  return limitKey(forwarded.split(',').at(-1)?.trim().slice(0, 64) ?? address);
}

/** Undefined for a body beyond its bound. */
async function readBody(
  request: IncomingMessage,
  bytesMax: number,
): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > bytesMax) return undefined;
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

interface MethodRefusal {
  readonly allow: string;
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  reply: Reply | MethodRefusal,
): void {
  if (response.destroyed || response.headersSent) return;
  const always: OutgoingHttpHeaders = {
    ...securityHeaders,
    // The rest of a body that nobody wants ends with its connection.
    ...(request.complete ? {} : { connection: 'close' }),
  };
  if ('allow' in reply) {
    response.writeHead(405, { ...always, allow: reply.allow, 'content-length': 0 });
    response.end();
  } else {
    if (reply.retryAfterS !== undefined) always['retry-after'] = String(reply.retryAfterS);
    response.writeHead(reply.status, {
      ...always,
      'content-type': reply.type,
      'content-length': reply.body.length,
      'cache-control': cacheHeaders[reply.caching],
      // Everything here is public; monitors may run in a browser too.
      'access-control-allow-origin': '*',
    });
    if (request.method === 'HEAD') response.end();
    else response.end(reply.body);
  }
}
