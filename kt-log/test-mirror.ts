/**
 * Test support: a log written out as a mirrored directory with its node's record, and a small HTTP
 * server over such a directory. Not library code.
 */
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { signingKeyFromSeed, signNodeRecord } from '@quicprochat/proto';
import { SignedNodeRecordSchema, toBinary } from '@quicprochat/proto/messages';
import { configuration } from './codec.ts';
import { mirrorFiles, mirrorPaths } from './mirror.ts';
import { formatVkey } from './note.ts';
import { encode } from './presentation.ts';
import type { Face } from './test-source.ts';

/** A directory that is removed at the end of the test. */
export class TemporaryDirectory implements AsyncDisposable {
  readonly path: string;
  private constructor(path: string) {
    this.path = path;
  }
  static async make(): Promise<TemporaryDirectory> {
    return new TemporaryDirectory(await mkdtemp(join(tmpdir(), 'qpc-audit-')));
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true });
  }
}

async function put(directory: string, path: string, bytes: Uint8Array): Promise<void> {
  const file = join(directory, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, bytes);
}

/** Writes what a mirror of the log holds now; files of an older state stay. */
export async function exportMirror(
  { log, config, identity }: Pick<Face, 'log' | 'config' | 'identity'>,
  directory: string,
): Promise<void> {
  const signing = signingKeyFromSeed(new Uint8Array(32).fill(9));
  const record = signNodeRecord({
    domain: identity.origin,
    keys: [{ spkiSha256: new Uint8Array(32).fill(1), signing, fromMs: 0, toMs: 0 }],
    endpoints: [{ host: 'localhost', port: 5001 }],
    seq: 1,
    versionMin: 1,
    versionMax: 1,
    capabilities: [],
    logs: [{ config: encode(configuration, config), vkey: formatVkey(identity.key), fromSize: 0 }],
  });
  await put(directory, mirrorPaths.record, toBinary(SignedNodeRecordSchema, record));
  for await (const { path, bytes } of mirrorFiles(log)) await put(directory, path, bytes);
}

/** A server on a free port of this host. */
export class LocalServer implements AsyncDisposable {
  readonly #server: Server;
  readonly url: string;
  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
  static async start(listener: RequestListener): Promise<LocalServer> {
    const server = createServer(listener).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new LocalServer(server);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

/** Serves the files of a directory. */
export function filesOf(directory: string): RequestListener {
  return (request, response) => {
    readFile(join(directory, request.url ?? '')).then(
      (bytes) => response.end(bytes),
      () => response.writeHead(404).end(),
    );
  };
}
