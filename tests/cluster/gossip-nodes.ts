/** Nodes that follow one log and gossip about it, and a log that may have two faces: for tests and benches. */
import {
  auditBundle,
  encode,
  Follower,
  isConvicted,
  KtLog,
  MemoryAuditStore,
  MemoryTreeStore,
  nativeSuite,
  type LogSource,
} from '@quicprochat/kt-log';
import { testLogKeys } from '@quicprochat/kt-log/test-keys';
import { EvidenceRelay, GossipNode } from '@quicprochat/nodes/gossip';
import {
  KtGossip,
  makeSwarmKey,
  type NodeSwarm,
  type SwarmKey,
  type SwarmPeer,
} from '@quicprochat/p2p';
import { startNodeSwarm } from '@quicprochat/p2p/swarm';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };

export const origin = 'mallory.example/kt';

/** One log, that a liar may open twice: the same keys, another history. */
export function logKeys(seed: Uint8Array = systemRandom.bytes(32)) {
  return testLogKeys(origin, (n) => nativeSuite.sha256(Uint8Array.of(n, ...seed)));
}
export type LogKeys = ReturnType<typeof logKeys>;

export async function openLog(made: LogKeys) {
  const tree = new MemoryTreeStore();
  const log = await KtLog.open({
    ...made,
    store: tree,
    suite: nativeSuite,
    clock: systemClock,
    random: systemRandom,
    sequencerLimits: { batchMs: 0 },
  });
  const source: LogSource = {
    checkpoint: async () => new TextEncoder().encode(await log.checkpoint()),
    bundle: async (from, max) =>
      from < log.size
        ? encode(auditBundle, await log.auditBundle(from, Math.min(log.size, from + max)))
        : undefined,
    heads: async (from, max) => {
      const heads = [];
      for (let size = from; size < from + max && size <= log.size; size++) {
        const head = await tree.head(size);
        if (head !== undefined) heads.push({ size, root: head.root, signature: head.signature });
      }
      return heads;
    },
  };
  const append = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      const label = Buffer.from(systemRandom.bytes(8));
      await log.append({ label, greatest: -1, values: [systemRandom.bytes(8)] });
    }
  };
  return { log, source, append, [Symbol.asyncDispose]: () => log[Symbol.asyncDispose]() };
}

export interface TestNode extends AsyncDisposable {
  readonly key: SwarmKey;
  readonly address: string;
  readonly swarm: NodeSwarm;
  readonly gossip: KtGossip;
  readonly follower: Follower;
  readonly store: MemoryAuditStore;
  /** Logs of which more was shown than is replayed. */
  readonly wanted: string[];
}

/** A node that follows the log, as nodes/peer-audits.ts puts it together. */
export async function startNode(
  made: LogKeys,
  options: { readonly key?: SwarmKey; readonly listen?: string } = {},
): Promise<TestNode> {
  const { key = makeSwarmKey(systemRandom), listen = '/ip4/127.0.0.1/tcp/0' } = options;
  const store = new MemoryAuditStore();
  const wanted: string[] = [];
  const relay = new EvidenceRelay({
    store,
    runtime,
    peers: [],
    followerOf: () => follower,
    notify: () => undefined,
  });
  const follower = new Follower({
    suite: nativeSuite,
    log: { config: made.config, identity: made.identity },
    store,
    clock: systemClock,
    onEvidence: (record, checked) => {
      relay.found(record, checked);
      void gossip.publishEvidence(record.bytes);
    },
  });
  const gossip = new KtGossip(
    new GossipNode({
      store,
      runtime,
      origins: () => [origin],
      followerOf: (name) => (name === origin ? follower : undefined),
      evidence: relay,
      domainOf: (peerId) => peerId,
      want: (name) => void wanted.push(name),
      ownOrigin: 'own.example/kt',
      ownSize: () => 0,
      ownNote: async () => (await store.followed(origin))?.checkpoint,
      ownShown: () => Promise.resolve(),
      heads: async ({ origin: asked, fromSize, max }) => {
        const heads = await store.heads(asked, Number(fromSize), max);
        const { checkpoint } = (await store.followed(asked)) ?? {};
        return {
          heads: heads.map((head) => ({ ...head, size: BigInt(head.size) })),
          ...(checkpoint === undefined ? {} : { checkpoint }),
        };
      },
    }),
    runtime,
  );
  const swarm = await startNodeSwarm(
    { key, runtime, listen: [listen], relays: false },
    { ...gossip.events, mayReserve: () => Promise.resolve(false) },
  );
  gossip.start(swarm);
  return {
    key,
    address: (await swarm.addresses())[0] ?? '',
    swarm,
    gossip,
    follower,
    store,
    wanted,
    async [Symbol.asyncDispose]() {
      gossip[Symbol.dispose]();
      await swarm[Symbol.asyncDispose]();
    },
  };
}

export const asPeer = ({ key, address }: TestNode): SwarmPeer => ({
  peerId: key.peerId,
  addresses: [address],
});
export const connect = (a: TestNode, b: TestNode) =>
  Promise.all([a.swarm.setPeers([asPeer(b)]), b.swarm.setPeers([asPeer(a)])]);
export const isConvictedAt = async ({ store }: TestNode) => isConvicted(await store.status(origin));
