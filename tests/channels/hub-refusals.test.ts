/**
 * What each way to bring a commit to a hub of three refuses, at the hub and over another node: five methods with
 * one handler behind them, and every reason of every one.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { inspect } from 'node:util';
import { TestGroup } from '@quicprochat/nodes/store/channel-group';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import {
  call,
  commitHash,
  hasReason,
  methods,
  parseEntry,
  signCertificate,
  systemClock,
  systemRandom,
  type ParsedEntry,
} from '@quicprochat/proto';
import type { SignedGroupEntry } from '@quicprochat/proto/messages';
import { memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const names = ['red.example', 'blue.example', 'green.example'];
const [redName = '', blueName = '', greenName = ''] = names;
const recipients = 50;

interface Submit {
  readonly entry: SignedGroupEntry;
  readonly commit: Uint8Array;
  readonly mid: Uint8Array;
  readonly targets?: { readonly rid: Uint8Array; readonly domain: string }[];
  readonly updates?: { readonly domain: string; readonly update: Uint8Array }[];
  readonly channelNonce?: Uint8Array;
}

/** A commit, and where it is meant for. */
interface Brought {
  readonly hub: string;
  readonly group: Uint8Array;
  readonly submit: Submit;
}
type Bring = (device: TestDevice, brought: Brought) => Promise<unknown>;

const ways: readonly (readonly [name: string, isRemoval: boolean, bring: Bring])[] = [
  [
    'SubmitCommit',
    false,
    ({ connection }, { hub, submit }) => call(connection, methods.submitCommit, { ...submit, hub }),
  ],
  [
    'RemoveMember',
    true,
    ({ connection }, { hub, submit }) => call(connection, methods.removeMember, { ...submit, hub }),
  ],
  [
    'UpdateGroupMetadata',
    false,
    ({ connection }, { hub, submit }) =>
      call(connection, methods.updateGroupMetadata, { ...submit, hub }),
  ],
  [
    'RotateKeys',
    false,
    ({ connection }, { hub, submit }) => call(connection, methods.rotateKeys, { ...submit, hub }),
  ],
  [
    'GroupTakeover',
    false,
    ({ connection }, { hub, group, submit }) =>
      call(connection, methods.groupTakeover, { hub, group, submit }),
  ],
];

suite('a commit for a hub of three', () => {
  const network = memoryNetwork(testRuntime);
  const quick = ['auth', 'send', 'read', 'keys', 'relay', 'peer_users'].map(
    (rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`,
  );
  const limits = `[limits]\nrecipients_per_sender_per_hour = ${recipients}\n`;
  let nodes: readonly LocalNode[];
  let alice: TestDevice;
  let bob: TestDevice;

  const at = (name: string): LocalNode => {
    const node = nodes.find(({ domain }) => domain === name);
    assert.ok(node !== undefined);
    return node;
  };

  before(async () => {
    const config = `${limits}${quick.join('')}`;
    nodes = await Promise.all(names.map((name) => LocalNode.create(network, name, config)));
    for (const node of nodes) await node.start(nodes.filter((one) => one !== node));
    alice = await TestDevice.register(at(redName), `alice@${redName}`);
    bob = await TestDevice.register(at(blueName), `bob@${blueName}`);
  });
  after(async () => {
    for (const device of [alice, bob]) await device[Symbol.asyncDispose]();
    for (const node of nodes) await node[Symbol.asyncDispose]();
  });

  async function createGroup() {
    const group = new TestCommitter();
    const entry = group.sign(undefined);
    await call(alice.connection, methods.createGroup, { entry, hubs: names });
    return { group, first: parseEntry(entry) };
  }

  function commitOn(
    group: TestCommitter,
    parent: ParsedEntry,
    { removal = false, ...changes }: Partial<Submit> & { readonly removal?: boolean } = {},
  ): Brought {
    const commit = bytes(100);
    const entry = group.sign(parent, { commitHash: commitHash(commit), removal });
    const submit = { entry, commit, mid: bytes(16), ...changes };
    return { hub: redName, group: group.groupId, submit };
  }

  async function start(node: LocalNode): Promise<void> {
    await node.start(nodes.filter((one) => one !== node));
    for (const device of [alice, bob]) {
      if (!device.userId.endsWith(node.domain)) continue;
      device.connection = await node.dial(device.transport);
    }
  }

  /** A connection to `node` that speaks for another one. */
  async function peerAt(node: LocalNode, as: LocalNode): Promise<Connection> {
    const connection = await node.dial(as.identity, as.domain);
    await call(connection, methods.fedHello, { domain: as.domain, versionMin: 1, versionMax: 1 });
    return connection;
  }

  for (const [name, removal, bring] of ways) {
    test(`${name} is refused by its reason, at the hub and over another node`, async () => {
      const { group, first } = await createGroup();
      const won = commitOn(group, first, { removal });
      await bring(alice, won);
      const head = parseEntry(won.submit.entry);
      const elsewhere = new TestCommitter();
      const zero = parseEntry(elsewhere.sign(undefined));
      const target = { rid: alice.rid, domain: redName };
      const channel = new TestGroup(names, 2, group.channelSeed);
      const update = channel.signed({ removal, add: [] });
      const many = Array.from({ length: recipients + 1 }, () => ({ ...target, rid: bytes(32) }));
      const forged = commitOn(group, head, { removal });
      const signature = bytes(64);
      const wrong: readonly (readonly [brought: Brought, reason: string])[] = [
        [commitOn(elsewhere, zero, { removal }), 'UNKNOWN_GROUP'],
        [commitOn(group, first, { removal }), 'EPOCH_CONFLICT'],
        [changed(forged, { entry: { ...forged.submit.entry, signature } }), 'BAD_SIGNATURE'],
        [
          commitOn(group, head, {
            ...{ removal, channelNonce: group.channelNonce },
            updates: [{ domain: redName, update }],
          }),
          'UNKNOWN_CHANNEL',
        ],
        [
          commitOn(group, head, { removal, targets: [{ ...target, domain: 'violet.example' }] }),
          'PEER_DENIED',
        ],
        [commitOn(group, head, { removal, targets: many }), 'QUOTA'],
      ];
      for (const device of [alice, bob]) {
        for (const [brought, reason] of wrong) await refused(bring(device, brought), reason);
      }
    });
  }

  test('a hub with a full disk takes no commit, no group and no log', async () => {
    const { group, first } = await createGroup();
    const red = at(redName);
    await red.reopen({ disk: { redShare: 0, fullShare: 0, lastShare: 0, freeBytes: Infinity } });
    await start(red);
    for (const [, removal, bring] of ways) {
      await refused(bring(alice, commitOn(group, first, { removal })), 'STORE_FULL');
    }
    const fresh = new TestCommitter();
    const entry = fresh.sign(undefined);
    const create = { entry, hubs: names };
    await refused(call(alice.connection, methods.createGroup, create), 'STORE_FULL');

    const asBlue = await peerAt(red, at(blueName));
    const { submit } = commitOn(group, first);
    await refused(call(asBlue, methods.fedHubSubmit, { submit }), 'STORE_FULL');
    const begun = {
      ...{ group: fresh.groupId, hubs: [blueName, redName, greenName], term: 0n },
      prepared: { entry, mid: bytes(16) },
    };
    await refused(call(asBlue, methods.fedHubReplicate, begun), 'STORE_FULL');
    const next = { group: group.groupId, hubs: names, position: 2n, entries: [certified(submit)] };
    await refused(call(asBlue, methods.fedHubInstall, next), 'STORE_FULL');
    await asBlue.close(0, 'done');
    await red.reopen();
    await start(red);
  });

  test('a hub without the others cannot tell what becomes of it', async () => {
    const groups = await Promise.all(ways.map(createGroup));
    const last = await createGroup();
    const red = at(redName);
    for (const name of [blueName, greenName]) await at(name).node?.stop();
    const asBlue = await peerAt(red, at(blueName));
    const entry = new TestCommitter().sign(undefined);
    // Each waits five seconds for a majority.
    await Promise.all([
      ...ways.map(async ([, removal, bring], index) => {
        const { group, first } = groups[index] ?? last;
        await refused(bring(alice, commitOn(group, first, { removal })), 'HUB_UNAVAILABLE');
      }),
      refused(
        call(alice.connection, methods.createGroup, { entry, hubs: names }),
        'HUB_UNAVAILABLE',
      ),
      refused(
        call(asBlue, methods.fedHubSubmit, { submit: commitOn(last.group, last.first).submit }),
        'HUB_UNAVAILABLE',
      ),
    ]);
    await asBlue.close(0, 'done');
    for (const name of [blueName, greenName]) await start(at(name));
  });

  test('the log of a leader is refused by its reason', async () => {
    const { group, first } = await createGroup();
    const green = at(greenName);
    const asRed = await peerAt(green, at(redName));
    const good = commitOn(group, first).submit;
    const log = {
      ...{ group: group.groupId, hubs: names, term: 0n, position: 1n, head: first.hash },
    };
    const replicate = (request: object) => call(asRed, methods.fedHubReplicate, request);
    const install = (request: object, connection = asRed) =>
      call(connection, methods.fedHubInstall, { hubs: names, ...request });
    const forged = { ...good, entry: { ...good.entry, signature: bytes(64) } };
    await refused(replicate({ ...log, prepared: forged }), 'BAD_SIGNATURE');
    const orphan = commitOn(group, parseEntry(good.entry)).submit;
    await refused(replicate({ ...log, prepared: orphan }), 'EPOCH_CONFLICT');

    const won = commitOn(group, first).submit;
    await call(alice.connection, methods.submitCommit, { ...won, hub: redName });
    const place = { group: group.groupId, position: 2n };
    // Green has it by now, or gets it here.
    await install({ ...place, entries: [certified(won)] });
    await refused(install({ ...place, entries: [certified(good)] }), 'SEQ_CONFLICT');

    // Begun, and not accepted yet: green has no word in another term.
    const young = new TestCommitter();
    const begun = { entry: young.sign(undefined), mid: bytes(16) };
    const beginning = { group: young.groupId, hubs: names };
    await replicate({ ...beginning, term: 0n, prepared: begun });
    await refused(replicate({ ...beginning, term: 3n }), 'HUB_UNAVAILABLE');
    const promise = (groupId: Uint8Array, term: bigint) =>
      call(asRed, methods.fedHubPromise, { group: groupId, term });
    await refused(promise(young.groupId, 3n), 'HUB_UNAVAILABLE');

    await promise(group.groupId, 3n);
    await refused(promise(group.groupId, 3n), 'TERM_FENCED');
    await refused(replicate({ ...log, position: 2n }), 'TERM_FENCED');
    await asRed.close(0, 'done');
  });

  test('hubs that know of a group from its log alone wait for what they forgot', async () => {
    const lost = new TestCommitter();
    const entry = lost.sign(undefined);
    const log = { group: lost.groupId, hubs: names, position: 1n, isRepair: true };
    for (const name of [blueName, greenName]) {
      const asRed = await peerAt(at(name), at(redName));
      await call(asRed, methods.fedHubInstall, { ...log, entries: [certified({ entry })] });
      const promise = call(asRed, methods.fedHubPromise, { group: lost.groupId, term: 3n });
      const error = await refused(promise, 'HUB_RESTORED');
      assert.ok((error.retryAfterMs ?? 0) > 0);
      await asRed.close(0, 'done');
    }
    // With a commit: without one it is enough that the first hub answers, which has heard of the group by then.
    const { submit } = commitOn(lost, parseEntry(entry));
    const takeover = { hub: blueName, group: lost.groupId, submit };
    // The other hubs are heard first, which takes a moment: until then nobody has a majority.
    for (let tries = 0; ; tries += 1) {
      const asked = call(bob.connection, methods.groupTakeover, takeover);
      const error: unknown = await asked.catch((thrown: unknown) => thrown);
      if (tries < 50 && hasReason(error, 'HUB_UNAVAILABLE')) await systemClock.sleep(100);
      else {
        assert.ok(hasReason(error, 'HUB_RESTORED'), inspect(error));
        return;
      }
    }
  });

  /** With the word of two hubs for it. */
  function certified({ entry, commit }: Pick<Submit, 'entry'> & { readonly commit?: Uint8Array }) {
    const { hash } = parseEntry(entry);
    const signatures = [blueName, greenName].map((domain) => {
      const { signing } = at(domain).secrets ?? {};
      assert.ok(signing !== undefined);
      return signCertificate(hash, 0, { domain, signing });
    });
    return { entry: { entry, term: 0n, signatures }, ...(commit && { commit }) };
  }
});

const changed = (brought: Brought, changes: Partial<Submit>): Brought => ({
  ...brought,
  submit: { ...brought.submit, ...changes },
});
