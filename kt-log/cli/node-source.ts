/**
 * A node over its transports as the source of its log: methods 2, 520 and 534, which everybody may call. The
 * pin of its address is checked by the handshake, and the node's record against it.
 */
import {
  call,
  methods,
  parseNodeAddress,
  verifyNodeRecord,
  type Runtime,
} from '@quicprochat/proto';
import { fromBinary, NodeRecordSchema } from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  transportOf,
  type Connection,
} from '@quicprochat/proto/transport';
import type { SignedHead } from '../evidence.ts';
import type { Sha256 } from '../hash.ts';
import type { PublishedLog, StatedKeys } from '../log-source.ts';
import { keysOf } from '../mirror.ts';
import { verify } from '../verification-error.ts';

export class NodeSource implements PublishedLog, AsyncDisposable {
  readonly #connection: Connection;
  readonly #pin: Uint8Array;
  readonly #parts: { readonly runtime: Runtime; readonly sha256: Sha256 };

  private constructor(
    connection: Connection,
    pin: Uint8Array,
    parts: { readonly runtime: Runtime; readonly sha256: Sha256 },
  ) {
    this.#connection = connection;
    this.#pin = pin;
    this.#parts = parts;
  }

  /** Connects to `qpc://host:port#pin`. Throws InvalidArgumentError, TransportError. */
  static async dial(
    address: string,
    parts: { readonly runtime: Runtime; readonly sha256: Sha256 },
    signal?: AbortSignal,
  ): Promise<NodeSource> {
    const { host, port, pin } = parseNodeAddress(address);
    const { runtime } = parts;
    const connection = await transportOf(runtime, ['quic', 'tls']).dial(
      { host, port },
      {
        identity: await makeIdentity(runtime.random),
        limits: defaultLimits,
        // A reader serves nothing.
        maxRequestBytes: () => 0,
        pins: [pin],
        ...(signal === undefined ? {} : { signal }),
      },
    );
    try {
      const hello = { versionMin: 1, versionMax: 1, capabilities: [], agent: 'qpc-audit' };
      await call(connection, methods.hello, hello, optionsOf(signal));
    } catch (error) {
      await connection.close(CloseCode.Normal, 'no hello');
      throw error;
    }
    return new NodeSource(connection, pin, parts);
  }

  async keys(signal?: AbortSignal): Promise<StatedKeys> {
    const { runtime, sha256 } = this.#parts;
    const { record } = await call(this.#connection, methods.getNodeRecord, {}, optionsOf(signal));
    verify(record !== undefined, 'NOT_FOUND', 'node record', 'one of the answering node');
    const { domain } = fromBinary(NodeRecordSchema, record.record);
    const proven = verifyNodeRecord(record, {
      domain,
      pins: [this.#pin],
      connectionSpki: this.#connection.peer.spkiSha256,
      nowMs: runtime.clock.now(),
    });
    return keysOf(sha256, proven);
  }

  async checkpoint(signal?: AbortSignal): Promise<Uint8Array> {
    const request = { size: 0n };
    const { checkpoint } = await this.#head(request, signal);
    return checkpoint;
  }

  async bundle(from: number, max: number, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const request = { from: BigInt(from), max };
    const row = methods.auditKeyTransparency;
    const { bundle } = await call(this.#connection, row, request, optionsOf(signal));
    return bundle.length === 0 ? undefined : bundle;
  }

  /** One head, that of the last size asked for: nodes give them out one by one. */
  async heads(from: number, max: number, signal?: AbortSignal): Promise<readonly SignedHead[]> {
    const { head } = await this.#head({ size: BigInt(from + max - 1) }, signal);
    if (head === undefined) return [];
    return [{ size: Number(head.size), root: head.root, signature: head.signature }];
  }

  #head(request: { readonly size: bigint }, signal: AbortSignal | undefined) {
    return call(this.#connection, methods.ktTreeHead, request, optionsOf(signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close(CloseCode.Normal, 'done');
  }
}

const optionsOf = (signal: AbortSignal | undefined) => (signal === undefined ? {} : { signal });
