/** How many commits a hub takes behind one entry: as many as a later one may reject and one more, of all members together. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  call,
  commitHash,
  groupLogLimits,
  methods,
  parseEntry,
  systemRandom,
} from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);
const hub = 'red.example';

test('a hub takes one commit more than an entry may reject, and then says that the epoch is full', async () => {
  const network = memoryNetwork(testRuntime);
  const quick = ['auth', 'send', 'relay', 'peer_users'].map(
    (rate) => `[rates.${rate}]\nper_second = 10000\nburst = 10000\n`,
  );
  await using red = await LocalNode.create(network, hub, quick.join(''));
  await using blue = await LocalNode.create(network, 'blue.example', quick.join(''));
  await using green = await LocalNode.create(network, 'green.example', quick.join(''));
  await red.start([blue, green]);
  await blue.start([red]);
  await green.start([red]);
  await using alice = await TestDevice.register(red, 'alice@red.example');
  await using bob = await TestDevice.register(blue, 'bob@blue.example');
  const group = new TestCommitter();
  const entry = group.sign(undefined);
  await call(alice.connection, methods.createGroup, { entry, hubs: [hub] });
  const first = parseEntry(entry);
  const children: Uint8Array[] = [];
  const childOf = (rejects: readonly Uint8Array[] = children, removal = false) => {
    const commit = bytes(60);
    const signed = group.sign(first, { commitHash: commitHash(commit), rejects, removal });
    return { hub, entry: signed, commit, mid: bytes(16) };
  };
  type Child = ReturnType<typeof childOf>;
  type Take = (request: Child) => Promise<unknown>;
  const take = async (by: Take): Promise<void> => {
    const request = childOf();
    await by(request);
    children.push(parseEntry(request.entry).hash);
  };
  const of =
    ({ connection }: TestDevice): Take =>
    (request) =>
      call(connection, methods.submitCommit, request);
  const peer = async (node: LocalNode, domain: string): Promise<Take> => {
    const connection = await red.dial(node.identity, domain);
    await call(connection, methods.fedHello, { domain, versionMin: 1, versionMax: 1 });
    return (submit) => call(connection, methods.fedHubSubmit, { submit });
  };
  const ofBlue = await peer(blue, 'blue.example');
  const ofGreen = await peer(green, 'green.example');
  const { rejects } = groupLogLimits;
  for (let count = 0; count < rejects / 2; count += 1) await take(ofBlue);
  await refused(ofBlue(childOf()), 'QUOTA');
  for (let count = 0; count < rejects / 2 - 1; count += 1) await take(ofGreen);
  assert.equal(children.length, 23);
  await take(of(alice));
  assert.equal(children.length, 24);
  await refused(of(alice)(childOf([])), 'EPOCH_CONFLICT');
  await take(of(alice));
  assert.equal(children.length, 25);

  for (const by of [of(alice), of(bob), ofGreen]) await refused(by(childOf()), 'EPOCH_FULL');
  const { removeMember, updateGroupMetadata, rotateKeys } = methods;
  for (const method of [removeMember, updateGroupMetadata, rotateKeys]) {
    const change = childOf(children, method === removeMember);
    await refused(call(alice.connection, method, change), 'EPOCH_FULL');
  }
  const submit = childOf();
  const takeover = { group: group.groupId, hub, submit };
  await refused(call(alice.connection, methods.groupTakeover, takeover), 'EPOCH_FULL');
  // Who does not know all of them yet reads first: one may be valid.
  for (const some of [children.slice(0, rejects), []]) {
    await refused(of(alice)(childOf(some)), 'EPOCH_CONFLICT');
  }
  await refused(of(alice)(childOf([...children, bytes(32), bytes(32)])), 'BAD_FIELD');
});
