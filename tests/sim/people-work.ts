/**
 * What people do about each other in a run: they block somebody and take it back, and show that they
 * type. A block replaces the delivery token of a device, so whoever shares a conversation with the blocked
 * person goes on as a stranger.
 */
import type { QpcClient } from '@quicprochat/client-lib';
import type { SimClient } from './client.ts';
import type { SimRandom } from './process.ts';

export interface PeopleAction {
  readonly name: string;
  readonly weight: number;
  run(parts: PeopleParts): Promise<void>;
}

interface PeopleParts {
  readonly one: SimClient;
  readonly client: QpcClient;
  readonly random: SimRandom;
}

export const peopleActions: readonly PeopleAction[] = [
  {
    name: 'block',
    weight: 3,
    async run({ one, client, random }) {
      const known = new Set<string>();
      for (const { id } of client.conversations()) {
        for (const userId of await client.members(id)) known.add(userId);
      }
      const others = [...known].filter((userId) => userId !== one.parts.userId).toSorted();
      if (others.length > 0) await client.block(random.pick(others));
    },
  },
  {
    name: 'unblock',
    weight: 2,
    async run({ client, random }) {
      const blocked = client.blocked();
      if (blocked.length > 0) client.unblock(random.pick(blocked));
    },
  },
  {
    name: 'typing',
    weight: 3,
    async run({ client, random }) {
      const open = client.conversations().filter(({ ended }) => ended === undefined);
      if (open.length > 0) await client.typing(random.pick(open).id);
    },
  },
];
