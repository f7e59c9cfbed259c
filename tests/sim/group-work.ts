/**
 * What people change in their groups while they talk: who is in, who may do what, name, timer, keys. Most
 * of it goes into the largest group that a device is in, so that changes meet.
 */
import type { QpcClient } from '@quicprochat/client-lib';
import type { Cluster } from './cluster.ts';
import type { SimClient } from './client.ts';
import type { SimRandom } from './process.ts';

export interface GroupAction {
  readonly name: string;
  readonly weight: number;
  run(parts: GroupParts): Promise<void>;
}

interface GroupParts {
  readonly cluster: Cluster;
  readonly one: SimClient;
  readonly client: QpcClient;
  readonly op: number;
  readonly random: SimRandom;
}

/** Share of the changes that go into the largest group. */
const shareOfLargest = 0.8;
/** Longer than a run: what disappears has its own tests (s). */
const timersS = [0, 7 * 24 * 3600, 30 * 24 * 3600] as const;
const roles = ['owner', 'owner', 'admin', 'admin', 'member'] as const;

type Change = (parts: GroupParts, id: Uint8Array, members: readonly string[]) => Promise<void>;

const changes: readonly (readonly [name: string, weight: number, change: Change])[] = [
  [
    'add',
    30,
    async ({ cluster, client, random }, id, members) => {
      const others = usersOf(cluster).filter((userId) => !members.includes(userId));
      if (others.length > 0) await client.addMembers(id, [random.pick(others)]);
    },
  ],
  [
    'remove',
    10,
    async ({ one, client, random }, id, members) => {
      const others = members.filter((userId) => userId !== one.parts.userId);
      if (others.length > 0) await client.removeMembers(id, [random.pick(others)]);
    },
  ],
  ['leave', 4, async ({ client }, id) => client.leave(id)],
  [
    'rename',
    18,
    async ({ client, op }, id) => client.updateMetadata(id, { name: `named by ${op}` }),
  ],
  [
    'timer',
    6,
    async ({ client, random }, id) =>
      client.updateMetadata(id, { expirySeconds: random.pick(timersS) }),
  ],
  [
    'role',
    14,
    async ({ client, random }, id, members) =>
      client.setRole(id, random.pick(members), random.pick(roles)),
  ],
  ['new keys', 40, async ({ client }, id) => client.rotateKeys(id)],
];

export const groupActions: readonly GroupAction[] = changes.map(([name, weight, change]) => ({
  name,
  weight,
  async run(parts) {
    const { client, random } = parts;
    const open = client.conversations().filter(({ ended }) => ended === undefined);
    if (open.length === 0) return;
    const sized = await Promise.all(
      open.map(async ({ id }) => ({ id, members: await client.members(id) })),
    );
    const largest = sized.reduce((a, b) => (b.members.length > a.members.length ? b : a));
    const { id, members } = random.chance(shareOfLargest) ? largest : random.pick(sized);
    await change(parts, id, members);
  },
}));

/** Every group of more devices than this has to have a channel: all of them, or none of a run's. */
const directDevices = [1, 32] as const;

/**
 * Who made a conversation moves the bound above which messages are posted: its members then make a channel,
 * or end it, while everybody talks.
 */
export const channelMode: GroupAction = {
  name: 'channel mode',
  weight: 0,
  async run({ one, client, random }) {
    const own = client
      .conversations()
      .filter(({ creator, ended }) => creator === one.parts.userId && ended === undefined);
    if (own.length === 0) return;
    await client.updateMetadata(random.pick(own).id, { directDevices: random.pick(directDevices) });
  },
};

/** Who made a conversation takes somebody out of it, or puts him in, whichever he is not. */
export const throughTheDoor: GroupAction = {
  name: 'out or in',
  weight: 0,
  async run({ cluster, one, client, random }) {
    const own = client
      .conversations()
      .filter(({ creator, ended }) => creator === one.parts.userId && ended === undefined);
    if (own.length === 0) return;
    const { id } = random.pick(own);
    const others = usersOf(cluster).filter((userId) => userId !== one.parts.userId);
    const userId = random.pick(others);
    const isIn = (await client.members(id)).includes(userId);
    await (isIn ? client.removeMembers(id, [userId]) : client.addMembers(id, [userId]));
  },
};

function usersOf({ clients }: Cluster): string[] {
  return [...new Set(clients.map(({ parts }) => parts.userId))];
}
