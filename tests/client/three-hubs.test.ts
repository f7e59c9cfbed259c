/** A conversation over three domains has three hubs: one of them may go, and changes go on. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore } from '@quicprochat/client-lib/store';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, testRuntime } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { inTime, RigClient } from './rig.ts';

const domains = ['red.example', 'blue.example', 'green.example'];

test('members of three domains go on when the node that orders their commits is gone', async () => {
  await using stack = new AsyncDisposableStack();
  const network = memoryNetwork(testRuntime);
  const directory = mkdtempSync(join(tmpdir(), 'qpc-hubs-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const nodes: LocalNode[] = [];
  for (const domain of domains) nodes.push(stack.use(await LocalNode.create(network, domain)));
  for (const node of nodes) await node.start(nodes.filter((one) => one !== node));
  const clock = new JumpClock();
  const people: RigClient[] = [];
  for (const [index, name] of ['alice', 'bob', 'carol'].entries()) {
    const node = nodes[index];
    assert(node !== undefined);
    const one = new RigClient(`${name}@${node.domain}`, node, directory, clock);
    stack.defer(() => one.close());
    await one.open();
    await one.register();
    await one.start();
    people.push(one);
  }
  const [alice, bob, carol] = people;
  const [red] = nodes;
  assert(alice !== undefined && bob !== undefined && carol !== undefined && red !== undefined);
  const id = await alice.client.createConversation({
    name: 'three',
    members: [bob.userId, carol.userId],
  });
  await bob.joined();
  await carol.joined();
  await alice.client.setRole(id, bob.userId, 'owner');
  await bob.events.first(({ type }) => type === 'roleChanged', 'bob to be an owner');

  await red.node?.stop();
  const renamed = bob.client.updateMetadata(id, { name: 'two are enough' });
  let isDone = false;
  renamed.then(
    () => (isDone = true),
    () => undefined,
  );
  while (!isDone) {
    clock.jump(5_000);
    await testRuntime.clock.sleep(50);
  }
  await inTime(renamed, 'the other hubs to take over');
  await carol.events.first(({ type }) => type === 'renamed', 'carol to hear it');
  await bob.client.send(id, 'still here');
  assert.deepEqual(await carol.texts(1), ['still here']);
  await carol.close();
  using store = openStore(carol.storePath, carol.storeKey);
  const head = store.groupLog.head(id);
  assert(head !== undefined);
  const { entry } = fromBinary(GroupControlSchema, head.control);
  const signers = entry?.signatures.map(({ domain }) => domain) ?? [];
  assert.deepEqual([...signers].sort(), ['blue.example', 'green.example']);
});
