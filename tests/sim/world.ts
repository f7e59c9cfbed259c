/**
 * The world that every run begins with: nodes that know each other, accounts with their devices, and
 * conversations between them, made once per process by the very classes of production and kept as
 * images of their files. Registration (OPAQUE) costs half a second for each account, a run far less.
 */
import {
  createNodeStore,
  createSecrets,
  openNodeStoreInThread,
  parseConfig,
  type NodeConfig,
  type NodeSecrets,
} from '@quicprochat/nodes';
import { deviceIdOf, formatNodeAddress, type Runtime } from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { SimClient, type ClientParts } from './client.ts';
import { Disk, imageOf, type FileImage } from './disk.ts';
import { cheapenDatabases, rememberCrypto, rememberVrf } from './memo.ts';
import { noCallFaults } from './network.ts';
import { nodePort, SimNode, type NodeParts, type Surroundings } from './node.ts';
import { Process, SimRandom } from './process.ts';
import { Outside } from './outside.ts';
import { Scheduler } from './scheduler.ts';
import { Trace } from './trace.ts';

export interface WorldConversation {
  /** Hex. */
  readonly id: string;
  readonly name: string;
  /** Names of the devices in it. */
  readonly devices: readonly string[];
}

export interface World {
  readonly nodes: readonly {
    readonly domain: string;
    readonly key: Uint8Array;
    readonly secrets: NodeSecrets;
    readonly image: FileImage;
  }[];
  readonly clients: readonly (ClientParts & {
    readonly image: FileImage;
    /** Hex of the device's identity key, and its device id. */
    readonly ridHex: string;
    readonly deviceId: string;
  })[];
  readonly conversations: readonly WorldConversation[];
}

const domains = ['red.example', 'green.example', 'blue.example'] as const;
/** A person with two devices, and others with one. */
const devices: readonly { readonly name: string; readonly userId: string }[] = [
  { name: 'alice/1', userId: 'alice@red.example' },
  { name: 'alice/2', userId: 'alice@red.example' },
  { name: 'bob/1', userId: 'bob@blue.example' },
  { name: 'carol/1', userId: 'carol@red.example' },
  { name: 'dave/1', userId: 'dave@green.example' },
  { name: 'erin/1', userId: 'erin@blue.example' },
];
/** The first of each makes it. */
const conversations: readonly { readonly name: string; readonly devices: readonly string[] }[] = [
  { name: 'over two nodes', devices: ['bob/1', 'carol/1'] },
  { name: 'at one node', devices: ['erin/1', 'bob/1'] },
  { name: 'two devices', devices: ['dave/1', 'alice/1', 'alice/2'] },
  { name: 'three nodes', devices: ['carol/1', 'dave/1', 'erin/1'] },
  // Made by somebody with one device: who creates a conversation does not bring the own others.
  { name: 'everybody', devices: ['bob/1', 'alice/1', 'alice/2', 'carol/1', 'dave/1', 'erin/1'] },
];

const password = new TextEncoder().encode('correct horse battery');
const patienceMs = 600_000;

/** Limits of a simulated node; `extra` is TOML. */
export function nodeConfig(domain: string, extra = ''): NodeConfig {
  const text = `domain = "${domain}"
listen = "127.0.0.1:${nodePort}"
advertise = "${domain}:${nodePort}"
database = "node.db"
database_key_file = "database.key"
${extra}
[kt]
batch_ms = 0
vrf_threads = 0
# No heartbeat within a run: what a log costs is measured elsewhere.
max_behind_ms = ${30 * 24 * 3_600_000}
`;
  return parseConfig(text, '/sim/qpcd.toml');
}

/** Every node's peers: all others. */
export function nodeParts(
  { domain, key, secrets }: World['nodes'][number],
  nodes: readonly { readonly domain: string; readonly secrets: NodeSecrets }[],
  config: NodeConfig,
): NodeParts {
  const peers = nodes
    .filter((node) => node.domain !== domain)
    .map((node) => ({ domain: node.domain, address: addressOf(node) }));
  return { domain, key, secrets, config, peers };
}

function addressOf({
  domain,
  secrets,
}: {
  readonly domain: string;
  readonly secrets: NodeSecrets;
}): string {
  const pin = secrets.identity.spkiSha256;
  return formatNodeAddress({ host: domain, port: nodePort, pin });
}

/** Takes some seconds. The same program makes the same world, but for what OPAQUE draws itself. */
export async function makeWorld(): Promise<World> {
  rememberCrypto();
  rememberVrf();
  cheapenDatabases();
  using disk = new Disk();
  const scheduler = new Scheduler();
  using outside = new Outside(scheduler);
  const keeper = new Process('world', scheduler, { random: new SimRandom('world') });
  const around: Surroundings = {
    seed: 'world',
    scheduler,
    network: memoryNetwork(keeper.runtime),
    disk,
    trace: new Trace(scheduler),
    callFaults: () => noCallFaults,
    commitMs: () => 0,
    crashShare: () => 0,
  };
  const blank = await Promise.all(domains.map((domain) => makeNode(domain, disk, keeper.runtime)));
  const nodes = blank.map(
    (node) => new SimNode(nodeParts(node, blank, nodeConfig(node.domain)), node.image, around),
  );
  const clients = devices.map(({ name, userId }) => {
    const storeKey = keeper.runtime.random.bytes(32);
    const home = userId.slice(userId.indexOf('@') + 1);
    return new SimClient({ name, userId, home, storeKey }, new Map(), around);
  });
  const run = <T>(promise: Promise<T>): Promise<T> => outside.finish(promise, patienceMs);
  try {
    await run(Promise.all(nodes.map((node) => node.start())));
    // One after the other: who registers waits for a thread, and nothing else may happen meanwhile.
    for (const one of clients) await run(enrol(one, clients, nodes));
    await run(Promise.all(clients.map((one) => online(one))));
    const made = await run(converse(clients));
    // All have joined, and everything is acked.
    await scheduler.run(scheduler.nowMs + 60_000);
    // Everybody has told everybody what it knows of the logs: runs are about messages.
    await run(greet(clients));
    await scheduler.run(scheduler.nowMs + 60_000);
    const described = clients.map((one) => {
      const { identityPub } = one.client.whoami();
      const ridHex = Buffer.from(identityPub).toString('hex');
      return { ...one.parts, ridHex, deviceId: deviceIdOf(identityPub) };
    });
    const missing = clients.filter(
      (one) =>
        one.client.conversations().length !==
        conversations.filter((conversation) => conversation.devices.includes(one.name)).length,
    );
    if (missing.length > 0) throw new Error(`${missing[0]?.name} is not in all conversations`);
    for (const one of clients) await run(one.close());
    for (const node of nodes) await run(node.stop());
    return {
      nodes: blank.map((node, index) => ({ ...node, image: nodes[index]?.image() ?? new Map() })),
      clients: described.map((one, index) => ({
        ...one,
        image: clients[index]?.image() ?? new Map(),
      })),
      conversations: made,
    };
  } finally {
    for (const one of clients) one.dispose();
    for (const node of nodes) node.dispose();
  }
}

async function makeNode(
  domain: string,
  disk: Disk,
  runtime: Runtime,
): Promise<World['nodes'][number]> {
  const random = new SimRandom('world', domain);
  const key = random.bytes(32);
  const path = disk.place(`${domain}.new`, new Map());
  await createNodeStore({ path, key, runtime: { ...runtime, random } });
  const { store: limits } = nodeConfig(domain);
  const store = openNodeStoreInThread({ path, key, limits, runtime: { ...runtime, random } });
  const secrets = await createSecrets(store, { ...runtime, random });
  await store[Symbol.asyncDispose]();
  return { domain, key, secrets, image: imageOf(path) };
}

/** The first device of a person registers, the others join the account. */
async function enrol(
  one: SimClient,
  all: readonly SimClient[],
  nodes: readonly SimNode[],
): Promise<void> {
  const { userId, home } = one.parts;
  const client = await one.open();
  const nodeAddress = nodes.find(({ domain }) => domain === home)?.address ?? '';
  const isFirst = all.find((other) => other.parts.userId === userId) === one;
  if (isFirst) await client.register({ userId, password, nodeAddress });
  else await client.addDevice({ userId, password, nodeAddress });
}

async function online(one: SimClient): Promise<void> {
  one.client.start();
  await one.client.online();
}

async function greet(clients: readonly SimClient[]): Promise<void> {
  for (const { client } of clients) {
    for (const { id } of client.conversations()) await client.send(id, 'hello');
  }
}

async function converse(clients: readonly SimClient[]): Promise<WorldConversation[]> {
  const made: WorldConversation[] = [];
  for (const { name, devices: names } of conversations) {
    const members = clients.filter((one) => names.includes(one.name));
    const [maker] = clients.filter((one) => one.name === names[0]);
    if (maker === undefined) throw new Error(`${name}: nobody makes it`);
    const users = [...new Set(members.map(({ parts }) => parts.userId))];
    const id = await maker.client.createConversation({ name, members: users });
    made.push({ id: Buffer.from(id).toString('hex'), name, devices: names });
  }
  return made;
}
