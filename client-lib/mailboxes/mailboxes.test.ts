/**
 * Which nodes keep mailboxes of this device: one that keeps none is given up, one that is away is not, and each is asked
 * when it is time. The node is told what to answer.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import {
  FailedPreconditionError,
  methods,
  NotFoundError,
  PermissionDeniedError,
  UnavailableError,
  type Clock,
} from '@quicprochat/proto';
import type { Session } from '../session.ts';
import { mailboxLog } from '../store/mailbox-rows.ts';
import type { TestDevice } from '../test-devices.ts';
import { testRuntime } from '../test-runtime.ts';
import { mailboxLimits } from './mailboxes.ts';
import { green, MailboxScene, until, type LyingNode } from './test-mailbox.ts';

const { random, clock } = testRuntime;
let scene: MailboxScene;
let bob: TestDevice;
let node: LyingNode;

beforeEach(async () => {
  scene = await MailboxScene.make();
  ({ bob, node } = scene);
});
afterEach(() => scene.stop());

test('a node that keeps it no longer is given up at once, one that is away is not', async () => {
  node.failing = {
    id: methods.requestMailbox.id,
    error: new UnavailableError('DRAINING', 'stops'),
  };
  const kept = scene.keeping();
  const { mailboxes, told } = kept;
  await until(() => node.visits === 1);
  await clock.sleep(5);
  assert.deepEqual([told, mailboxes.domains], [[[green]], [green]]);
  node.failing = { id: 0, error: new NotFoundError('UNKNOWN_DEVICE', '') };
  mailboxes.networkChanged();
  await until(() => node.visits === 2);
  const off = new FailedPreconditionError('FEATURE_OFF', 'no mailboxes any more');
  node.failing = { id: methods.requestMailbox.id, error: off };
  await clock.sleep(20);
  mailboxes.networkChanged();
  await until(() => told.length === 2);
  assert.deepEqual([told[1], bob.store.mailboxes.own(), kept.renewals], [[], [], 0]);
  // Named again by the own node, it is not asked again soon.
  const session = { signal: new AbortController().signal } as Session;
  mailboxes.offered([green, 'blue.example'], session);
  await clock.sleep(20);
  assert.equal(node.visits, 3);
  assert.equal(mailboxes.isSettling, false);
});

test('a credential that says nothing to the node is made anew: it may be older than the node’s word', async () => {
  const blocked = new PermissionDeniedError('BLOCKED', 'of no user whom it can verify');
  node.failing = { id: methods.requestMailbox.id, error: blocked };
  const kept = scene.keeping();
  await until(() => kept.renewals > 0);
  assert.deepEqual([kept.renewals, node.visits], [1, 1]);
});

test('nobody keeps one for ever: a node that says so is believed for a month', async () => {
  node.lifetimeMs = BigInt(Number.MAX_SAFE_INTEGER);
  scene.keeping();
  const expiresMs = () => bob.store.mailboxes.own()[0]?.expiresMs ?? 0;
  await until(() => node.visits === 1 && bob.store.inbox.cursor(mailboxLog(green)) !== undefined);
  assert(expiresMs() <= clock.now() + mailboxLimits.lifetimeMaxMs);
});

test('a new token is told at once: whoever was blocked goes on by none', async () => {
  const { mailboxes } = scene.keeping();
  await until(() => node.visits === 1 && bob.store.inbox.cursor(mailboxLog(green)) !== undefined);
  await clock.sleep(20);
  const before = node.asked?.tokenHashes;
  const { tokens } = bob.store;
  bob.store.transaction(() => {
    tokens.putOwn(random.bytes(16), clock.now());
    tokens.markAtNode(tokens.own()?.id ?? 0);
  });
  mailboxes.look();
  await until(() => node.visits === 2 && node.asked?.tokenHashes !== before);
  assert.notDeepEqual(node.asked?.tokenHashes, before);
});

test('a timer that fires a moment early delays a node’s next question by no round', async () => {
  const timers: { readonly ms: number; readonly fire: () => void }[] = [];
  let nowMs = 1_000;
  const stepping: Clock = {
    now: () => clock.now(),
    // Each look at it takes a little, so that a rest ends between two of them.
    monotonic: () => (nowMs += 0.2),
    sleep: (ms, signal) => clock.sleep(ms, signal),
    timer: (ms, fire) => {
      timers.push({ ms, fire });
      return { cancel: () => undefined };
    },
  };
  const mailboxes = scene.mailboxes({ runtime: { ...testRuntime, clock: stepping } });
  let asked = 0;
  const session = {
    signal: new AbortController().signal,
    call: async () => {
      asked += 1;
      throw new UnavailableError('PEER_UNREACHABLE', 'nobody knows it yet');
    },
  } as unknown as Session;
  mailboxes.offered([green], session);
  for (let round = 1; round <= 5; round += 1) {
    await until(() => asked === round && timers.length > 0);
    // Whatever of the round's own time is left, and less by what timers are early.
    for (let last = timers.splice(0).at(-1); last !== undefined; last = timers.splice(0).at(-1)) {
      assert(last.ms <= 1_000 * 2 ** round + 1, `${last.ms} ms until it is asked again`);
      nowMs += Math.max(0, last.ms - 0.3);
      const before = asked;
      last.fire();
      await clock.sleep(5);
      if (asked > before) break;
    }
  }
});
