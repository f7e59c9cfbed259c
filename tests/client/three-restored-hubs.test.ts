/** All three nodes of a conversation are put back to backups: members bring their hubs back what these forgot. */
import assert from 'node:assert/strict';
import { copyFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { hex, parseEntry, silentLog } from '@quicprochat/proto';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { openNodeStoreInThread } from '@quicprochat/nodes';
import { type LocalNode, testRuntime } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { inTime, type RigClient } from './rig.ts';
import { threeNodes } from './three-nodes.ts';

test('three nodes that were all restored go on with what members of their groups hold', async () => {
  await using stack = new AsyncDisposableStack();
  const clock = new JumpClock();
  const { nodes, people } = await threeNodes(stack, ['alice', 'bob', 'carol'], {
    clock,
    nodeClock: clock,
  });
  const [alice, bob, carol] = people;
  const [red] = nodes;
  const warnings: string[] = [];
  const stopAll = async (): Promise<void> => {
    for (const node of nodes) {
      await node.node?.stop();
      node.node = undefined;
      await node.store?.[Symbol.asyncDispose]();
      node.store = undefined;
    }
  };
  const startAll = async (): Promise<void> => {
    for (const node of nodes) {
      const { config, runtime } = node;
      const { databasePath: path, store: limits } = config;
      // Its transactions have the node's clock, unlike those of a worker.
      node.store = openNodeStoreInThread({ path, key: node.key, limits, runtime });
      await node.start(nodes.filter((one) => one !== node));
    }
  };
  const members = [bob.userId, carol.userId];
  const id = await alice.client.createConversation({ name: 'three', members });
  await bob.joined();
  await carol.joined();
  await alice.client.setRole(id, bob.userId, 'owner');
  await bob.events.first(({ type }) => type === 'roleChanged', 'bob to be an owner');
  await carol.events.first(({ type }) => type === 'roleChanged', 'carol to hear it');

  await stopAll();
  for (const { config } of nodes) copyFileSync(config.databasePath, `${config.databasePath}.old`);
  await startAll();
  const during = async <T>(work: Promise<T>, what: string): Promise<T> => {
    let isDone = false;
    work.then(
      () => (isDone = true),
      () => (isDone = true),
    );
    for (let count = 0; !isDone && count < 400; count += 1) {
      clock.jump(2_000);
      await testRuntime.clock.sleep(20);
    }
    return inTime(work, what);
  };
  const renamed = (one: RigClient) =>
    one.events.first(({ type }) => type === 'renamed', `${one.userId} to hear of the name`);
  await during(alice.client.updateMetadata(id, { name: 'after the backups' }), 'the new name');
  // carol alone hears of it.
  await during(renamed(carol), 'carol');
  const logOf = async ({ store }: LocalNode): Promise<string[]> => {
    const { controls = [] } = (await store?.groupLog(id, new Uint8Array(0), 64)) ?? {};
    return controls.map((bytes) => {
      const { entry } = fromBinary(GroupControlSchema, bytes);
      return hex(parseEntry(entry?.entry).hash);
    });
  };
  const lost = await logOf(red);
  await stopAll();
  for (const node of nodes) {
    const { databasePath: path } = node.config;
    copyFileSync(`${path}.old`, path);
    for (const end of ['-wal', '-shm']) rmSync(`${path}${end}`, { force: true });
    node.log = { ...silentLog, warn: (event) => void warnings.push(event) };
  }
  await startAll();
  const changed = bob.client.rotateKeys(id);
  await during(changed, 'bob to change something');
  await bob.client.send(id, 'still here');
  assert.deepEqual(await during(carol.texts(1), 'carol to read'), ['still here']);
  assert.ok(
    warnings.some((event) => event.includes('what its three hubs have left')),
    warnings.join(),
  );
  // What was made after the backups is in the log of all, and what came behind it.
  const shown = (log: readonly string[]): readonly string[] => log.slice(0, lost.length);
  const isBack = async (): Promise<boolean> => {
    const logs = await Promise.all(nodes.map(logOf));
    return logs.every((log) => log.length > lost.length);
  };
  for (let count = 0; count < 400 && !(await isBack()); count += 1) {
    clock.jump(2_000);
    await testRuntime.clock.sleep(20);
  }
  for (const node of nodes) assert.deepEqual(shown(await logOf(node)), lost, node.domain);
  assert.ok(await isBack());
});
