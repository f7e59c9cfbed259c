/**
 * A real node inside the test's process: the production classes on a memory network, with a real
 * encrypted store in its worker thread. For tests of services that need no process of its own.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createSecrets,
  openNodeStore,
  createNodeStore,
  parseConfig,
  startNode,
  type NodeConfig,
  type NodeSecrets,
  type NodeStore,
  type QpcNode,
} from '@quicprochat/nodes';
import {
  maxRequestBytes,
  QpcError,
  seedOf,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
  type Log,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  type Connection,
  type MemoryNetwork,
  type NodeIdentity,
} from '@quicprochat/proto/transport';
import { makePeer, type RecordSite } from '@quicprochat/federation';
import { formatNodeAddress } from '@quicprochat/proto';
import { login, register } from '@quicprochat/client-lib/account';

export const testRuntime: Runtime = { clock: systemClock, random: systemRandom, log: silentLog };

/** Every host listens on this port of its own. */
const port = 5001;

export class LocalNode implements AsyncDisposable {
  readonly domain: string;
  readonly network: MemoryNetwork;
  readonly directory = mkdtempSync(join(tmpdir(), 'qpc-node-'));
  readonly key = systemRandom.bytes(32);
  config: NodeConfig;
  log: Log = silentLog;
  /** Where domains say which keys are theirs; nobody is asked without it. */
  site: RecordSite | undefined;
  secrets: NodeSecrets | undefined;
  store: NodeStore | undefined;
  node: QpcNode | undefined;

  /** Only its own clock and log are ever another one. */
  readonly runtime: Runtime;

  constructor(network: MemoryNetwork, domain: string, extraConfig = '', runtime = testRuntime) {
    this.runtime = runtime;
    this.network = network;
    this.domain = domain;
    // Nobody here shares an entry or a processor with others: waiting would only take time.
    const kt = extraConfig.includes('[kt]') ? '' : '\n[kt]\nbatch_ms = 5\nvrf_threads = 0\n';
    const text = `domain = "${domain}"\nlisten = "127.0.0.1:${port}"\nadvertise = "${domain}:${port}"\ndatabase = "node.db"\ndatabase_key_file = "database.key"\n${extraConfig}${kt}`;
    this.config = parseConfig(text, join(this.directory, 'qpcd.toml'));
  }

  static async create(
    network: MemoryNetwork,
    domain: string,
    extraConfig = '',
    runtime: Runtime = testRuntime,
  ): Promise<LocalNode> {
    const local = new LocalNode(network, domain, extraConfig, runtime);
    const { databasePath: path } = local.config;
    await createNodeStore({ path, key: local.key, runtime });
    local.store = await openNodeStore({
      path,
      key: local.key,
      limits: local.config.store,
      runtime,
    });
    local.secrets = await createSecrets(local.store, runtime);
    return local;
  }

  get identity(): NodeIdentity {
    if (this.secrets === undefined) throw new Error('create the node first');
    return this.secrets.identity;
  }

  get address(): string {
    return formatNodeAddress({ host: this.domain, port, pin: this.identity.spkiSha256 });
  }

  async start(peers: readonly Pick<LocalNode, 'domain' | 'address'>[] = []): Promise<void> {
    if (this.secrets === undefined || this.store === undefined)
      throw new Error('create the node first');
    this.node = await startNode({
      config: this.config,
      secrets: this.secrets,
      store: this.store,
      peers: {
        peers: peers.map((peer) => makePeer(peer.domain, [peer.address])),
        deniedDomains: [],
        deniedPins: [],
      },
      ...(this.site === undefined ? {} : { site: this.site }),
      transport: this.network.transport(this.domain),
      runtime: { ...this.runtime, log: this.log },
      software: 'test',
    });
  }

  /** Stops and starts it, with some of its configuration replaced for good. */
  async restart(changes: Partial<NodeConfig> = {}): Promise<void> {
    await this.node?.stop();
    this.node = undefined;
    const before = this.config;
    this.config = { ...before, ...changes };
    try {
      await this.start();
    } catch (error) {
      this.config = before;
      throw error;
    }
  }

  /** Stops it and opens its store again, with other bounds or on a disk that is as full as that; not started. */
  async reopen(limits: Partial<NodeConfig['store']> = {}): Promise<void> {
    await this.node?.stop();
    this.node = undefined;
    await this.store?.[Symbol.asyncDispose]();
    const { databasePath: path, store } = this.config;
    const { key, runtime } = this;
    this.store = await openNodeStore({
      ...{ path, key: key.slice(), runtime },
      limits: { ...store, ...limits },
    });
  }

  /** A connection from a host of its own, with the given transport key. */
  async dial(identity: NodeIdentity, fromHost = 'client'): Promise<Connection> {
    return this.network
      .transport(fromHost)
      .dial(
        { host: this.domain, port },
        { identity, limits: defaultLimits, maxRequestBytes, pins: [this.identity.spkiSha256] },
      );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.node?.stop();
    await this.store?.[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A logged-in device below the level of QpcClient: one connection and its keys. */
export class TestDevice implements AsyncDisposable {
  readonly userId: string;
  readonly identityKey: SigningKey = signingKeyFromSeed(systemRandom.bytes(32));
  readonly accountKey: SigningKey = signingKeyFromSeed(systemRandom.bytes(32));
  readonly password = new Uint8Array(Buffer.from('correct horse battery'));
  readonly transport: NodeIdentity;
  connection: Connection;

  private constructor(userId: string, transport: NodeIdentity, connection: Connection) {
    this.userId = userId;
    this.transport = transport;
    this.connection = connection;
  }

  /** Dials with fresh keys; not registered yet. */
  static async dial(node: LocalNode, userId: string): Promise<TestDevice> {
    const transport = await makeIdentity(systemRandom);
    return new TestDevice(userId, transport, await node.dial(transport));
  }

  static async register(node: LocalNode, userId: string): Promise<TestDevice> {
    const device = await TestDevice.dial(node, userId);
    await device.register();
    return device;
  }

  get rid(): Uint8Array {
    return this.identityKey.publicKey;
  }

  get seed(): Uint8Array {
    return seedOf(this.identityKey);
  }

  credentials(password = this.password) {
    const { userId, accountKey, identityKey, transport } = this;
    const keys = { accountKey, identityKey, transport };
    return { userId, password, keys, pinnedServerKey: undefined };
  }

  register(): ReturnType<typeof register> {
    return register(this.connection, this.credentials(), systemClock);
  }

  login(password = this.password): ReturnType<typeof login> {
    return login(this.connection, this.credentials(password));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.connection.close(CloseCode.Normal, 'done');
  }
}

/** Asserts the typed refusal of a call. */
export async function refused(promise: Promise<unknown>, reason: string): Promise<QpcError> {
  const error = await promise.then(
    () => assert.fail(`expected ${reason}, got an answer`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof QpcError, String(error));
  assert.equal(error.reason, reason, error.message);
  return error;
}
