/**
 * What nobody signed beside an entry (fields that this version does not know, more certificates than hubs) is not
 * kept by a hub: it would stand in the log for ever, and in the rows of all members.
 */
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { call, commitHash, methods, parseEntry, systemRandom } from '@quicprochat/proto';
import {
  fromBinary,
  GroupControlSchema,
  SignedGroupEntrySchema,
  toBinary,
  type SignedGroupEntry,
} from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

/** The same entry with a field 99 of so many bytes behind it. */
function padded(entry: SignedGroupEntry, length: number): SignedGroupEntry {
  const header = [0x9a, 0x06, (length & 0x7f) | 0x80, ((length >> 7) & 0x7f) | 0x80, length >> 14];
  const encoded = toBinary(SignedGroupEntrySchema, entry);
  return fromBinary(
    SignedGroupEntrySchema,
    Buffer.concat([encoded, Uint8Array.from(header), new Uint8Array(length)]),
  );
}

suite('what is beside an entry', () => {
  let red: LocalNode;
  let alice: TestDevice;
  before(async () => {
    red = await LocalNode.create(memoryNetwork(testRuntime), 'red.example');
    await red.start();
    alice = await TestDevice.register(red, 'alice@red.example');
  });
  after(async () => {
    await alice[Symbol.asyncDispose]();
    await red[Symbol.asyncDispose]();
  });

  test('a member cannot pad an entry until nobody can read the log', async () => {
    const group = new TestCommitter();
    const entry = group.sign(undefined);
    const hubs = ['red.example'];
    const create = (request: object) => call(alice.connection, methods.createGroup, request);
    await refused(create({ entry: padded(entry, 10_000), hubs }), 'BAD_FIELD');
    await create({ entry, hubs });
    const commit = bytes(400 * 1024);
    const child = group.sign(parseEntry(entry), { commitHash: commitHash(commit) });
    const submit = (request: object) =>
      call(alice.connection, methods.submitCommit, { commit, mid: bytes(16), ...request });
    await refused(submit({ entry: padded(child, 1_200_000) }), 'BAD_FIELD');
    const word = { domain: 'red.example', signPub: bytes(32), signature: bytes(64) };
    for (const signatures of [
      [word, word, word, word],
      [{ ...word, signPub: bytes(33) }],
      [{ ...word, signature: bytes(63) }],
      [{ ...word, domain: 'Red' }],
    ]) {
      await refused(submit({ entry: child, signatures }), 'BAD_FIELD');
    }
    const log = () => call(alice.connection, methods.groupLog, { group: group.groupId });
    assert.equal((await log()).entries.length, 1);
    // A little is what a later version may add.
    await submit({ entry: padded(child, 100 + 28) });
    assert.equal((await log()).entries.length, 2);
  });

  test('the fullest page of a log fits into an answer beside the largest GroupInfo', async () => {
    const group = new TestCommitter();
    const entry = group.sign(undefined);
    await call(alice.connection, methods.createGroup, { entry, hubs: ['red.example'] });
    let parent = parseEntry(entry);
    const commit = async (size: number): Promise<void> => {
      const body = bytes(size);
      const child = group.sign(parent, { commitHash: commitHash(body) });
      const fields = { entry: child, commit: body, mid: bytes(16), groupInfo: bytes(512 * 1024) };
      await call(alice.connection, methods.submitCommit, fields);
      parent = parseEntry(child);
    };
    const log = (withGroupInfo: boolean) =>
      call(alice.connection, methods.groupLog, { group: group.groupId, withGroupInfo });
    await commit(256 * 1024);
    const { entries } = await log(false);
    const [first, second] = entries.map((one) => toBinary(GroupControlSchema, one).length);
    // The rest of half a MiB: what stands beside a commit is as much for the third entry as for the second.
    const rest = 512 * 1024 - (first ?? 0) - 2 * (second ?? 0) + 256 * 1024;
    for (const size of [rest, rest - 16 * 1024]) await commit(size);
    const page = await log(true);
    assert.ok(page.entries.length >= 2);
    assert.equal(page.groupInfo.length, 512 * 1024);
  });
});
