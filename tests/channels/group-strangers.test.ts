/**
 * The group log without a login: who knows the key of an entry, and nobody else; what such a caller gets. Guests
 * get the same: that a node knows whose device they are makes them no members.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  call,
  commitHash,
  entryHash,
  guestProofMs,
  methods,
  parseEntry,
  QpcError,
  signMemberProof,
  systemRandom,
  type ParsedEntry,
  type SigningKey,
} from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';
import { credentialFor, guestAt, lineTo, quickLogs, type Line } from '../cluster/mailbox-guests.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const redName = 'red.example';
const blueName = 'blue.example';
const greenName = 'green.example';
const names = [redName, blueName, greenName];
const quick = ['auth', 'send', 'send_anonymous', 'read', 'keys', 'relay']
  .map((rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`)
  .join('');
/** What guests need. */
const mailboxes = `[mailboxes]\nplaces = 10\n${quickLogs}`;

interface Wrong {
  readonly key?: SigningKey;
  readonly issuedMs?: number;
  readonly by?: Line;
  readonly at?: LocalNode;
  readonly group?: Uint8Array;
}

/** By the key of an entry, over the connection of a caller to a node, unless told otherwise. */
function proofOn(
  { identity: { spkiSha256: nodeSpki } }: LocalNode,
  { transport: { spkiSha256: clientSpki } }: Line,
  of: TestCommitter,
  { hash: entry, epoch }: ParsedEntry,
  wrong: Wrong = {},
) {
  const { key = of.keys(epoch).commit, issuedMs = Date.now(), group = of.groupId } = wrong;
  const signature = signMemberProof({ clientSpki, nodeSpki, group, entry, issuedMs }, key);
  return { entry, issuedMs: BigInt(issuedMs), signature };
}

/** A device of a user of `home` gets connections that are a guest's at `node`. */
async function guestsOf(home: LocalNode, node: LocalNode): Promise<() => Promise<Line>> {
  const name = `of-${node.domain.replace('.', '-')}@${home.domain}`;
  await using device = await TestDevice.register(home, name);
  const credential = await credentialFor(node, device);
  return () => guestAt(node, device, credential);
}

interface Kind {
  readonly title: string;
  /** What dials a node; `others` are its peers. */
  readonly callers: (node: LocalNode, others: readonly LocalNode[]) => Promise<() => Promise<Line>>;
  /** To what is for devices alone. */
  readonly refusal: 'NOT_LOGGED_IN' | 'CALLER_CLASS';
}
const kinds: readonly Kind[] = [
  {
    title: 'a caller that nobody knows',
    callers: async (node) => () => lineTo(node),
    refusal: 'NOT_LOGGED_IN',
  },
  {
    title: 'a guest',
    callers: async (node, [home]) => {
      assert(home !== undefined);
      return guestsOf(home, node);
    },
    refusal: 'CALLER_CLASS',
  },
];

for (const kind of kinds) suite(kind.title, () => membersWithoutLogin(kind));

function membersWithoutLogin({ callers, refusal }: Kind): void {
  const network = memoryNetwork(testRuntime);
  let nodes: readonly LocalNode[];
  let red: LocalNode;
  let blue: LocalNode;
  let alice: TestDevice;
  let dialRed: () => Promise<Line>;
  let eve: Line;
  const peersOf = (node: LocalNode) => nodes.filter((one) => one !== node);

  before(async () => {
    const config = quick + mailboxes;
    nodes = await Promise.all(names.map((name) => LocalNode.create(network, name, config)));
    for (const node of nodes) await node.start(peersOf(node));
    const [one, two] = nodes;
    assert(one !== undefined && two !== undefined);
    [red, blue] = [one, two];
    alice = await TestDevice.register(red, `alice@${redName}`);
    dialRed = await callers(red, peersOf(red));
    eve = await dialRed();
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    for (const node of nodes) await node[Symbol.asyncDispose]();
  });

  async function createGroup(hubs: readonly string[] = [redName]) {
    const group = new TestCommitter();
    const entry = group.sign(undefined);
    await call(alice.connection, methods.createGroup, { entry, hubs: [...hubs] });
    return { group, first: parseEntry(entry) };
  }

  function commitOn(group: TestCommitter, parent: ParsedEntry, changes: object = {}) {
    const commit = bytes(100);
    const entry = group.sign(parent, { commitHash: commitHash(commit), ...changes });
    return { entry, commit, mid: bytes(16) };
  }
  type Commit = ReturnType<typeof commitOn>;

  /** By the key of an entry, over the connection of a caller to red, unless told otherwise. */
  function proofOf(group: TestCommitter, entry: ParsedEntry, wrong: Wrong = {}) {
    const { by = eve, at = red } = wrong;
    return proofOn(at, by, group, entry, wrong);
  }

  const submit = (request: object, { connection }: Pick<Line, 'connection'> = eve) =>
    call(connection, methods.submitCommit, request);
  const read = (request: object, { connection }: Pick<Line, 'connection'> = eve) =>
    call(connection, methods.groupLog, request);
  const takeOver = (request: object, { connection }: Pick<Line, 'connection'> = eve) =>
    call(connection, methods.groupTakeover, request);
  const commitsOf = ({ entries }: Awaited<ReturnType<typeof read>>) =>
    entries.map(({ commit }) => Buffer.from(commit).toString('hex'));
  const hexOf = (...commits: readonly Commit[]) =>
    commits.map(({ commit }) => Buffer.from(commit).toString('hex'));
  const whole = async ({ groupId }: TestCommitter) =>
    (await read({ group: groupId }, alice)).entries.length;

  test('commits behind the newest entry by its key, once, and hears the certificate', async () => {
    const { group, first } = await createGroup();
    const one = { ...commitOn(group, first), proof: proofOf(group, first) };
    const { entry } = await submit(one);
    assert.deepEqual(entry?.entry?.entry, one.entry.entry);
    assert.deepEqual((await submit(one)).entry, entry, 'the same bytes, the same answer');
    // What it says for nodes is not taken over.
    const parent = parseEntry(one.entry);
    const two = { ...commitOn(group, parent), returnTo: blueName, term: 7n };
    await submit({ ...two, proof: proofOf(group, parent) });
    assert.equal(await whole(group), 3);
    // Two at once: who loses has to read what won.
    const tip = parseEntry(two.entry);
    const rivals = [commitOn(group, tip), commitOn(group, tip)];
    const race = rivals.map((rival) => submit({ ...rival, proof: proofOf(group, tip) }));
    const [lost] = (await Promise.allSettled(race)).flatMap((end) =>
      end.status === 'rejected' ? [end.reason as unknown] : [],
    );
    assert(lost instanceof QpcError && lost.reason === 'EPOCH_CONFLICT');
    assert.equal(lost.details, undefined);
    const { entries } = await read({ group: group.groupId, proof: proofOf(group, tip) });
    assert.equal(entries.length, 1);
  });

  test('reads the children of the entry whose key it knows, and nothing else', async () => {
    const { group, first } = await createGroup();
    const { groupId } = group;
    const groupInfo = bytes(50);
    const one = { ...commitOn(group, first, { removal: true }), groupInfo };
    await submit(one, alice);
    const parent = parseEntry(one.entry);
    const two = commitOn(group, parent);
    await submit(two, alice);
    const asked = { group: groupId, withGroupInfo: true };
    // Who was removed by the first commit reads that, as it would have come to it anyway, and no further.
    const ofFirst = await read({ ...asked, proof: proofOf(group, first) });
    assert.deepEqual(commitsOf(ofFirst), hexOf(one));
    assert.deepEqual([ofFirst.hasMore, ofFirst.position, ofFirst.groupInfo.length], [false, 0n, 0]);
    for (const entry of [parent.hash, entryHash(two.entry.entry)]) {
      const behind = await read({ ...asked, after: entry, proof: proofOf(group, first) });
      assert.deepEqual(behind.entries, []);
    }
    const ofSecond = await read({ ...asked, proof: proofOf(group, parent) });
    assert.deepEqual(commitsOf(ofSecond), hexOf(two));
    const newest = await read({ ...asked, proof: proofOf(group, parseEntry(two.entry)) });
    assert.deepEqual([newest.entries, newest.groupInfo.length], [[], 0]);
  });

  test('with the key of an older entry writes nothing, not even what rejects all that stands there', async () => {
    const { group, first } = await createGroup();
    const { groupId } = group;
    const removal = commitOn(group, first, { removal: true });
    await submit(removal, alice);
    const proof = proofOf(group, first);
    const rejects = [parseEntry(removal.entry).hash];
    for (const late of [commitOn(group, first), commitOn(group, first, { rejects })]) {
      const refusal = await refused(submit({ ...late, proof }), 'EPOCH_CONFLICT');
      assert.equal(refusal.details, undefined, 'what came since is not told');
      const over = { group: groupId, submit: late, proof };
      await refused(takeOver(over), 'EPOCH_CONFLICT');
    }
    // Nor behind the newest with the proof of the old one.
    const next = commitOn(group, parseEntry(removal.entry));
    await refused(submit({ ...next, proof }), 'BLOCKED');
    assert.equal(await whole(group), 2);
    // An external commit is signed otherwise, and so is no proof of a member.
    const key = group.keys(1).join;
    const ofJoiner = proofOf(group, parseEntry(removal.entry), { key });
    await refused(read({ group: groupId, proof: ofJoiner }), 'BLOCKED');
  });

  test('hears the same of a group that is not here, of a wrong key, and of a proof made elsewhere', async () => {
    const { group, first } = await createGroup();
    const other = await createGroup();
    const nowhere = new TestCommitter();
    const { groupId } = group;
    const unknown = parseEntry(nowhere.sign(undefined));
    const good = proofOf(group, first);
    const mallory = await dialRed();
    const wrong: readonly (readonly [proof: object | undefined, group?: Uint8Array])[] = [
      [undefined],
      [proofOf(nowhere, unknown), nowhere.groupId],
      [good, nowhere.groupId],
      [good, other.group.groupId],
      [proofOf(group, other.first)],
      [proofOf(group, first, { key: other.group.keys(0).commit })],
      [proofOf(group, first, { key: group.keys(0).join })],
      [proofOf(group, first, { group: other.group.groupId })],
      [proofOf(group, first, { by: mallory })],
      [proofOf(group, first, { at: blue })],
      [proofOf(group, first, { issuedMs: Date.now() - guestProofMs - 60_000 })],
      [proofOf(group, first, { issuedMs: Date.now() + guestProofMs + 60_000 })],
      [{ ...good, issuedMs: good.issuedMs + 1n }],
      [{ ...good, signature: bytes(64) }],
    ];
    const said = new Set<string>();
    for (const [proof, asked = groupId] of wrong) {
      said.add((await refused(read({ group: asked, proof }), 'BLOCKED')).message);
      if (asked !== groupId) continue;
      const commit = commitOn(group, first);
      said.add((await refused(submit({ ...commit, proof }), 'BLOCKED')).message);
      const over = { group: groupId, submit: commit, proof };
      said.add((await refused(takeOver(over), 'BLOCKED')).message);
    }
    // What one connection showed is worth nothing on another one.
    const heard = { ...commitOn(group, first), proof: good };
    said.add((await refused(submit(heard, mallory), 'BLOCKED')).message);
    said.add((await refused(read({ group: groupId, proof: good }, mallory), 'BLOCKED')).message);
    assert.equal(said.size, 1);
    assert.equal(await whole(group), 1);
    await submit(heard);
    assert.equal(await whole(group), 2);
  });

  test('asks the hub itself, and begins nothing', async () => {
    const { group, first } = await createGroup();
    const { groupId } = group;
    const proof = proofOf(group, first);
    const commit = commitOn(group, first);
    const hub = blueName;
    await refused(read({ hub, group: groupId, proof }), 'CALLER_CLASS');
    await refused(submit({ ...commit, hub, proof }), 'CALLER_CLASS');
    await refused(takeOver({ hub, group: groupId, submit: commit, proof }), 'CALLER_CLASS');
    await refused(takeOver({ group: groupId, proof }), 'BAD_FIELD');
    const bad = { ...proof, entry: bytes(31) };
    await refused(read({ group: groupId, proof: bad }), 'BAD_FIELD');
    const entry = new TestCommitter().sign(undefined);
    const begun = call(eve.connection, methods.createGroup, { entry, hubs: [redName] });
    await refused(begun, refusal);
    const named = call(eve.connection, methods.rotateKeys, { ...commit, proof });
    await refused(named, refusal);
    const large = { ...commit, groupInfo: bytes(512 * 1024), sharedWelcome: bytes(508 * 1024) };
    const welcomes = [{ welcome: bytes(400 * 1024) }];
    await refused(submit({ ...large, welcomes, proof }), 'TOO_LARGE');
    const over = { group: groupId, submit: { ...large, welcomes }, proof };
    await refused(takeOver(over), 'TOO_LARGE');
    assert.equal(await whole(group), 1);
  });

  test('reaches any of three hubs: one passes its commit on, or takes over', async () => {
    const { group, first } = await createGroup(names);
    const { groupId } = group;
    const atBlue = await (await callers(blue, peersOf(blue)))();
    const proof = (parent: ParsedEntry) => proofOf(group, parent, { by: atBlue, at: blue });
    // Blue hears that entry 0 was accepted a moment after alice.
    const settled = async <T>(work: () => Promise<T>): Promise<T> => {
      for (let tries = 0; ; tries += 1) {
        try {
          return await work();
        } catch (error) {
          if (tries === 400) throw error;
          await testRuntime.clock.sleep(50);
        }
      }
    };
    const one = commitOn(group, first);
    const passed = await settled(() => submit({ ...one, proof: proof(first) }, atBlue));
    assert.equal(passed.entry?.signatures.length, 2);
    const parent = parseEntry(one.entry);
    const shown = await settled(async () => {
      const page = await read({ group: groupId, proof: proof(first) }, atBlue);
      assert.deepEqual(commitsOf(page), hexOf(one));
      return page;
    });
    assert.equal(shown.entries.length, 1);
    await red.node?.stop();
    red.node = undefined;
    const two = commitOn(group, parent);
    const over = { group: groupId, submit: two, proof: proof(parent) };
    const taken = await takeOver(over, atBlue);
    assert.deepEqual([taken.leader, taken.term], [blueName, 1n]);
    assert.deepEqual(taken.submitted?.entry?.entry?.entry, two.entry.entry);
  });
}

test('a flood of members without a login is held up, and no device with it', async () => {
  const network = memoryNetwork(testRuntime);
  // A fifth of what a device may send is commits of one group: two.
  const config =
    '[rates]\nsend = { per_second = 0.01, burst = 10 }\nread = { per_second = 0.01, burst = 12 }\n' +
    `send_anonymous = { per_second = 0.01, burst = 9 }\n${mailboxes}`;
  await using red = await LocalNode.create(network, redName, config);
  await using blue = await LocalNode.create(network, blueName, quickLogs);
  await red.start([blue]);
  await blue.start([red]);
  await using alice = await TestDevice.register(red, `alice@${redName}`);
  const group = new TestCommitter();
  const entry = group.sign(undefined);
  await call(alice.connection, methods.createGroup, { entry, hubs: [redName] });
  let parent = parseEntry(entry);
  const commitAs = async (line: Line) => {
    const commit = bytes(100);
    const signed = group.sign(parent, { commitHash: commitHash(commit) });
    const proof = proofOn(red, line, group, parent);
    const request = { entry: signed, commit, mid: bytes(16), proof };
    await call(line.connection, methods.submitCommit, request);
    parent = parseEntry(signed);
  };
  // All of them together have as many epochs as one device has.
  const eve = await lineTo(red);
  const gina = await (await guestsOf(blue, red))();
  await commitAs(eve);
  await commitAs(gina);
  for (const one of [eve, gina]) {
    const many = await refused(commitAs(one), 'RATE_LIMITED');
    assert.match(many.message, /in one group/);
  }
  await commitAs(alice);
  const ask = ({ connection }: Line) =>
    call(connection, methods.groupLog, { group: group.groupId });
  const submit = ({ connection }: Line) => call(connection, methods.submitCommit, {});
  for (let count = 0; count < 9; count += 1) await refused(ask(eve), 'BLOCKED');
  const limited = await refused(ask(eve), 'RATE_LIMITED');
  assert((limited.retryAfterMs ?? 0) > 0);
  // A guest reads on its own count, as it reads its mailbox.
  for (let count = 0; count < 12; count += 1) await refused(ask(gina), 'BLOCKED');
  await refused(ask(gina), 'RATE_LIMITED');
  // What was read took nothing from what their address may send: four commits did, and who sends them is one.
  for (let count = 0; count < 5; count += 1) await refused(submit(gina), 'BAD_FIELD');
  for (const one of [eve, gina]) {
    await refused(submit(one), 'RATE_LIMITED');
    const over = call(one.connection, methods.groupTakeover, {});
    await refused(over, 'RATE_LIMITED');
  }
  const { entries } = await call(alice.connection, methods.groupLog, { group: group.groupId });
  assert.equal(entries.length, 4);
});
