/**
 * Federation of one node inside a test: the real store (in this thread, on disk), the real memory
 * transport and dispatch, and a clock that the test owns. What a node has besides federation is
 * left out; rows come from `send`, and are looked at in outbox and inbox.
 */
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  callerClass,
  createServer,
  maxRequestBytes,
  methods,
  RowKind,
  signingKeyFromSeed,
  signNodeRecord,
  UnavailableError,
  UnimplementedError,
  validate,
  type Handlers,
  type Log,
  type LogFields,
  type NodeRecordFacts,
  type NodeRecordKey,
  type Random,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import {
  fromBinary,
  NoticeSchema,
  type Notice,
  type SignedNodeRecord,
} from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  type Connection,
  type Listener,
  type MemoryNetwork,
  type NodeIdentity,
} from '@quicprochat/proto/transport';
import {
  createFederation,
  type Ceilings,
  type Federation,
  type FederationMode,
  type OutboxRow,
  type Peer,
  type PeersFile,
  type RecordSite,
} from '@quicprochat/federation';
import {
  createNodeStore,
  openNodeStoreInThread,
  type InboxRow,
  type NodeStore,
} from '@quicprochat/nodes';
import { registerAccount } from '@quicprochat/nodes/store/log-batch';
import type { SimulatedClock } from '../simulated-clock.ts';

export const port = 5001;
const key = new Uint8Array(32).fill(7);
/** How long a simulated node waits before it believes other keys. */
export const lostKeyHours = 8;
/** Kinds that a simulated node takes: 1 travels in the bulk lane, 2 in the control lane. */
const kinds = new Set([1, 2]);

export interface LogLine extends LogFields {
  readonly level: string;
  readonly event: string;
}

/** Bytes of a seeded generator (mulberry32): fit for jitter and ids of tests, for nothing else. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) & 0xff;
  };
  return { bytes: (length) => Uint8Array.from({ length }, next) };
}

export interface SimOptions {
  readonly domain: string;
  readonly directory: string;
  readonly network: MemoryNetwork;
  readonly clock: SimulatedClock;
  readonly seed?: number;
  readonly inboxRows?: number;
  readonly databaseBytes?: number;
  readonly ceilings?: Partial<Ceilings>;
  readonly mode?: FederationMode;
  /** Bytes at `https://domain/.well-known/qpc`; throws or undefined: there is none. */
  readonly site?: (domain: string) => Promise<Uint8Array | undefined>;
  /** Answers before the real handlers do: what it throws is the peer's fault. */
  readonly intercept?: (method: string, request: unknown) => void | Promise<void>;
}

export class SimNode implements AsyncDisposable {
  readonly domain: string;
  /** One device of this node. */
  readonly rid: Uint8Array;
  readonly log: LogLine[] = [];
  readonly #options: SimOptions;
  readonly #identities = new Map<string, NodeIdentity>();
  #identity: NodeIdentity;
  #signing: SigningKey;
  readonly #runtime: Runtime;
  #file: PeersFile = { peers: [], deniedDomains: [], deniedPins: [] };
  #store: NodeStore | undefined;
  #federation: Federation | undefined;
  #listener: Listener | undefined;
  #snapshots = 0;
  /** How often a peer told this node that it was restored from an older copy. */
  rewinds = 0;

  private constructor(options: SimOptions, identity: NodeIdentity, random: Random) {
    this.#options = options;
    this.domain = options.domain;
    this.rid = ridOf(options.domain);
    this.#identity = identity;
    // Not from `random`: jitter of the tests' seeds stays what it is.
    this.#signing = signingKeyFromSeed(identity.spkiSha256);
    this.#use(identity);
    this.#runtime = { clock: options.clock, random, log: this.#makeLog() };
  }

  /** A node with an empty store and one device, not started. */
  static async make(options: SimOptions): Promise<SimNode> {
    const random = seededRandom(options.seed ?? options.domain.length);
    const node = new SimNode(options, await makeIdentity(random), random);
    await createNodeStore({ path: node.#path, key, runtime: node.#runtime });
    await using store = node.#openStore();
    await registerAccount(store, {
      userId: `bob@${node.domain}`,
      setupId: 1,
      opaqueRecord: new Uint8Array(1),
      manifest: { manifest: new Uint8Array(1), signature: new Uint8Array(64) },
      manifestSeq: 0,
      device: { deviceId: 'a'.repeat(10), identityPub: node.rid, transportSpki: node.rid },
      sessionExpiresMs: 0,
    });
    return node;
  }

  /** What it was made with. */
  get options(): SimOptions {
    return this.#options;
  }

  /** A device that this node does not have. */
  get nobody(): { readonly domain: string; readonly rid: Uint8Array } {
    return { domain: this.domain, rid: ridOf('nobody') };
  }

  get asPeer(): Peer {
    const { domain } = this;
    return { domain, pins: [this.#identity.spkiSha256], endpoints: [{ host: domain, port }] };
  }

  get identity(): NodeIdentity {
    return this.#identity;
  }

  get isRunning(): boolean {
    return this.#federation !== undefined;
  }

  get federation(): Federation {
    if (this.#federation === undefined) throw new Error(`${this.domain} is not running`);
    return this.#federation;
  }

  get store(): NodeStore {
    if (this.#store === undefined) throw new Error(`${this.domain} is not running`);
    return this.#store;
  }

  async start(peers?: readonly Peer[], more: Partial<PeersFile> = {}): Promise<void> {
    if (peers !== undefined) this.#file = { peers, deniedDomains: [], deniedPins: [], ...more };
    const { domain } = this;
    const { network, ceilings, mode, site } = this.#options;
    const transport = network.transport(domain);
    const store = this.#openStore();
    const federation = createFederation({
      store,
      markKey: key,
      onRewound: () => void (this.rewinds += 1),
      transport,
      identity: this.#identity,
      domain,
      peers: this.#file,
      runtime: this.#runtime,
      kinds,
      ...(ceilings === undefined ? {} : { ceilings }),
      ...(mode === undefined ? {} : { mode }),
      lostKeyMs: lostKeyHours * 3_600_000,
      ...(site === undefined ? {} : { site: recordSite(site) }),
    });
    const server = this.#makeServer(federation);
    this.#listener = await transport.listen({
      endpoint: { host: domain, port },
      identity: this.#identity,
      limits: defaultLimits,
      maxRequestBytes,
      onConnection: (connection) => server.serve(connection),
    });
    this.#store = store;
    this.#federation = federation;
    await federation.start();
  }

  /** All its keys are lost: it goes on with new ones. Not while it runs. */
  async loseKeys(): Promise<void> {
    this.#use(await makeIdentity(this.#runtime.random));
  }

  /** Goes back to keys that it had once. Not while it runs. */
  useKey({ spkiSha256 }: NodeRecordKey): void {
    const identity = this.#identities.get(Buffer.from(spkiSha256).toString('hex'));
    if (identity === undefined) throw new Error('it never had that key');
    this.#use(identity);
  }

  #use(identity: NodeIdentity): void {
    this.#identity = identity;
    this.#signing = signingKeyFromSeed(identity.spkiSha256);
    this.#identities.set(Buffer.from(identity.spkiSha256).toString('hex'), identity);
  }

  /** This node's keys as they stand in its record. */
  get recordKey(): NodeRecordKey {
    const { spkiSha256 } = this.#identity;
    return { spkiSha256, signing: this.#signing, fromMs: 0, toMs: 0 };
  }

  /** What this node says that it is. */
  makeRecord: () => SignedNodeRecord = () => this.record();

  /** A record with this node's keys, and parts of it replaced. */
  record(facts: Partial<NodeRecordFacts> = {}): SignedNodeRecord {
    return signNodeRecord({
      domain: this.domain,
      keys: [this.recordKey],
      endpoints: [{ host: this.domain, port }],
      seq: 1,
      versionMin: 1,
      versionMax: 1,
      capabilities: [],
      ...facts,
    });
  }

  /** An orderly stop. */
  async stop(): Promise<void> {
    await this.#federation?.stop();
    await this.#listener?.close(CloseCode.Draining, 'stop');
    await this.#close();
  }

  /** The process dies: nothing is written or sent any more from this moment on. */
  async kill(): Promise<void> {
    const federation = this.#federation;
    const closed = this.#close();
    this.#options.network.crash(this.domain);
    await closed;
    await federation?.stop();
  }

  async #close(): Promise<void> {
    const store = this.#store;
    this.#store = undefined;
    this.#federation = undefined;
    this.#listener = undefined;
    await store?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Stops, copies the database aside and starts again. Returns the number of the copy. */
  async snapshot(): Promise<number> {
    await this.kill();
    this.#snapshots += 1;
    for (const end of ['', '-commits']) {
      copyFileSync(this.#path + end, `${this.#path}.${this.#snapshots}${end}`);
    }
    await this.start();
    return this.#snapshots;
  }

  /**
   * Dies and comes back with an older copy of its database; `isWhole`: of the file beside it too, by
   * which the store itself would notice.
   */
  async restore(copy: number, { isWhole = false } = {}): Promise<void> {
    await this.kill();
    for (const end of ['-wal', '-shm']) rmSync(this.#path + end, { force: true });
    for (const end of isWhole ? ['', '-commits'] : ['']) {
      copyFileSync(`${this.#path}.${copy}${end}`, this.#path + end);
    }
    await this.start();
  }

  /** Puts one row of this node's device into the outbox for the other node's, and says so. */
  async send(
    to: { readonly domain: string; readonly rid: Uint8Array },
    text: string,
    options: { readonly kind?: number; readonly ttlMs?: number } = {},
  ): Promise<void> {
    const payload = new TextEncoder().encode(text);
    await this.store.enqueueRemote(to.domain, {
      rid: to.rid,
      kind: options.kind ?? 1,
      mid: ridOf(text).subarray(0, 16),
      payload,
      ttlMs: options.ttlMs ?? 7 * 24 * 3600 * 1000,
      sender: this.rid,
    });
    this.federation.notify(to.domain);
  }

  /** Texts of the device's inbox, in its order. */
  async received(): Promise<string[]> {
    const rows = await this.inbox();
    return rows
      .filter(({ kind }) => kind !== RowKind.Notice)
      .map(({ payload }) => new TextDecoder().decode(payload));
  }

  /** What the node told its device about rows that it sent. */
  async notices(): Promise<Notice[]> {
    const rows = await this.inbox();
    return rows
      .filter(({ kind }) => kind === RowKind.Notice)
      .map(({ payload }) => fromBinary(NoticeSchema, payload));
  }

  /** The rows of the device's inbox, in its order. */
  async inbox(): Promise<readonly InboxRow[]> {
    const found: InboxRow[] = [];
    for (let after = 0; ;) {
      const { rows } = await this.store.fetch(this.rid, after, 256, 512 * 1024);
      if (rows.length === 0) return found;
      found.push(...rows);
      after = rows.at(-1)?.seq ?? after;
    }
  }

  /** Texts of the rows that still wait for a peer. */
  async held(peer: string): Promise<string[]> {
    const rows: OutboxRow[] = [];
    for (const lane of ['control', 'bulk'] as const) {
      for (let after = 0; ;) {
        const some = await this.store.readOutbox(peer, lane, after, 256, 1024 * 1024);
        if (some.length === 0) break;
        rows.push(...some);
        after = some.at(-1)?.seq ?? after;
      }
    }
    return rows.map(({ payload }) => new TextDecoder().decode(payload));
  }

  /** Events of the log, for messages that operators read. */
  events(event: string): LogLine[] {
    return this.log.filter((line) => line.event === event);
  }

  get #path(): string {
    return join(this.#options.directory, `${this.domain}.db`);
  }

  #openStore(): NodeStore {
    const limits = {
      inboxRows: this.#options.inboxRows ?? 100_000,
      inboxBytes: 2 ** 30,
      databaseBytes: this.#options.databaseBytes,
      channelRows: 100_000,
      channelBytes: 2 ** 30,
      strangerRows: 100_000,
      outboxRowsPerPeer: 100_000,
      outboxBytesPerPeer: 2 ** 30,
      outboxAgeMs: 7 * 24 * 3600 * 1000,
      deferredRetryMs: 60_000,
      delayedAfterMs: 3600 * 1000,
      tombstoneMs: 72 * 3600 * 1000,
    };
    return openNodeStoreInThread({ path: this.#path, key, limits, runtime: this.#runtime });
  }

  #makeServer(federation: Federation): ReturnType<typeof createServer> {
    const peers = new WeakMap<Connection, string>();
    const names = Object.keys(methods);
    const unbuilt = Object.fromEntries(
      names.map((name) => [name, () => Promise.reject(new UnimplementedError(name))]),
    );
    const peerOf = (connection: Connection): string => peers.get(connection) ?? '';
    const handlers: Partial<Handlers> = {
      fedHello: async (request, { connection }) => {
        const isRepeated = peers.get(connection) === request.domain;
        const { spkiSha256 } = connection.peer;
        const response = await federation.acceptHello(spkiSha256, request, { isRepeated });
        peers.set(connection, request.domain);
        return response;
      },
      fedRelay: (request, { connection }) => federation.relay(peerOf(connection), request),
      fedRelayBatch: (request, { connection }) => federation.relay(peerOf(connection), request),
      getNodeRecord: async () => ({ record: this.makeRecord() }),
      proxyResolveUser: async ({ resolve }) => {
        const account = await this.store.account(resolve?.userId ?? '');
        return account === undefined ? {} : { resolved: { manifest: account.manifest } };
      },
    };
    return createServer({
      // Every row has a handler: those above, or one that says that there is none.
      handlers: { ...unbuilt, ...handlers } as Handlers,
      middleware: [
        async (call, next) => {
          await this.#options.intercept?.(call.name, call.decode());
          return next(call);
        },
        callerClass,
        async (call, next) => {
          if (call.caller.class === 'peer') federation.heard(call.caller.domain);
          return next(call);
        },
        validate,
      ],
      identify: async (connection) => {
        const domain = peers.get(connection);
        const isPeer =
          domain !== undefined && federation.isPinned(domain, connection.peer.spkiSha256);
        return isPeer ? { class: 'peer', domain } : { class: 'anyone' };
      },
      runtime: this.#runtime,
    });
  }

  #makeLog(): Log {
    const add =
      (level: string) =>
      (event: string, fields: LogFields = {}): void => {
        this.log.push({ ...fields, level, event });
      };
    return { debug: add('debug'), info: add('info'), warn: add('warn'), error: add('error') };
  }
}

/** 32 bytes that differ for different short texts. */
function ridOf(text: string): Uint8Array {
  const bytes = new Uint8Array(32);
  bytes.set(new TextEncoder().encode(text).subarray(0, 32));
  return bytes;
}

function recordSite(read: (domain: string) => Promise<Uint8Array | undefined>): RecordSite {
  return {
    async fetch(domain) {
      const bytes = await read(domain);
      if (bytes === undefined) throw new UnavailableError('PEER_UNREACHABLE', 'no such site');
      return bytes;
    },
  };
}
