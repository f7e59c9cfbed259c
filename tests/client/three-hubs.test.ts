/** A conversation over three domains has three hubs: one of them may go, and changes go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openStore } from '@quicprochat/client-lib/store';
import { fromBinary, GroupControlSchema } from '@quicprochat/proto/messages';
import { testRuntime } from '../cluster/local-node.ts';
import { JumpClock } from '../resend/jump-clock.ts';
import { inTime } from './rig.ts';
import { threeNodes } from './three-nodes.ts';

test('members of three domains go on when the node that orders their commits is gone', async () => {
  await using stack = new AsyncDisposableStack();
  const clock = new JumpClock();
  const names = ['alice', 'bob', 'carol'] as const;
  const { nodes, people } = await threeNodes(stack, names, { clock });
  const [alice, bob, carol] = people;
  const [red] = nodes;
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
