/** Hubs of three through the wire: a majority on disk, takeovers, fences, repairs, and hubs that lie. */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  checkEntry,
  commitHash,
  factsOf,
  methods,
  QpcError,
  systemRandom,
  verifyCertified,
  type ParsedEntry,
} from '@quicprochat/proto';
import type { CertifiedEntry } from '@quicprochat/proto/messages';
import { CloseCode, memoryNetwork, type Connection } from '@quicprochat/proto/transport';
import { makePeer } from '@quicprochat/federation';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const none = new Uint8Array(0);
const names = ['red.example', 'blue.example', 'green.example'];
const [redName = '', blueName = '', greenName = ''] = names;

suite('a hub of three', () => {
  const network = memoryNetwork(testRuntime);
  const quick = ['auth', 'send', 'read', 'keys', 'relay'].map(
    (rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`,
  );
  let nodes: readonly LocalNode[];
  let alice: TestDevice;
  let bob: TestDevice;
  let carol: TestDevice;

  const at = (name: string): LocalNode => {
    const node = nodes.find(({ domain }) => domain === name);
    assert.ok(node !== undefined);
    return node;
  };

  before(async () => {
    nodes = await Promise.all(names.map((name) => LocalNode.create(network, name, quick.join(''))));
    for (const node of nodes) await node.start(nodes.filter((one) => one !== node));
    alice = await TestDevice.register(at(redName), `alice@${redName}`);
    bob = await TestDevice.register(at(blueName), `bob@${blueName}`);
    carol = await TestDevice.register(at(greenName), `carol@${greenName}`);
  });
  after(async () => {
    for (const device of [alice, bob, carol]) await device[Symbol.asyncDispose]();
    for (const node of nodes) await node[Symbol.asyncDispose]();
  });

  const keysOf = (domain: string) => [at(domain).secrets?.signing.publicKey ?? none];

  function certified(entry: CertifiedEntry | undefined, parent?: ParsedEntry): ParsedEntry {
    assert.ok(entry !== undefined);
    const parsed = verifyCertified(entry, names, keysOf);
    checkEntry(parsed, parent && factsOf(parent));
    return parsed;
  }

  async function createGroup() {
    const group = new TestCommitter();
    const entry = group.sign(undefined);
    const made = await call(alice.connection, methods.createGroup, { entry, hubs: names });
    assert.equal(made.wasNew, true);
    return { group, first: certified(made.entry), entry };
  }

  function commitOn(group: TestCommitter, parent: ParsedEntry, changes: object = {}) {
    const commit = bytes(100);
    const entry = group.sign(parent, { commitHash: commitHash(commit) });
    return { hub: redName, entry, commit, mid: bytes(16), ...changes };
  }

  const submit = (device: TestDevice, request: object) =>
    call(device.connection, methods.submitCommit, request);
  /** What a hub itself shows. */
  const logAt = async (hub: string, { groupId: group }: TestCommitter) => {
    const device = hub === redName ? alice : hub === blueName ? bob : carol;
    return call(device.connection, methods.groupLog, { hub, group });
  };
  const stop = async (node: LocalNode): Promise<void> => {
    await node.node?.stop();
    node.node = undefined;
  };
  const start = async (node: LocalNode): Promise<void> => {
    await node.start(nodes.filter((one) => one !== node));
    const device = [alice, bob, carol].find(({ userId }) => userId.endsWith(node.domain));
    if (device !== undefined) device.connection = await node.dial(device.transport);
  };

  test('a commit is accepted with the word of two, and reaches the log of all', async () => {
    const { group, first } = await createGroup();
    const welcome = bytes(120);
    const target = { rid: bob.rid, domain: blueName };
    const request = commitOn(group, first, {
      welcomes: [{ target, mid: bytes(16), welcome }],
      groupInfo: bytes(50),
    });
    const { entry } = await submit(carol, request);
    const accepted = certified(entry, first);
    assert.deepEqual(
      (await submit(carol, request)).entry,
      entry,
      'the same bytes, the same answer',
    );
    const cursors = [{ log: {}, after: 0n }];
    const { logs } = await call(bob.connection, methods.fetchWait, { cursors, waitMs: 20_000 });
    assert.equal(logs[0]?.fetched?.rows.length, 1);
    const second = commitOn(group, accepted, { hub: blueName });
    certified((await submit(bob, second)).entry, accepted);
    for (const hub of names) {
      await eventually(async () => {
        const { entries } = await logAt(hub, group);
        let parent: ParsedEntry | undefined;
        for (const control of entries) parent = certified(control.entry, parent);
        assert.equal(entries.length, 3, hub);
      });
    }
  });

  test('while one hub is away two decide; it is brought up to date when it is back', async () => {
    const { group, first } = await createGroup();
    await stop(at(greenName));
    let parent = first;
    for (let count = 0; count < 3; count += 1) {
      parent = certified((await submit(alice, commitOn(group, parent))).entry, parent);
    }
    await start(at(greenName));
    parent = certified((await submit(bob, commitOn(group, parent))).entry, parent);
    await eventually(async () => {
      const { entries } = await logAt(greenName, group);
      assert.equal(entries.length, 5);
    });
  });

  test('the next hub takes over from a leader that is gone, and the old one follows', async () => {
    const { group, first } = await createGroup();
    const { groupId } = group;
    const second = certified((await submit(alice, commitOn(group, first))).entry, first);
    const takeover = (hub: string, parent: ParsedEntry) =>
      call(bob.connection, methods.groupTakeover, {
        ...{ hub, group: groupId },
        submit: commitOn(group, parent, { hub }),
      });
    // A leader that can be reached keeps its term, whoever asks.
    const kept = await takeover(blueName, second);
    assert.deepEqual([kept.leader, kept.term], [redName, 0n]);
    const third = certified(kept.submitted?.entry, second);
    const idle = { hub: blueName, group: groupId };
    assert.equal((await call(bob.connection, methods.groupTakeover, idle)).leader, redName);

    await stop(at(redName));
    await refused(submit(bob, commitOn(group, third, { hub: blueName })), 'HUB_UNAVAILABLE');
    const taken = await takeover(blueName, third);
    assert.deepEqual([taken.leader, taken.term], [blueName, 1n]);
    const fourth = certified(taken.submitted?.entry, third);
    assert.equal(taken.submitted?.entry?.term, 1n);
    const again = await call(bob.connection, methods.groupTakeover, idle);
    assert.deepEqual([again.leader, again.term], [blueName, 1n]);

    await start(at(redName));
    // It believes to lead until somebody who knows better refuses it.
    const { entry } = await eventually(() => submit(alice, commitOn(group, fourth)));
    assert.equal(entry?.term, 1n);
    const fifth = certified(entry, fourth);
    const green = await call(carol.connection, methods.groupTakeover, {
      ...{ hub: greenName, group: groupId },
      submit: commitOn(group, fifth, { hub: greenName }),
    });
    assert.deepEqual([green.leader, green.term], [blueName, 1n]);
    certified(green.submitted?.entry, fifth);
    for (const node of nodes) {
      await eventually(async () => {
        const { entries } = await logAt(node.domain, group);
        assert.equal(entries.length, 6, node.domain);
      });
    }
  });

  test('what is no word of a hub of this group is refused by its reason', async () => {
    const { group, first, entry } = await createGroup();
    const { groupId } = group;
    const other = await createGroup();
    const good = commitOn(group, first);
    const asBlue = await peerAt(at(greenName), at(blueName));
    const asRed = await peerAt(at(greenName), at(redName));
    const log = { group: groupId, hubs: names, position: 1n, head: first.hash };
    const prepared = { ...good, hub: '' };
    const elsewhere = { ...commitOn(other.group, other.first), hub: '' };
    const rotated = [blueName, redName, greenName];
    const replicates: readonly (readonly [Connection, object, string])[] = [
      [asBlue, { ...log, term: 3n, prepared }, 'PEER_DENIED'],
      [asBlue, { ...log, term: 1n, hubs: [blueName, 'a.example', 'b.example'] }, 'PEER_DENIED'],
      [asBlue, { ...log, term: 1n, hubs: ['a.example', 'b.example', greenName] }, 'PEER_DENIED'],
      [asRed, { ...log, term: 0n, hubs: [redName] }, 'PEER_DENIED'],
      [asBlue, { ...log, term: 0n, hubs: rotated, prepared }, 'BAD_FIELD'],
      [asRed, { ...log, term: 0n, prepared: elsewhere }, 'BAD_FIELD'],
      [asRed, { ...log, term: 0n, group: bytes(31) }, 'BAD_FIELD'],
      [asRed, { ...log, term: 3n * 2n ** 40n, prepared }, 'BAD_FIELD'],
      [asRed, { ...log, term: 2n ** 60n }, 'BAD_FIELD'],
      [asRed, { ...log, term: 0n, head: other.first.hash }, 'SEQ_CONFLICT'],
      [asRed, { ...log, term: 0n, prepared: { ...prepared, commit: bytes(9) } }, 'BAD_FIELD'],
      [asRed, { ...log, term: 0n, prepared: { ...prepared, mid: none } }, 'BAD_FIELD'],
      [asRed, { ...log, term: 0n, prepared: { ...prepared, entry } }, 'BAD_FIELD'],
    ];
    for (const [connection, request, reason] of replicates) {
      await refused(call(connection, methods.fedHubReplicate, request), reason);
    }
    const far = { ...log, term: 0n, position: 2n ** 52n };
    const behind = await call(asRed, methods.fedHubReplicate, far);
    assert.deepEqual([behind.isBehind, behind.position, behind.signature], [true, 1n, undefined]);

    const promise = (connection: Connection, request: object) =>
      call(connection, methods.fedHubPromise, { group: groupId, ...request });
    await refused(promise(asBlue, { term: 2n }), 'PEER_DENIED');
    await refused(promise(asBlue, { term: 3n }), 'PEER_DENIED');
    await refused(promise(asRed, { term: 0n }), 'TERM_FENCED');
    await refused(promise(asRed, { term: 3n * 2n ** 40n }), 'BAD_FIELD');
    await refused(promise(asRed, { term: 3n, group: bytes(32) }), 'UNKNOWN_GROUP');

    const hubsDo = { domain: redName, hubSigning: at(redName).secrets?.signing };
    assert.ok(hubsDo.hubSigning !== undefined);
    const forger = new TestCommitter(redName, hubsDo.hubSigning);
    const { certified: alone } = forger.certify(good.entry);
    const [word] = alone.signatures;
    const install = (request: object) =>
      call(asRed, methods.fedHubInstall, {
        ...{ group: groupId, hubs: names, position: 2n, isRepair: true },
        ...request,
      });
    const control = { entry: alone, commit: good.commit };
    const twice = { ...alone, signatures: [word, word, word] };
    const installs: readonly (readonly [object, string])[] = [
      [{ entries: [control] }, 'BAD_SIGNATURE'],
      [{ entries: [{ ...control, entry: twice }] }, 'BAD_SIGNATURE'],
      [{ entries: [] }, 'BAD_FIELD'],
      [{ entries: Array.from({ length: 65 }, () => control) }, 'BAD_FIELD'],
      [{ entries: [control], position: 0n }, 'BAD_FIELD'],
      [{ entries: [control], hubs: [redName] }, 'PEER_DENIED'],
    ];
    for (const [request, reason] of installs) await refused(install(request), reason);
    const { entries, prepared: open } = await logAt(greenName, group);
    assert.deepEqual([entries.length, open], [1, none], 'nothing of it is half here');

    const asDevice = call(carol.connection, methods.fedHubPromise, { group: groupId, term: 3n });
    await refused(asDevice, 'CALLER_CLASS');
    const takeover = (request: object) =>
      call(bob.connection, methods.groupTakeover, { group: groupId, ...request });
    await refused(takeover({ group: bytes(32) }), 'UNKNOWN_GROUP');
    await refused(takeover({ hub: 'violet.example' }), 'PEER_DENIED');
    await refused(takeover({ submit: elsewhere }), 'BAD_FIELD');
    const create = (hubs: readonly string[]) =>
      call(alice.connection, methods.createGroup, {
        entry: group.sign(undefined),
        hubs: [...hubs],
      });
    await refused(create([redName, blueName, 'violet.example']), 'PEER_DENIED');
    await refused(create(rotated), 'PEER_DENIED');
    await refused(create([redName, blueName]), 'BAD_FIELD');
    certified((await submit(alice, good)).entry, first);
    for (const one of [asBlue, asRed]) await one.close(CloseCode.Normal, 'done');
  });
});

/** A connection to `node` that speaks for another one. */
async function peerAt(node: LocalNode, as: LocalNode): Promise<Connection> {
  const connection = await node.dial(as.identity, as.domain);
  await call(connection, methods.fedHello, { domain: as.domain, versionMin: 1, versionMax: 1 });
  return connection;
}

/** Until it does not throw any more; the last error after 20 s. */
async function eventually<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (tries > 400) throw error;
      await testRuntime.clock.sleep(50);
    }
  }
}

test('a hub that does not know the keys of another one yet learns that the group began when it does', async () => {
  const network = memoryNetwork(testRuntime);
  await using red = await LocalNode.create(network, redName);
  await using blue = await LocalNode.create(network, blueName);
  await using green = await LocalNode.create(network, greenName);
  await red.start([blue, green]);
  await blue.start([red]);
  await green.start([red]);
  await using alice = await TestDevice.register(red, `alice@${redName}`);
  const group = new TestCommitter();
  const entry = group.sign(undefined);
  const made = await call(alice.connection, methods.createGroup, { entry, hubs: names });
  assert(made.entry !== undefined);
  const entries = [{ entry: made.entry }];
  const request = { group: group.groupId, hubs: names, position: 1n, entries };
  // One of both is in the certificate, and the other one cannot check that.
  const told = [blue, green].map(async (node) => {
    const connection = await peerAt(node, red);
    return call(connection, methods.fedHubInstall, request).then(
      () => 'OK',
      (error: unknown) => (error instanceof QpcError ? error.reason : String(error)),
    );
  });
  assert.deepEqual((await Promise.all(told)).toSorted(), ['HUB_UNAVAILABLE', 'OK']);
  const logOf = ({ store }: LocalNode) => store?.groupLog(group.groupId, none, 9);
  const peersOf = (...nodes: readonly LocalNode[]) => ({
    peers: nodes.map(({ domain, address }) => makePeer(domain, [address])),
    deniedDomains: [],
    deniedPins: [],
  });
  await Promise.all([
    blue.node?.reloadPeers(peersOf(red, green)),
    green.node?.reloadPeers(peersOf(red, blue)),
  ]);
  for (const node of [blue, green]) {
    await eventually(async () =>
      assert.equal((await logOf(node))?.controls.length, 1, node.domain),
    );
  }
});
