/** Members at two nodes who all commit at once through one hub: every intent ends, nobody forks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  createMls,
  mandatorySuite,
  type KeyPackageRow,
  type Mls,
} from '@quicprochat/client-lib/mls';
import {
  catchUp,
  commitIntent,
  type CommitParts,
  type Intent,
} from '@quicprochat/client-lib/group-commit';
import { firstEntry, type LogView } from '@quicprochat/client-lib/group-log';
import {
  call,
  deviceIdOf,
  methods,
  parseEntry,
  systemClock,
  systemRandom,
  TransportError,
} from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, TestDevice, testRuntime } from '../cluster/local-node.ts';

const none = new Uint8Array(0);
const joinPub = systemRandom.bytes(32);

interface Member {
  readonly device: TestDevice;
  readonly mls: Mls;
  view: LogView;
}

test('three members at two nodes change one group at once, and stay one group', async () => {
  const network = memoryNetwork(testRuntime);
  const rates = ['auth', 'send', 'read', 'relay'].map(
    (rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`,
  );
  await using red = await LocalNode.create(network, 'red.example', rates.join(''));
  await using blue = await LocalNode.create(network, 'blue.example', rates.join(''));
  await red.start([blue]);
  await blue.start([red]);
  const signKeys = [red.secrets?.signing.publicKey ?? none];
  await using alice = await TestDevice.register(red, 'alice@red.example');
  await using ann = await TestDevice.register(red, 'ann@red.example');
  await using bob = await TestDevice.register(blue, 'bob@blue.example');
  await using dave = await TestDevice.register(blue, 'dave@blue.example');
  const everybody = [alice, ann, bob, dave];
  const manifests = (userId: string) => {
    const rids = everybody.filter((one) => one.userId === userId).map(({ rid }) => rid);
    return {
      devices: rids.map((rid) => ({ deviceId: deviceIdOf(rid), identityPub: rid })),
      revoked: [],
    };
  };
  const newMls = (): Mls =>
    createMls({ clock: systemClock, random: systemRandom, manifests, mayCommit: () => true });
  const identityOf = ({ userId, rid }: TestDevice) => ({ userId, deviceId: deviceIdOf(rid) });
  const keyOf = ({ rid, seed }: TestDevice) => ({ publicKey: rid, seed });

  /** Every third answer of a hub is lost on its way: the commit may have been accepted. */
  let calls = 0;
  function partsOf({ device, mls }: Pick<Member, 'device' | 'mls'>): CommitParts {
    return {
      mls,
      hubs: ['red.example'],
      keysOf: () => signKeys,
      hub: 'red.example',
      runtime: testRuntime,
      onPending: () => Promise.resolve(),
      onWalk: () => Promise.resolve(),
      caller: {
        async call(method, request, options) {
          const answer = await call(device.connection, method, request, options);
          calls += 1;
          if (method.id !== methods.submitCommit.id || calls % 3 > 0) return answer;
          throw new TransportError('timeout', 'the answer was lost');
        },
      },
    };
  }

  const rekey = (mls: Mls): Intent => ({
    async make({ group }) {
      const { commit, pending } = await mls.rekey(group);
      return { commit, pending, isRemoval: false, joinPub };
    },
    delivery: () => Promise.resolve({}),
  });

  /** Adds one device unless it is there; the Welcome goes with the commit. */
  async function adding(mls: Mls, joiner: TestDevice, joinerMls: Mls) {
    const row = await joinerMls.makeKeyPackage({
      suite: mandatorySuite,
      identity: identityOf(joiner),
      signatureKey: keyOf(joiner),
    });
    let welcome: Uint8Array = none;
    const intent: Intent = {
      async make({ group }) {
        if (group.members().some(({ userId }) => userId === joiner.userId)) return undefined;
        const made = await mls.addMembers(group, [row.publicBytes]);
        welcome = made.welcome ?? none;
        return { commit: made.commit, pending: made.pending, isRemoval: false, joinPub };
      },
      delivery: () => {
        const domain = joiner.userId.split('@')[1] ?? '';
        const target = { rid: joiner.rid, domain };
        return Promise.resolve({ welcomes: [{ target, mid: systemRandom.bytes(16), welcome }] });
      },
    };
    return { intent, row };
  }

  /** Waits for the Welcome in the inbox, and begins at the entry that it comes with. */
  async function join(device: TestDevice, mls: Mls, row: KeyPackageRow) {
    const cursors = [{ log: {}, after: 0n }];
    const found = await call(device.connection, methods.fetchWait, { cursors, waitMs: 20_000 });
    const [control] = found.logs[0]?.fetched?.rows ?? [];
    const { welcome, entry } = fromBinary(GroupControlSchema, control?.payload ?? none);
    const { group } = await mls.joinFromWelcome(welcome, [row], keyOf(device));
    return { device, mls, view: { group, head: parseEntry(entry?.entry) } };
  }

  const mls = newMls();
  const group = await mls.createGroup({
    suite: mandatorySuite,
    identity: identityOf(alice),
    signatureKey: keyOf(alice),
    name: 'all',
  });
  const entry = await firstEntry(mls, group, joinPub);
  await call(alice.connection, methods.createGroup, { entry, hubs: ['red.example'] });
  const first: Member = { device: alice, mls, view: { group, head: parseEntry(entry) } };
  const members = [first];
  for (const device of [ann, bob]) {
    const joinerMls = newMls();
    const { intent, row } = await adding(mls, device, joinerMls);
    first.view = (await commitIntent(partsOf(first), first.view, intent)).view;
    members.push(await join(device, joinerMls, row));
  }
  for (const member of members) member.view = await catchUp(partsOf(member), member.view);

  // Everybody changes everybody's keys, and two of them add the same device.
  const daveMls = newMls();
  const offers = await Promise.all([
    adding(members[1]?.mls ?? mls, dave, daveMls),
    adding(members[2]?.mls ?? mls, dave, daveMls),
  ]);
  const outcomes = await Promise.all(
    members.map(async (member, index) => {
      const intents = [rekey(member.mls), offers[index - 1]?.intent, rekey(member.mls)];
      const isOwn: boolean[] = [];
      for (const intent of intents) {
        if (intent === undefined) continue;
        const done = await commitIntent(partsOf(member), member.view, intent);
        member.view = done.view;
        isOwn.push(done.isOwn);
      }
      return isOwn;
    }),
  );
  assert.equal(outcomes.flat().filter((isOwn) => !isOwn).length, 1, 'one add was superseded');
  const adder = outcomes.findIndex(([, isOwn], index) => index > 0 && isOwn === true);
  const offer = offers[adder - 1];
  assert.ok(offer !== undefined);
  const newcomer = await join(dave, daveMls, offer.row);
  members.push(newcomer);
  for (const member of members) member.view = await catchUp(partsOf(member), member.view);
  const states = members.map(({ view }) => ({
    epoch: view.group.epoch,
    authenticator: view.group.epochAuthenticator,
    head: view.head.hash,
    members: view.group.members().length,
  }));
  for (const state of states) assert.deepEqual(state, states[0]);
  assert.deepEqual([states[0]?.members, states[0]?.epoch], [4, 9n]);
});
