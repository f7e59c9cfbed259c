/** Nodes gossip about key logs: heads spread, partitions heal by pulls, a log with two faces is convicted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  auditBundle,
  checkEvidence,
  DeploymentMode,
  encode,
  Follower,
  isConvicted,
  KtLog,
  MemoryAuditStore,
  MemoryTreeStore,
  nativeSigner,
  nativeSuite,
  nativeVrfProver,
  noteKey,
  SignatureType,
  type Configuration,
  type LogSource,
} from '@quicprochat/kt-log';
import { EvidenceRelay, GossipNode } from '@quicprochat/nodes/gossip';
import {
  KtGossip,
  makeSwarmKey,
  startNodeSwarm,
  type NodeSwarm,
  type NodeSwarmEvents,
  type SwarmKey,
} from '@quicprochat/p2p';
import { systemClock, systemRandom } from '@quicprochat/proto';
import { freePort, runtime, until } from './devices.ts';

const origin = 'mallory.example/kt';

/** One log, that a liar may open twice: the same keys, another history. */
function logKeys() {
  const [treeHead, note] = [systemRandom.bytes(32), systemRandom.bytes(32)].map(nativeSigner);
  assert(treeHead !== undefined && note !== undefined);
  const vrf = nativeVrfProver(systemRandom.bytes(32));
  const config: Configuration = {
    cipherSuite: 2,
    mode: DeploymentMode.contactMonitoring,
    signaturePublicKey: treeHead.publicKey,
    vrfPublicKey: vrf.publicKey,
    maxAheadMs: 300_000,
    maxBehindMs: 3_600_000,
    reasonableMonitoringWindowMs: 60_000,
    maximumLifetimeMs: undefined,
  };
  const key = noteKey(nativeSuite.sha256, origin, SignatureType.ed25519, note.publicKey);
  return { keys: { treeHead, note, vrf }, config, identity: { origin, key } };
}
type LogKeys = ReturnType<typeof logKeys>;

async function openLog(made: LogKeys) {
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

interface TestNode extends AsyncDisposable {
  readonly key: SwarmKey;
  readonly address: string;
  readonly swarm: NodeSwarm;
  readonly gossip: KtGossip;
  readonly follower: Follower;
  readonly store: MemoryAuditStore;
  /** Logs of which more was shown than is replayed. */
  readonly wanted: string[];
}

const start = (
  key: SwarmKey,
  port: number,
  events: NodeSwarmEvents,
  listen = `/ip4/127.0.0.1/tcp/${port}`,
) => startNodeSwarm({ key, runtime, listen: [listen], relays: false }, events);

/** A node that follows the log, as nodes/peer-audits.ts puts it together. */
async function startNode(made: LogKeys, starting = start): Promise<TestNode> {
  const key = makeSwarmKey(systemRandom);
  const port = await freePort();
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
      origins: [origin],
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
  const swarm = await starting(key, port, {
    ...gossip.events,
    mayReserve: () => Promise.resolve(false),
  });
  gossip.start(swarm);
  return {
    key,
    address: `/ip4/127.0.0.1/tcp/${port}`,
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

const asPeer = ({ key, address }: TestNode) => ({ peerId: key.peerId, addresses: [address] });
const connect = (a: TestNode, b: TestNode) =>
  Promise.all([a.swarm.setPeers([asPeer(b)]), b.swarm.setPeers([asPeer(a)])]);
const isConvictedAt = async ({ store }: TestNode) => isConvicted(await store.status(origin));

test('a fork is convicted by both nodes that saw one branch each, as soon as they meet', async () => {
  const made = logKeys();
  await using one = await openLog(made);
  await using other = await openLog(made);
  await one.append(5);
  await other.append(3);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  assert.equal((await anna.follower.pull(one.source)).status, 'ok');
  assert.equal((await bert.follower.pull(other.source)).status, 'ok');
  const startMs = performance.now();
  await connect(anna, bert);
  while (!(await isConvictedAt(anna)) || !(await isConvictedAt(bert))) {
    assert.ok(performance.now() - startMs < 5_000, 'not convicted in 5 s');
    await systemClock.sleep(10);
  }
  for (const { store } of [anna, bert]) {
    const [record] = await store.evidence(origin);
    assert(record !== undefined);
    assert.equal(checkEvidence(nativeSuite, record.bytes).origin, origin);
  }
});

test('an honest log: heads of the one make the other pull, and nobody is accused', async () => {
  const made = logKeys();
  await using log = await openLog(made);
  await log.append(2);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  await bert.follower.pull(log.source);
  await connect(anna, bert);
  await until(() => anna.gossip.up.size === 1 && bert.gossip.up.size === 1);
  await until(() => anna.wanted.includes(origin));
  await anna.follower.pull(log.source);
  // While both are connected a new head travels as gossip.
  await log.append(2);
  await bert.follower.pull(log.source);
  anna.wanted.length = 0;
  // Meshes form at gossipsub's heartbeat; publications flood, but only to who is known to listen.
  await until(() => {
    if (anna.wanted.length === 0) void bert.gossip.publishHead();
    return anna.wanted.length > 0;
  });
  for (const node of [anna, bert]) assert.deepEqual(await node.store.evidence(), []);
});

test('evidence reaches a node that was away when it was found, and junk does not', async () => {
  const made = logKeys();
  await using one = await openLog(made);
  await using other = await openLog(made);
  await one.append(4);
  await other.append(4);
  await using anna = await startNode(made);
  await using bert = await startNode(made);
  await anna.follower.pull(one.source);
  const note = await other.source.checkpoint();
  assert.equal((await anna.follower.observe({ type: 'note', note })).type, 'conflict');
  await connect(anna, bert);
  await until(() => bert.gossip.up.size === 1);
  const deadlineMs = performance.now() + 5_000;
  while (!(await isConvictedAt(bert))) {
    assert.ok(performance.now() < deadlineMs);
    await systemClock.sleep(10);
  }
  const [record] = await bert.store.evidence(origin);
  assert(record !== undefined);
  const { evidenceShown } = nodeOf(bert);
  const from = anna.key.peerId;
  assert.equal(await evidenceShown(from, record.bytes), 'ignore');
  assert.equal(await evidenceShown(from, record.bytes.subarray(1)), 'reject');
});

test('only listed peers gossip and pull', async () => {
  const made = logKeys();
  await using anna = await startNode(made);
  await using mallory = await startNode(made);
  // Mallory knows Anna; Anna does not list her.
  await mallory.swarm.setPeers([asPeer(anna)]);
  await until(() => mallory.gossip.up.size === 1);
  const pull = mallory.swarm.pull(anna.key.peerId, 916, new Uint8Array());
  await assert.rejects(pull, { reason: 'DISCONNECTED' });
  assert.equal(await mallory.swarm.publish('qpc/kt/1', new Uint8Array(10)), 0);
  assert.equal(anna.gossip.up.size, 0);
  await assert.rejects(mallory.swarm.publish('qpc/kt/1', new Uint8Array(8 * 1024 + 1)), {
    reason: 'TOO_LARGE',
  });
});

function nodeOf(node: TestNode) {
  return {
    evidenceShown: (from: string, bytes: Uint8Array) =>
      node.gossip.events.onGossip('qpc/kt-evidence/1', from, bytes),
  };
}
