/** A mailbox that its device gives back, at a node that helps and at one that does not. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import {
  FailedPreconditionError,
  methods,
  NotFoundError,
  TransportError,
} from '@quicprochat/proto';
import type { Session } from '../session.ts';
import type { TestDevice } from '../test-devices.ts';
import { testRuntime } from '../test-runtime.ts';
import { OwnMailboxes } from './own-mailboxes.ts';
import { green, MailboxScene, numbered, until, type LyingNode } from './test-mailbox.ts';

const { random, clock } = testRuntime;
let scene: MailboxScene;
let bob: TestDevice;
let id: Uint8Array;
let node: LyingNode;

beforeEach(async () => {
  scene = await MailboxScene.make();
  ({ bob, id, node } = scene);
});
afterEach(() => scene.stop());

test('one that is given back is emptied, deleted, named to nobody, and not asked for again', async () => {
  const { mailboxes, told } = scene.keeping();
  const own = new OwnMailboxes({
    ...{ ...scene.parts(), credential: () => random.bytes(9) },
    onLeaving: (domain) => mailboxes.leave(domain),
  });
  await until(() => told.length === 1);
  assert.deepEqual(
    own.list().map(({ domain }) => domain),
    [green],
  );
  const never = new AbortController().signal;
  await assert.rejects(own.giveBack('grey.example', never), { reason: 'UNKNOWN_DEVICE' });
  // A node that is away has it still, and so has this device.
  const away = new TransportError('unreachable', 'nobody there');
  node.failing = { id: methods.requestMailbox.id, error: away };
  await assert.rejects(own.giveBack(green, never), { reason: 'DISCONNECTED' });
  assert.equal(own.list().length, 1);
  node.failing = undefined;
  node.rows = numbered(await scene.sent('last'));
  await own.giveBack(green, never);
  assert.deepEqual(
    [bob.history(id).map(({ text }) => text), scene.cursor()],
    [['last'], undefined],
  );
  assert.deepEqual([node.ends, node.asked?.tokenHashes], [1, []]);
  assert.deepEqual([own.list(), mailboxes.domains, told.at(-1)], [[], [], []]);
  const { visits } = node;
  const session = { signal: new AbortController().signal } as Session;
  mailboxes.offered([green], session);
  mailboxes.networkChanged();
  await clock.sleep(20);
  assert.equal(node.visits, visits);
});

test('a node that shows nothing more, or keeps none, lets a device leave all the same', async () => {
  const own = new OwnMailboxes({
    ...{ ...scene.parts(), credential: () => random.bytes(9) },
    onLeaving: () => Promise.resolve(),
  });
  const keep = (): void => bob.store.transaction(() => scene.put());
  keep();
  node.failing = { id: methods.fetch.id, error: new NotFoundError('UNKNOWN_DEVICE', '') };
  await own.giveBack(green, new AbortController().signal);
  assert.deepEqual([own.list(), node.ends], [[], 1]);
  keep();
  const off = new FailedPreconditionError('FEATURE_OFF', 'no mailboxes any more');
  node.failing = { id: methods.requestMailbox.id, error: off };
  await own.giveBack(green, new AbortController().signal);
  assert.deepEqual(own.list(), []);
});
