/** Channels of a test's store: devices that subscribe to one, and what they find in it. */
import { systemRandom } from '@quicprochat/proto';
import type { ChannelPostRow } from '../channel-store.ts';
import type { NodeStore } from '../store.ts';
import { TestGroup } from './channel-group.ts';
import { addDevice, hex } from './fixture.ts';

const red = 'red.example';

export type Many = readonly [Uint8Array, Uint8Array, Uint8Array];

/** Device keys, ascending; three at most. */
export async function devices(store: NodeStore, count: number): Promise<Many> {
  const rids: Uint8Array[] = [];
  for (let index = 0; index < count; index += 1) {
    rids.push(await addDevice(store, `user-${hex(systemRandom.bytes(4))}`));
  }
  // Those that the test did not ask for are nobody's.
  const [a, b, c] = rids.toSorted((x, y) => Buffer.compare(x, y));
  const nobody = new Uint8Array(32);
  return [a ?? nobody, b ?? nobody, c ?? nobody];
}

/** A channel of red with subscribers at the store. */
export async function channelOf(
  store: NodeStore,
  count: number,
): Promise<{ readonly group: TestGroup; readonly rids: Many }> {
  const rids = await devices(store, count);
  const group = new TestGroup();
  const [creator, ...others] = rids.slice(0, count);
  await store.createChannel(creator ?? new Uint8Array(32), group.asNew());
  if (others.length > 0) {
    const add = others.map((rid) => ({ rid, token: new Uint8Array(0) }));
    await store.applyChannelUpdate(red, group.advance({ add }));
  }
  return { group, rids };
}

export async function mids(
  store: NodeStore,
  { cid }: TestGroup,
  rid: Uint8Array,
): Promise<string[]> {
  const { rows } = await store.fetchChannel(rid, { cid, after: 0 }, 999, 2 ** 20);
  return rows.map(({ mid }) => hex(mid));
}

export function midsOf(posts: readonly ChannelPostRow[]): string[] {
  return posts.map(({ mid }) => hex(mid));
}
