/**
 * Test support: a peer whose answers a test chooses, in a node's place behind real dispatch and a
 * memory network; for failures that a healthy node does not show on demand. It keeps what it was
 * given to enqueue, and how many calls were in flight at once; more is overridden by the test.
 */
import {
  createServer,
  maxRequestBytes,
  messageTag,
  methods,
  QpcError,
  signDeliveryProof,
  signingKeyFromSeed,
  signNodeRecord,
  UnimplementedError,
  type Handlers,
  type Runtime,
  type StoredStatement,
} from '@quicprochat/proto';
import { Outcome, type EnqueueRequest } from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  type Connection,
  type Listener,
  type NodeIdentity,
  type Transport,
} from '@quicprochat/proto/transport';

/** A copy on its way in, by Enqueue or in a batch. */
export type Enqueued = Pick<EnqueueRequest, 'rid' | 'domain' | 'mid' | 'payload' | 'token'>;

/** What one Enqueue call ends with: stored, an error thrown before or after storing, or nothing. */
export type Script = (request: Enqueued) => Promise<'stored' | Error | 'lostAnswer'>;

interface Stored {
  readonly outcome: Outcome;
  readonly receivedMs: bigint;
  readonly proof: Uint8Array;
}

interface Refused {
  readonly status: number;
  readonly reason: string;
  readonly retryAfterMs: bigint;
}

export interface ScriptedNode extends AsyncDisposable {
  /** Distinct (recipient, message id) in order of their first arrival, by recipient in hex. */
  readonly stored: ReadonlyMap<string, readonly Enqueued[]>;
  /** Every copy that arrived, in order. */
  readonly calls: readonly Enqueued[];
  /** Sizes (targets) of the batches that arrived. */
  readonly batches: readonly number[];
  /** Most calls in flight at once: for one recipient, and in all. */
  readonly inFlightMax: { perTarget: number; all: number };
  storeId: Uint8Array;
  /** What the node signs when it has stored something. */
  sign(statement: StoredStatement): Uint8Array;
  /** Ends every connection. */
  disconnect(): Promise<void>;
}

export async function startScriptedNode(
  transport: Transport,
  host: string,
  identity: NodeIdentity,
  runtime: Runtime,
  script: Script,
  overrides: Partial<Handlers> = {},
): Promise<ScriptedNode> {
  const stored = new Map<string, Enqueued[]>();
  const calls: Enqueued[] = [];
  const batches: number[] = [];
  const inFlight = new Map<string, number>();
  const inFlightMax = { perTarget: 0, all: 0 };
  const connections = new Set<Connection>();

  const signing = signingKeyFromSeed(runtime.random.bytes(32));
  const record = signNodeRecord({
    domain: host,
    keys: [{ spkiSha256: identity.spkiSha256, signing, fromMs: 0, toMs: 0 }],
    endpoints: [],
    seq: 1,
    versionMin: 1,
    versionMax: 1,
    capabilities: [],
  });

  const handlers: Partial<Handlers> = {
    hello: async () => ({ version: 1, domain: host, callerClass: 'device' }),
    health: async () => ({ status: 'ready' }),
    getNodeRecord: async () => ({ record }),
    subscribe: async () => ({ storeId: node.storeId }),
    fetch: async () => ({ storeId: node.storeId }),
    ack: async () => ({}),
    enqueue: (request, { connection }) => take(request, connection),
    async batchEnqueue({ payloads, targets }, { connection }) {
      batches.push(targets.length);
      // Copies for one device in their order; those behind one that was refused are refused with it.
      const last = new Map<string, Promise<Refused | Stored>>();
      const statuses = targets.map(({ payload: index, ...target }) => {
        const { mid, payload } = payloads[index] ?? { mid: none, payload: none };
        const name = Buffer.from(target.rid).toString('hex');
        const status = (async () => {
          const before = await last.get(name);
          if (before !== undefined && 'reason' in before) return before;
          return takeOrRefuse({ ...target, mid, payload }, connection);
        })();
        last.set(name, status);
        return status;
      });
      return { statuses: await Promise.all(statuses) };
    },
  };
  const none = new Uint8Array(0);

  async function takeOrRefuse(
    request: Enqueued,
    connection: Connection,
  ): Promise<Refused | Stored> {
    try {
      return await take(request, connection);
    } catch (error) {
      if (!(error instanceof QpcError)) throw error;
      const { status, reason, retryAfterMs = 0 } = error;
      return { status, reason, retryAfterMs: BigInt(retryAfterMs) };
    }
  }

  async function take(request: Enqueued, connection: Connection): Promise<Stored> {
    const target = Buffer.from(request.rid).toString('hex');
    calls.push(request);
    inFlight.set(target, (inFlight.get(target) ?? 0) + 1);
    const all = [...inFlight.values()].reduce((sum, one) => sum + one, 0);
    inFlightMax.perTarget = Math.max(inFlightMax.perTarget, inFlight.get(target) ?? 0);
    inFlightMax.all = Math.max(inFlightMax.all, all);
    try {
      const outcome = await script(request);
      if (outcome instanceof Error) throw outcome;
      const rows = stored.get(target) ?? [];
      stored.set(target, rows);
      const isKnown = rows.some(({ mid }) => Buffer.compare(mid, request.mid) === 0);
      if (!isKnown) rows.push(request);
      if (outcome === 'lostAnswer') await connection.close(CloseCode.Normal, 'gone');
      const { mid, payload, rid, domain } = request;
      const tag = messageTag(mid, payload);
      const statement = { mid, tag, target: { rid, domain }, receivedMs: 1 };
      return {
        outcome: isKnown ? Outcome.DUPLICATE : Outcome.STORED,
        receivedMs: 1n,
        proof: signDeliveryProof(statement, signing),
      };
    } finally {
      inFlight.set(target, (inFlight.get(target) ?? 1) - 1);
    }
  }

  const unbuilt = Object.fromEntries(
    Object.keys(methods).map((name) => [name, () => Promise.reject(new UnimplementedError(name))]),
  );
  const server = createServer({
    // Every row has a handler: those above, or one that says that there is none.
    handlers: { ...unbuilt, ...handlers, ...overrides } as Handlers,
    middleware: [],
    identify: async () => ({ class: 'anyone' }),
    runtime,
  });
  const listener: Listener = await transport.listen({
    endpoint: { host, port: 5001 },
    identity,
    limits: defaultLimits,
    maxRequestBytes,
    onConnection: (connection) => {
      connections.add(connection);
      server.serve(connection);
    },
  });
  const node = {
    stored,
    calls,
    batches,
    inFlightMax,
    storeId: new Uint8Array(8).fill(1),
    sign: (statement: StoredStatement) => signDeliveryProof(statement, signing),
    async disconnect() {
      for (const connection of connections) await connection.close(CloseCode.Draining, 'gone');
      connections.clear();
    },
    async [Symbol.asyncDispose]() {
      await listener.close(CloseCode.Draining, 'done');
    },
  };
  return node;
}
