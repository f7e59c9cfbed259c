/** A hub whose database is put back to an older copy, through the wire: members elsewhere bring back what it lost. */
import assert from 'node:assert/strict';
import { copyFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import {
  call,
  commitHash,
  hasReason,
  methods,
  parseEntry,
  QpcError,
  silentLog,
  systemRandom,
  type ParsedEntry,
} from '@quicprochat/proto';
import type {
  SubmitCommitRequestSchema,
  SubmitCommitResponseSchema,
} from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { openNodeStore } from '@quicprochat/nodes';
import { TestCommitter } from '@quicprochat/nodes/store/group-committer';
import { LocalNode, refused, TestDevice, testRuntime } from '../cluster/local-node.ts';

type Submit = typeof SubmitCommitRequestSchema;
type Submitted = typeof SubmitCommitResponseSchema;

const hub = 'red.example';
const bytes = (length: number): Uint8Array => systemRandom.bytes(length);

function commitOn(group: TestCommitter, parent: ParsedEntry, removal = false) {
  const commit = bytes(100);
  const entry = group.sign(parent, { commitHash: commitHash(commit), removal });
  return { hub, entry, commit, mid: bytes(16) };
}

test('a restored hub takes what it certified, refuses the rest for a while, and says so', async () => {
  const network = memoryNetwork(testRuntime);
  const quick = '[rates.send]\nper_second = 10000\nburst = 10000\n';
  await using red = await LocalNode.create(network, hub, quick);
  await using blue = await LocalNode.create(network, 'blue.example', quick);
  const warnings: string[] = [];
  red.log = { ...silentLog, warn: (event) => void warnings.push(event) };
  const stop = async (): Promise<void> => {
    await red.node?.stop();
    red.node = undefined;
    await red.store?.[Symbol.asyncDispose]();
  };
  const start = async (): Promise<void> => {
    const { databasePath: path, store: limits } = red.config;
    red.store = await openNodeStore({ path, key: red.key, limits, runtime: testRuntime });
    await red.start([blue]);
  };
  await red.start([blue]);
  await blue.start([red]);
  await using alice = await TestDevice.register(red, 'alice@red.example');
  await using bob = await TestDevice.register(blue, 'bob@blue.example');
  const submit = async (request: object): ReturnType<typeof call<Submit, Submitted>> => {
    for (;;) {
      try {
        return await call(bob.connection, methods.submitCommit, request);
      } catch (error) {
        // blue dials again after a while.
        if (!hasReason(error, 'PEER_UNREACHABLE')) throw error;
        await testRuntime.clock.sleep(20);
      }
    }
  };

  const group = new TestCommitter();
  const begun = { entry: group.sign(undefined), hubs: [hub] };
  const { entry: zero } = await call(alice.connection, methods.createGroup, begun);
  const first = commitOn(group, parseEntry(zero?.entry));
  await submit(first);
  const path = red.config.databasePath;
  await stop();
  copyFileSync(path, `${path}.old`);
  await start();
  const second = commitOn(group, parseEntry(first.entry));
  const { entry: accepted } = await submit(second);
  assert.ok(accepted !== undefined);
  await stop();
  copyFileSync(`${path}.old`, path);
  for (const end of ['-wal', '-shm']) rmSync(`${path}${end}`, { force: true });
  await start();
  assert.ok(
    warnings.some((line) => line.includes('may have lost')),
    warnings.join(),
  );

  const late = commitOn(group, parseEntry(first.entry));
  const isHeld = (error: unknown): boolean =>
    error instanceof QpcError && error.reason === 'HUB_RESTORED' && (error.retryAfterMs ?? 0) > 0;
  await assert.rejects(submit(late), isHeld);
  const { connection } = bob;
  const removal = commitOn(group, parseEntry(first.entry), true);
  await assert.rejects(call(connection, methods.removeMember, removal), isHeld);
  await assert.rejects(call(connection, methods.updateGroupMetadata, late), isHeld);
  await assert.rejects(call(connection, methods.rotateKeys, late), isHeld);
  // Somebody else's word, or its own for another entry, is none.
  const { signatures } = accepted;
  await assert.rejects(submit({ ...late, signatures }), isHeld);
  const forged = signatures.map((one) => ({ ...one, signature: bytes(64) }));
  await assert.rejects(submit({ ...second, signatures: forged }), isHeld);
  const back = await submit({ ...second, signatures });
  assert.deepEqual(parseEntry(back.entry?.entry).hash, parseEntry(second.entry).hash);
  await refused(submit(late), 'EPOCH_CONFLICT');
  const held = warnings.filter((line) => line.includes('takes no commits'));
  assert.equal(held.length, 1, 'once for each group');

  // A group that it does not know at all: with its own word it knows that there was one.
  const lost = new TestCommitter(hub, red.secrets?.signing);
  const gone = lost.sign(undefined);
  const { signatures: words } = lost.certify(gone).certified;
  await using again = await TestDevice.dial(red, 'alice@red.example');
  Object.assign(again, { identityKey: alice.identityKey, accountKey: alice.accountKey });
  await again.login();
  await call(again.connection, methods.createGroup, {
    entry: gone,
    signatures: words,
    hubs: [hub],
  });
  await assert.rejects(submit(commitOn(lost, parseEntry(gone))), isHeld);
});
