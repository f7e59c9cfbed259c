/** The group log through the wire: a hub at red, members at red and blue, one history. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  checkEntry,
  commitHash,
  deliveryTokenHash,
  factsOf,
  methods,
  parseEntry,
  RowKind,
  systemRandom,
  verifyCertified,
  type ParsedEntry,
} from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  GroupLogResponseSchema,
  NoticeSchema,
  NoticeType,
  type GroupControl,
  type Notice,
} from '@quicprochat/proto/messages';
import { CloseCode, memoryNetwork } from '@quicprochat/proto/transport';
import { epochRate } from '@quicprochat/nodes/hubs';
import { TestGroup } from '@quicprochat/nodes/store/channel-group';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const none = new Uint8Array(0);
const redName = 'red.example';
const blueName = 'blue.example';

suite('the group log', () => {
  const network = memoryNetwork(testRuntime);
  const quick = ['auth', 'send', 'read', 'keys', 'relay'].map(
    (rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`,
  );
  let red: LocalNode;
  let blue: LocalNode;
  let alice: TestDevice;
  let bob: TestDevice;

  before(async () => {
    const limits = '[limits]\nrecipients_per_sender_per_hour = 50\n';
    red = await LocalNode.create(network, redName, `${limits}${quick.join('')}`);
    blue = await LocalNode.create(network, blueName, quick.join(''));
    await red.start([blue]);
    await blue.start([red]);
    alice = await TestDevice.register(red, 'alice@red.example');
    bob = await TestDevice.register(blue, 'bob@blue.example');
  });
  after(async () => {
    for (const device of [alice, bob]) await device[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
    await blue[Symbol.asyncDispose]();
  });

  const keysOf = (domain: string) =>
    domain === redName ? [red.secrets?.signing.publicKey ?? none] : [];

  /** A member's check of what a node shows it. */
  function certified({ entry }: Pick<GroupControl, 'entry'>, parent?: ParsedEntry): ParsedEntry {
    assert.ok(entry !== undefined);
    const parsed = verifyCertified(entry, [redName], keysOf);
    checkEntry(parsed, parent && factsOf(parent));
    return parsed;
  }

  async function createGroup() {
    const group = new TestCommitter();
    const entry = group.sign(undefined);
    const hubs = [redName];
    const made = await call(alice.connection, methods.createGroup, { entry, hubs });
    assert.equal(made.wasNew, true);
    return { group, first: certified(made), entry };
  }

  /** A request that tells nobody, unless `changes` say who. */
  function commitOn(group: TestCommitter, parent: ParsedEntry, changes: object = {}) {
    const commit = bytes(100);
    const entry = group.sign(parent, { commitHash: commitHash(commit) });
    return { hub: redName, entry, commit, mid: bytes(16), ...changes };
  }

  const submit = (device: TestDevice, request: object) =>
    call(device.connection, methods.submitCommit, request);
  const readLog = (device: TestDevice, group: TestCommitter, request: object = {}) =>
    call(device.connection, methods.groupLog, { hub: redName, group: group.groupId, ...request });

  test('a joiner of another domain is subscribed, welcomed and certified by one acceptance', async () => {
    const { group, first } = await createGroup();
    const channel = new TestGroup([redName], 1, group.channelSeed);
    const { cid } = channel;
    const request = commitOn(group, first);
    const welcome = bytes(120);
    const groupInfo = bytes(90);
    const answer = await submit(alice, {
      ...request,
      channelNonce: group.channelNonce,
      updates: [
        { domain: redName, update: channel.signed({ add: [{ rid: alice.rid, token: none }] }) },
        {
          domain: blueName,
          update: channel.signed({ add: [{ rid: bob.rid, token: none }] }),
        },
      ],
      welcomes: [{ target: { rid: bob.rid, domain: blueName }, mid: bytes(16), welcome }],
      groupInfo,
    });
    const accepted = certified(answer, first);

    const cursors = [{ log: {}, after: 0n }];
    const { logs } = await call(bob.connection, methods.fetchWait, { cursors, waitMs: 20_000 });
    const [row] = logs[0]?.fetched?.rows ?? [];
    const welcomed = fromBinary(GroupControlSchema, row?.payload ?? none);
    assert.deepEqual([row?.kind, welcomed.welcome], [2, welcome]);
    assert.deepEqual(certified(welcomed, first).hash, accepted.hash);
    // Bob's node knows the channel before bob has read a word.
    const members = await call(bob.connection, methods.listGroupMembers, { cid });
    assert.deepEqual([members.rids, members.epoch], [[bob.rid], 1n]);
    const ofRed = await call(alice.connection, methods.listGroupMembers, { cid });
    assert.deepEqual([ofRed.rids, ofRed.epoch], [[alice.rid], 1n]);

    const log = await readLog(bob, group, { withGroupInfo: true });
    assert.deepEqual([log.entries.length, log.hasMore, log.groupInfo], [2, false, groupInfo]);
    assert.deepEqual(log.groupInfoEntry, accepted.hash);
    let parent: ParsedEntry | undefined;
    for (const control of log.entries) parent = certified(control, parent);
    assert.deepEqual(parent?.hash, accepted.hash);
  });

  test('committers at two nodes: one wins, the other learns by what', async () => {
    const { group, first } = await createGroup();
    const requests = [commitOn(group, first), commitOn(group, first)] as const;
    const outcomes = await Promise.allSettled([
      submit(alice, requests[0]),
      submit(bob, requests[1]),
    ]);
    const winner = outcomes.findIndex(({ status }) => status === 'fulfilled');
    assert.deepEqual(
      outcomes.map(({ status }) => status).toSorted((a, b) => a.localeCompare(b)),
      ['fulfilled', 'rejected'],
    );
    const loser = winner === 0 ? bob : alice;
    const error = await refused(submit(loser, requests[1 - winner] ?? {}), 'EPOCH_CONFLICT');
    const { entries } = fromBinary(GroupLogResponseSchema, error.details ?? none);
    assert.deepEqual(
      entries.map(({ commit }) => commit),
      [requests[winner]?.commit],
    );
    const won = certified(entries[0] ?? { entry: undefined }, first);
    // It goes on from there; and a repeat of its bytes finds what was accepted.
    const again = commitOn(group, won);
    const accepted = certified(await submit(loser, again), won);
    await submit(winner === 0 ? alice : bob, commitOn(group, accepted));
    assert.deepEqual(certified(await submit(loser, again), won).hash, accepted.hash);
    const rest = await readLog(bob, group, { after: won.hash, maxEntries: 1 });
    assert.deepEqual([rest.entries.length, rest.hasMore], [1, true]);
    assert.deepEqual(rest.groupInfo, none);
  });

  test('a member with junk leaves others room behind an entry', async () => {
    const { group, first } = await createGroup();
    const children: Uint8Array[] = [];
    const junk = () => {
      const commit = bytes(60);
      const rejects = [...children];
      const entry = group.sign(first, { commitHash: commitHash(commit), rejects });
      return { ...commitOn(group, first), commit, entry };
    };
    type Junk = ReturnType<typeof junk>;
    const fill = async (count: number, take: (request: Junk) => Promise<unknown>) => {
      for (; children.length < count;) {
        const request = junk();
        await take(request);
        // The same bytes again are no other child.
        await take(request);
        children.push(parseEntry(request.entry).hash);
      }
      await refused(take(junk()), 'QUOTA');
    };
    // Three of a device at its own node, twelve of a domain at the hub.
    await fill(3, (request) => submit(bob, request));
    await fill(6, (request) => submit(alice, request));
    const connection = await red.dial(blue.identity, 'blue');
    await call(connection, methods.fedHello, { domain: blueName, versionMin: 1, versionMax: 1 });
    await fill(15, (request) => call(connection, methods.fedHubSubmit, { submit: request }));
    await using carol = await TestDevice.register(red, 'carol@red.example');
    await submit(carol, junk());
  });

  test('what is no commit of the group is refused by its reason', async () => {
    const { group, first, entry } = await createGroup();
    const good = commitOn(group, first);
    const elsewhere = new TestCommitter();
    const target = { rid: alice.rid, domain: redName };
    const welcome = { target, mid: bytes(16), welcome: bytes(9) };
    const bad: readonly (readonly [changes: object, reason: string])[] = [
      [{ entry: undefined }, 'BAD_FIELD'],
      [{ entry: { ...good.entry, signature: bytes(63) } }, 'BAD_FIELD'],
      [{ entry: { ...good.entry, entry: bytes(1_025) } }, 'BAD_FIELD'],
      [{ entry: { ...good.entry, entry: bytes(50) } }, 'BAD_FIELD'],
      [{ entry: { ...good.entry, signature: bytes(64) } }, 'BAD_SIGNATURE'],
      [{ entry }, 'BAD_FIELD'],
      [
        { entry: elsewhere.sign(parseEntry(elsewhere.sign(undefined)), { commitHash: bytes(32) }) },
        'UNKNOWN_GROUP',
      ],
      [{ commit: bytes(100) }, 'BAD_FIELD'],
      [{ commit: none }, 'BAD_FIELD'],
      [{ commit: bytes(512 * 1024) }, 'BAD_FIELD'],
      [{ mid: bytes(15) }, 'BAD_FIELD'],
      [{ targets: [{ ...target, rid: bytes(31) }] }, 'BAD_FIELD'],
      [{ targets: [{ ...target, domain: 'green.example' }] }, 'PEER_DENIED'],
      [{ targets: [{ ...target, token: bytes(15) }] }, 'BAD_FIELD'],
      [{ welcomes: [{ ...welcome, target: undefined }] }, 'BAD_FIELD'],
      [{ welcomes: [{ ...welcome, mid: bytes(15) }] }, 'BAD_FIELD'],
      [{ welcomes: [{ ...welcome, slip: bytes(51) }] }, 'BAD_FIELD'],
      [{ returnTo: 'Red' }, 'BAD_FIELD'],
      [{ welcomes: Array.from({ length: 65 }, () => welcome) }, 'BAD_FIELD'],
      [{ sharedWelcome: bytes(9) }, 'BAD_FIELD'],
      [
        { sharedWelcome: bytes(9), welcomes: [welcome, { ...welcome, mid: bytes(16) }] },
        'BAD_FIELD',
      ],
      [{ sharedWelcome: bytes(508 * 1024), welcomes: [welcome] }, 'BAD_FIELD'],
      [{ updates: [{ domain: redName, update: bytes(10) }] }, 'BAD_FIELD'],
      [{ updates: [{ domain: 'green.example', update: bytes(10) }] }, 'PEER_DENIED'],
      [{ groupInfo: bytes(512 * 1024 + 1) }, 'BAD_FIELD'],
      [{ hub: 'Red' }, 'BAD_FIELD'],
    ];
    for (const [changes, reason] of bad) {
      for (const device of [alice, bob])
        await refused(submit(device, { ...good, ...changes }), reason);
    }
    for (const device of [alice, bob]) {
      await refused(submit(device, { ...good, hub: 'green.example' }), 'PEER_DENIED');
    }
    // Blue is no hub of it.
    await refused(submit(bob, { ...good, hub: blueName }), 'UNKNOWN_GROUP');
    assert.equal((await readLog(alice, group)).entries.length, 1);
    await submit(bob, good);
  });

  test('a commit whose purpose is said is one like any other, and of that purpose only', async () => {
    const { group, first } = await createGroup();
    const removal = (parent: ParsedEntry) => {
      const commit = bytes(100);
      const entry = group.sign(parent, { commitHash: commitHash(commit), removal: true });
      return { hub: redName, entry, commit, mid: bytes(16) };
    };
    const { removeMember, updateGroupMetadata, rotateKeys } = methods;
    const welcome = {
      target: { rid: bob.rid, domain: blueName },
      mid: bytes(16),
      welcome: bytes(9),
    };
    for (const method of [updateGroupMetadata, rotateKeys]) {
      await refused(call(bob.connection, method, removal(first)), 'BAD_FIELD');
      const adding = commitOn(group, first, { welcomes: [welcome] });
      await refused(call(bob.connection, method, adding), 'BAD_FIELD');
      await refused(
        call(bob.connection, method, { ...adding, welcomes: [], mid: none }),
        'BAD_FIELD',
      );
    }
    await refused(call(bob.connection, removeMember, commitOn(group, first)), 'BAD_FIELD');
    let parent = first;
    for (const [device, method, request] of [
      [bob, removeMember, removal],
      [alice, updateGroupMetadata, (head: ParsedEntry) => commitOn(group, head)],
      [bob, rotateKeys, (head: ParsedEntry) => commitOn(group, head)],
    ] as const) {
      parent = certified(await call(device.connection, method, request(parent)), parent);
    }
    assert.equal((await readLog(bob, group)).entries.length, 4);
  });

  test('a commit costs its sender what messages cost', async () => {
    const { group, first } = await createGroup();
    const target = () => ({ rid: bytes(32), domain: redName });
    const targets = Array.from({ length: 51 }, target);
    await refused(submit(alice, commitOn(group, first, { targets })), 'QUOTA');
    assert.equal((await readLog(alice, group)).entries.length, 1);
    await submit(alice, commitOn(group, first));
  });

  test('a peer asks for its members, one hop and no further', async () => {
    const { group, first } = await createGroup();
    const good = commitOn(group, first);
    const connection = await red.dial(blue.identity, 'blue');
    const asPeer = (request: object) => call(connection, methods.fedHubSubmit, request);
    await refused(asPeer({ submit: { ...good, hub: '' } }), 'CALLER_CLASS');
    const hello = { domain: blueName, versionMin: 1, versionMax: 1 };
    await call(connection, methods.fedHello, hello);
    await refused(asPeer({}), 'BAD_FIELD');
    await refused(asPeer({ submit: { ...good, mid: none } }), 'BAD_FIELD');
    const log = { group: group.groupId };
    for (const hub of [blueName, 'green.example']) {
      await refused(asPeer({ submit: { ...good, hub } }), 'BAD_FIELD');
      await refused(call(connection, methods.fedHubLog, { log: { ...log, hub } }), 'BAD_FIELD');
    }
    await refused(call(connection, methods.fedHubLog, {}), 'BAD_FIELD');
    const { submitted } = await asPeer({ submit: { ...good, hub: redName } });
    const accepted = certified(submitted ?? { entry: undefined }, first);
    const { found } = await call(connection, methods.fedHubLog, { log });
    assert.deepEqual(found?.entries.length, 2);
    assert.deepEqual(
      certified(found?.entries[1] ?? { entry: undefined }, first).hash,
      accepted.hash,
    );
    await connection.close(CloseCode.Normal, 'done');
  });

  test('a member that commits as fast as it can is told to wait, a hub that gets its own word back takes it all', async () => {
    const rate = { perSecond: 18, burst: 15 };
    const text = `[rates.send]\nper_second = ${rate.perSecond}\nburst = ${rate.burst}\n`;
    await using green = await LocalNode.create(network, 'green.example', text);
    await green.start();
    await using dave = await TestDevice.register(green, 'dave@green.example');
    const begin = async () => {
      const group = new TestCommitter('green.example', green.secrets?.signing);
      const entry = group.sign(undefined);
      const hubs = ['green.example'];
      await call(dave.connection, methods.createGroup, { entry, hubs });
      return { group, first: parseEntry(entry) };
    };
    const { group, first } = await begin();
    const { burst } = epochRate(rate);
    let parent = first;
    for (let count = 0; count < burst; count += 1) {
      const request = { ...commitOn(group, parent), hub: '' };
      // The same bytes again, as after a lost answer, are no other epoch.
      for (let times = 0; times < 3; times += 1) await submit(dave, request);
      parent = parseEntry(request.entry);
    }
    const next = { ...commitOn(group, parent), hub: '' };
    const error = await refused(submit(dave, next), 'RATE_LIMITED');
    assert.ok((error.retryAfterMs ?? 0) > 0);
    const { signatures } = group.certify(next.entry).certified;
    await submit(dave, { ...next, signatures });
    const other = await begin();
    await submit(dave, { ...commitOn(other.group, other.first), hub: '' });
  });

  test('who commits at another node than the hub hears of a Welcome for which there was no room', async () => {
    const { group, first } = await createGroup();
    await using carol = await TestDevice.register(red, 'carol2@red.example');
    const hashes = [deliveryTokenHash(bytes(16))];
    await call(carol.connection, methods.setDeliveryTokens, { hashes });
    // As many as strangers may have there.
    const payloads = Array.from({ length: 50 }, () => ({ mid: bytes(16), payload: bytes(9) }));
    const targets = payloads.map((_, payload) => ({ payload, rid: carol.rid, domain: redName }));
    const sent = { payloads, targets, ttlS: 600 };
    const { statuses } = await call(carol.connection, methods.batchEnqueue, sent);
    assert.equal(statuses.filter(({ status }) => status === 0).length, statuses.length);
    const welcome = {
      ...{ target: { rid: carol.rid, domain: redName }, welcome: bytes(90) },
      // What a client says of slips is nothing.
      ...{ mid: bytes(16), slip: bytes(52) },
    };
    await submit(bob, commitOn(group, first, { welcomes: [welcome], returnTo: redName }));
    const cursors = [{ log: {}, after: 0n }];
    let notice: Notice | undefined;
    while (notice === undefined) {
      const { logs } = await call(bob.connection, methods.fetchWait, { cursors, waitMs: 20_000 });
      const rows = logs[0]?.fetched?.rows ?? [];
      assert.ok(rows.length > 0);
      const found = rows.find(({ kind }) => kind === RowKind.Notice);
      if (found !== undefined) notice = fromBinary(NoticeSchema, found.payload);
      cursors[0] = { log: {}, after: rows.at(-1)?.seq ?? 0n };
    }
    assert.deepEqual(
      [notice.type, notice.mids, notice.rid, notice.reason],
      [NoticeType.BOUNCE, [welcome.mid], carol.rid, 'QUEUE_FULL'],
    );
  });

  test('CreateGroup and GroupLog keep their bounds', async () => {
    const { group, entry } = await createGroup();
    const create = (device: TestDevice, request: object) =>
      call(device.connection, methods.createGroup, request);
    assert.equal((await create(alice, { entry, hubs: [redName] })).wasNew, false);
    const rival = group.sign(undefined, { removal: true });
    await refused(create(alice, { entry: rival, hubs: [redName] }), 'NAME_TAKEN');
    const fresh = new TestCommitter().sign(undefined);
    const bad: readonly (readonly [request: object, reason: string])[] = [
      [{ hubs: [redName] }, 'BAD_FIELD'],
      [{ entry: fresh, hubs: [] }, 'BAD_FIELD'],
      [{ entry: fresh, hubs: [blueName] }, 'PEER_DENIED'],
      [{ entry: fresh, hubs: [redName, blueName, 'green.example'] }, 'PEER_DENIED'],
      [{ entry: { ...fresh, signature: bytes(64) }, hubs: [redName] }, 'BAD_SIGNATURE'],
    ];
    for (const [request, reason] of bad) await refused(create(alice, request), reason);
    for (const device of [alice, bob]) {
      await refused(readLog(device, new TestCommitter()), 'UNKNOWN_GROUP');
      await refused(readLog(device, group, { group: bytes(31) }), 'BAD_FIELD');
      await refused(readLog(device, group, { after: bytes(31) }), 'BAD_FIELD');
      await refused(readLog(device, group, { maxEntries: 65 }), 'BAD_FIELD');
      await refused(readLog(device, group, { hub: 'green.example' }), 'PEER_DENIED');
    }
  });
});
