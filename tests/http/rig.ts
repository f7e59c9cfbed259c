/**
 * An HTTP door over a real log in memory, on a socket of loopback: what the tests of the door and of
 * its page stand on.
 */
import {
  encode,
  KtLog,
  KtService,
  MemoryAuditStore,
  MemoryTreeStore,
  nativeSuite,
  updateRequest,
  type Configuration,
  type LogIdentity,
} from '@quicprochat/kt-log';
import { testLogKeys } from '@quicprochat/kt-log/test-keys';
import {
  openHttpDoor,
  Routes,
  type HttpDoor,
  type HttpLimits,
  type PeerFacts,
} from '@quicprochat/nodes/http';
import {
  firstManifest,
  manifestValue,
  nextManifest,
  signingKeyFromSeed,
  signNodeRecord,
  silentLog,
  systemClock,
  systemRandom,
  type Log,
  type Runtime,
  type SigningKey,
} from '@quicprochat/proto';
import type { SignedManifest, SignedNodeRecord } from '@quicprochat/proto/messages';

export const domain = 'red.example';
export const runtime: Runtime = { clock: systemClock, random: systemRandom, log: silentLog };

const noPeers: PeerFacts = {
  cosigners: () => [],
  policyText: () => '',
  audits: () => Promise.resolve([]),
};

export interface DoorOptions {
  readonly publicSearch?: boolean;
  readonly peers?: PeerFacts;
  readonly perSecond?: number;
  readonly limits?: Partial<HttpLimits>;
  readonly log?: Log;
}

interface User {
  readonly account: SigningKey;
  readonly device: SigningKey;
  readonly manifest: SignedManifest;
  readonly version: number;
}

/** One log and one door to it. */
export class DoorRig implements AsyncDisposable {
  readonly log: KtLog;
  readonly config: Configuration;
  readonly identity: LogIdentity;
  readonly service: KtService;
  readonly audits = new MemoryAuditStore();
  readonly #users = new Map<string, User>();
  #door: HttpDoor | undefined;

  private constructor(log: KtLog, config: Configuration, identity: LogIdentity) {
    this.log = log;
    this.config = config;
    this.identity = identity;
    this.service = new KtService(log);
  }

  static async open(options: DoorOptions = {}): Promise<DoorRig> {
    const { keys, config, identity } = testLogKeys(domain, () => systemRandom.bytes(32));
    const store = new MemoryTreeStore();
    const log = await KtLog.open({
      config,
      identity,
      keys,
      store,
      suite: nativeSuite,
      clock: systemClock,
      random: systemRandom,
      sequencerLimits: { batchMs: 0 },
    });
    const rig = new DoorRig(log, config, identity);
    const perSecond = options.perSecond ?? 10_000;
    const rate = { perSecond, burst: perSecond };
    rig.#door = await openHttpDoor({
      listen: { host: '127.0.0.1', port: 0 },
      routes: new Routes({
        domain,
        log,
        config,
        identity,
        tree: store,
        audits: rig.audits,
        service: rig.service,
        peers: options.peers ?? noPeers,
        record: testRecord,
        clock: systemClock,
        publicSearch: options.publicSearch ?? false,
      }),
      rates: { cheap: rate, audit: rate, lookup: rate },
      runtime: { ...runtime, log: options.log ?? silentLog },
      ...(options.limits === undefined ? {} : { limits: options.limits }),
    });
    return rig;
  }

  get port(): number {
    return this.#door?.endpoint.port ?? 0;
  }
  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** A user with one device and fresh keys; version 0 in the log. */
  async register(name: string): Promise<void> {
    const userId = `${name}@${domain}`;
    const account = signingKeyFromSeed(systemRandom.bytes(32));
    const device = signingKeyFromSeed(systemRandom.bytes(32));
    const manifest = firstManifest(userId, account, device.publicKey, systemClock.now());
    this.#users.set(name, { account, device, manifest, version: 0 });
    await this.put(userId, manifestValue(manifest));
  }

  keysOf(name: string): { readonly accountKey: Uint8Array; readonly deviceKey: Uint8Array } {
    const { account, device } = this.#user(name);
    return { accountKey: account.publicKey, deviceKey: device.publicKey };
  }

  /** The next version of the user, under a new account key that the old one signs. */
  async rotate(name: string): Promise<void> {
    const { account: previousAccountKey, device, manifest: before, version } = this.#user(name);
    const account = signingKeyFromSeed(systemRandom.bytes(32));
    const manifest = nextManifest(before, {}, { accountKey: account, previousAccountKey });
    this.#users.set(name, { account, device, manifest, version: version + 1 });
    await this.put(`${name}@${domain}`, manifestValue(manifest), version);
  }

  #user(name: string): User {
    const user = this.#users.get(name);
    if (user === undefined) throw new Error(`${name} is not registered`);
    return user;
  }

  /** Logs the version after `greatestVersion`. */
  async put(label: string, value: Uint8Array, greatestVersion?: number): Promise<void> {
    const request = { label: new TextEncoder().encode(label), greatestVersion, values: [value] };
    await this.service.update(encode(updateRequest, { last: undefined, ...request }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#door?.[Symbol.asyncDispose]();
    this.service[Symbol.dispose]();
    await this.log[Symbol.asyncDispose]();
  }
}

export function testRecord(): SignedNodeRecord {
  const signing = signingKeyFromSeed(new Uint8Array(32).fill(3));
  return signNodeRecord({
    domain,
    keys: [{ spkiSha256: new Uint8Array(32), signing, fromMs: 0, toMs: 0 }],
    endpoints: [],
    seq: 1,
    versionMin: 1,
    versionMax: 1,
    capabilities: [],
  });
}
