/**
 * Clients of real nodes that lie about keys: they hand out others than their log shows, hide a
 * version from the log, or show the log of two histories. The client refuses with the reason, keeps
 * what it knew, and says so (docs/developer/verification.md).
 */
import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { openNodeStore, type NodeStore } from '@quicprochat/nodes';
import {
  firstManifest,
  hasReason,
  signingKeyFromSeed,
  systemRandom,
  type QpcError,
} from '@quicprochat/proto';
import { VerificationError } from '@quicprochat/kt-log/verify';
import { testRuntime, type LocalNode } from '../cluster/local-node.ts';
import { lying } from '../cluster/lying.ts';
import { inTime, Rig, type RigClient } from './rig.ts';

/** Starts the node anew, on what `change` makes of its store. */
async function restartOn(
  node: LocalNode,
  peers: readonly LocalNode[],
  change: (store: NodeStore) => NodeStore,
): Promise<void> {
  await node.node?.stop();
  assert(node.store !== undefined);
  node.store = change(node.store);
  await node.start(peers);
}

/** Stops the node, lets `work` at its closed database, and starts it again. */
async function whileStopped(node: LocalNode, work: (path: string) => void): Promise<void> {
  const { databasePath: path, store: limits } = node.config;
  await node.node?.stop();
  await node.store?.[Symbol.asyncDispose]();
  work(path);
  node.store = await openNodeStore({ path, key: node.key, limits, runtime: testRuntime });
  await node.start();
}

async function refusal(work: Promise<unknown>): Promise<QpcError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert(hasReason(error, ...[(error as QpcError | undefined)?.reason ?? '']), String(error));
  return error;
}

async function alarm(client: RigClient): Promise<string> {
  const event = await client.events.first(({ type }) => type === 'logAlarm', 'an alarm');
  assert(event.type === 'logAlarm');
  return event.reason;
}

async function online(client: RigClient): Promise<void> {
  await inTime(client.client.online(), `${client.userId} to be online`);
}

describe('a node', { timeout: 120_000 }, () => {
  test('that hands out keys of its own making is refused, also at the other end of a link', async () => {
    await using rig = await Rig.make();
    const { red, blue } = rig;
    const alice = await rig.client('alice@red.example');
    const bob = await rig.client('bob@blue.example');
    const { store } = blue;
    assert(store !== undefined);
    const [mallory, device] = [systemRandom.bytes(32), systemRandom.bytes(32)];
    const swapped = firstManifest(
      bob.userId,
      signingKeyFromSeed(mallory),
      signingKeyFromSeed(device).publicKey,
      1,
    );
    await restartOn(blue, [red], (honest) =>
      lying(honest, {
        claimKeyPackages: async (claim) => {
          const claimed = await honest.claimKeyPackages(claim);
          return claimed === undefined ? undefined : { ...claimed, manifest: swapped };
        },
      }),
    );
    const creating = (): Promise<unknown> =>
      alice.client.createConversation({ name: 'trap', members: [bob.userId] });
    const first = await refusal(inTime(creating(), 'the refusal'));
    assert.equal(first.reason, 'NOT_IN_LOG', first.message);
    assert.match(first.message, /^bob@blue\.example: the node served keys that the log does not/);
    assert.equal(await alarm(alice), 'NOT_IN_LOG');
    // Now that the real keys are known, it is refused without asking the log once more.
    assert.notEqual(alice.client.contact(bob.userId), undefined);
    assert.equal((await refusal(creating())).reason, 'NOT_IN_LOG');
    assert.deepEqual(alice.client.conversations(), []);
  });

  test('that hides a version of a person is refused, and what was known stays', async () => {
    await using rig = await Rig.make();
    const { red, blue } = rig;
    const alice = await rig.client('alice@red.example');
    const carol = await rig.client('carol@red.example');
    await alice.client.lookUp(carol.userId);
    const password = new TextEncoder().encode('correct horse battery');
    await carol.client.rotateAccountKey({ password });
    assert.equal((await alice.client.lookUp(carol.userId)).version, 1);
    const before = alice.client.contact(carol.userId);
    const label = Buffer.from(carol.userId);
    await restartOn(red, [blue], (honest) => {
      const { keyLog } = honest;
      const hiding = lying(keyLog, {
        positions: async (asked) => {
          const positions = await keyLog.positions(asked);
          return Buffer.compare(asked, label) === 0 ? positions.slice(0, 1) : positions;
        },
      });
      return lying(honest, { keyLog: hiding });
    });
    await online(alice);
    const error = await refusal(alice.client.lookUp(carol.userId));
    assert(error instanceof VerificationError, String(error));
    const after = alice.client.contact(carol.userId);
    assert.deepEqual([after?.version, after?.accountKey], [1, before?.accountKey]);
    assert.equal(await alarm(alice), error.reason);
  });

  test('whose log has two histories is refused by who saw the other one', async () => {
    await using rig = await Rig.make();
    const { red } = rig;
    const alice = await rig.client('alice@red.example');
    await whileStopped(red, (path) => copyFileSync(path, `${path}.copy`));
    await online(alice);
    const carol = await rig.client('carol@red.example');
    await alice.client.lookUp(carol.userId);
    const seen = alice.client.logs().find(({ domain }) => domain === 'red.example')?.size ?? 0;
    await whileStopped(red, (path) => copyFileSync(`${path}.copy`, path));
    // Others only ever saw this history.
    for (const name of ['dave', 'erin', 'frank']) await rig.client(`${name}@red.example`);
    await online(alice);
    const error = await refusal(alice.client.lookUp('dave@red.example'));
    // Looking after its own keys, the client may have found the contradiction before it was asked.
    const reason = await alarm(alice);
    assert.ok([reason, 'LOG_CONVICTED'].includes(error.reason), String(error));
    assert.equal(alice.client.contact('dave@red.example'), undefined);
    const [log] = alice.client.logs();
    assert(log !== undefined && log.size >= seen);
    assert(alice.client.keyEvents().some(({ type }) => type.startsWith('log ')));
  });
});
