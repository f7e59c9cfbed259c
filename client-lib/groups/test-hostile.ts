/**
 * Test support: a group of alice, bob and carol, and of mallory who is an admin there and commits by hand. All
 * devices are real.
 */
import assert from 'node:assert/strict';
import { hex, methods, parseEntry, signingKeyFromSeed, type ParsedEntry } from '@quicprochat/proto';
import type { CryptoProvider } from 'ts-mls';
import { createMlsCryptoProvider } from '../crypto/provider.ts';
import type { ClientEvent } from '../events.ts';
import { createMls, xwingSuite, type Mls, type PendingCommit } from '../mls/index.ts';
import { nodeKeyAt, stateOf } from '../mls/group.ts';
import { groupOf } from '../test-company.ts';
import { exchange, TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { LaterClock, testRuntime } from '../test-runtime.ts';
import { sealCommit, type OwnCommit } from './log/group-log.ts';
import { epochJoinKeys } from './returning/group-info.ts';

const { random } = testRuntime;
export const host = 'red.example';

export interface People {
  readonly directory: TestDirectory;
  readonly clock: LaterClock;
  readonly alice: TestDevice;
  readonly bob: TestDevice;
  readonly carol: TestDevice;
  readonly mallory: TestDevice;
  readonly all: readonly TestDevice[];
}

/** Some of them in one group. */
export interface HostileGroup extends People {
  readonly honest: readonly TestDevice[];
  readonly id: Uint8Array;
}

export function people(): People {
  const clock = new LaterClock();
  const directory = new TestDirectory({ maxBehindMs: 24 * 3_600_000 });
  const [alice, bob, carol, mallory] = ['alice', 'bob', 'carol', 'mallory'].map(
    (name) => new TestDevice(`${name}@${host}`, directory, { clock, suites: [xwingSuite] }),
  );
  assert(alice && bob && carol && mallory);
  return { directory, clock, alice, bob, carol, mallory, all: [alice, bob, carol, mallory] };
}

/** Another group of alice's; mallory is an admin there. */
export async function groupWithMallory(them: People): Promise<HostileGroup> {
  const { alice, bob, carol, mallory, all } = them;
  const others = [bob, carol, mallory].map(({ userId }) => userId);
  const id = await alice.conversations.create('open to all', others);
  await exchange(...all);
  await alice.conversations.setRole(id, mallory.userId, 'admin');
  await exchange(...all);
  for (const { events } of all) events.length = 0;
  return { ...them, honest: [alice, bob, carol], id };
}

/** Keys that this device opens paths with. */
export async function keysOf(device: TestDevice, id: Uint8Array): Promise<readonly string[]> {
  const { ratchetTree, privatePath } = stateOf(await groupOf(device, id));
  return Object.keys(privatePath.privateKeys).flatMap((index) => {
    const key = nodeKeyAt(ratchetTree, Number(index));
    return key === undefined ? [] : [hex(key)];
  });
}

/** What mallory commits with: path secrets for these keys are garbage, and rules are for others. */
export function hostileMls(mallory: TestDevice, garbageFor: readonly string[] = []): Mls {
  const honest = createMlsCryptoProvider({ random });
  const provider: CryptoProvider = {
    async getCiphersuiteImpl(id) {
      const suite = await honest.getCiphersuiteImpl(id);
      const { hpke } = suite;
      return {
        ...suite,
        hpke: {
          ...hpke,
          seal: async (key, plaintext, info, aad) => {
            const isMeant = garbageFor.includes(hex(await hpke.exportPublicKey(key)));
            return hpke.seal(key, isMeant ? random.bytes(plaintext.length) : plaintext, info, aad);
          },
        },
      };
    },
  };
  const manifests = mallory.contacts.lookup;
  return createMls({ ...testRuntime, manifests, provider, mayCommit: () => true });
}

/** Of a key of mallory's own. */
export const joinPub = signingKeyFromSeed(random.bytes(32)).publicKey;

/** The newest entry. */
export const headOf = ({ directory, id }: HostileGroup): ParsedEntry => {
  const head = directory.hub.copyOf(id).at(-1)?.parsed;
  assert(head !== undefined);
  return head;
};

/** Straight to the hub, which cannot look into it. */
export async function submit(
  { directory, mallory, all }: HostileGroup,
  own: OwnCommit,
): Promise<ParsedEntry> {
  await directory.callerOf(mallory.rid).call(methods.submitCommit, {
    entry: own.entry,
    commit: own.envelope,
    mid: random.bytes(16),
    targets: all.filter((one) => one !== mallory).map(({ rid }) => ({ rid, domain: host })),
  });
  return parseEntry(own.entry);
}

/** The key of external commits behind this one. */
export async function joinPubOf(
  mallory: TestDevice,
  { pending }: Pick<PendingCommit, 'pending'>,
): Promise<Uint8Array> {
  return (await epochJoinKeys(mallory.mls, pending)).signing.publicKey;
}

/** New keys of mallory's, with garbage for whom these keys open. */
export async function commitBadly(
  where: HostileGroup,
  garbageFor: readonly string[],
): Promise<PendingCommit> {
  const { mallory, id } = where;
  const mls = hostileMls(mallory, garbageFor);
  const group = await groupOf(mallory, id);
  const made = await mls.rekey(group);
  const facts = { ...made, isRemoval: false, joinPub: await joinPubOf(mallory, made) };
  await submit(where, await sealCommit(mls, group, headOf(where), facts, random));
  return made;
}

/** What a device told last, of this type. */
export function lastOf<T extends ClientEvent['type']>(
  { events }: TestDevice,
  type: T,
): Extract<ClientEvent, { type: T }> | undefined {
  const isOf = (event: ClientEvent): event is Extract<ClientEvent, { type: T }> =>
    event.type === type;
  return events.filter(isOf).at(-1);
}

/** All of them are in one epoch, and see the same there. */
export async function assertOne(id: Uint8Array, ...devices: readonly TestDevice[]): Promise<void> {
  const groups = await Promise.all(devices.map((device) => groupOf(device, id)));
  assert.equal(new Set(groups.map((group) => hex(group.epochAuthenticator))).size, 1);
}

/** The hub keeps a sealed state of the group since the last honest commit. */
export async function comeBack({ clock, all }: HostileGroup, device: TestDevice): Promise<void> {
  clock.advance(3_600_000);
  await device.groups.resyncs.run();
  await exchange(...all);
}
