/** Durable sends (docs/protocol/delivery.md) against a node that fails in every way it may. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { openStore } from '@quicprochat/client-lib/store';
import {
  FailedPreconditionError,
  hasReason,
  InternalError,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  messageTag,
  signDeliveryProof,
  signingKeyFromSeed,
  UnavailableError,
} from '@quicprochat/proto';
import { makeScene, nameOf, storeKey, targetOf } from './scene.ts';
import type { Script, ScriptedNode } from './scripted-node.ts';

const hourMs = 3_600_000;

/** One SEALED row per entry, to that target. */
const sceneOf = (targets: readonly number[], script: Script): ReturnType<typeof makeScene> =>
  makeScene({ targets, script });

/** Indexes of the rows that each target got, in order. */
function storedIndexes(node: ScriptedNode, target: number): number[] {
  return (node.stored.get(nameOf(target)) ?? []).map(({ mid }) =>
    new DataView(mid.buffer, mid.byteOffset).getUint32(0),
  );
}

function indexesOf(targets: readonly number[], target: number): number[] {
  return targets.flatMap((one, index) => (one === target ? [index] : []));
}

const faults = {
  none: () => undefined,
  draining: () => new UnavailableError('DRAINING', 'soon back'),
  rate: () => new ResourceExhaustedError('RATE_LIMITED', 'slower', { retryAfterMs: 700 }),
  internal: () => new InternalError('oops'),
  lost: () => 'lostAnswer' as const,
};

describe('the outbox', () => {
  for (const takesBatches of [false, true]) {
    const how = takesBatches ? 'in batches' : 'by single calls';
    test(`sends every row once and in order per device, whatever fails on the way, ${how}`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.nat(4), { minLength: 1, maxLength: 50 }),
          fc.infiniteStream(
            fc.oneof(
              { weight: 4, arbitrary: fc.constant('none' as const) },
              { weight: 1, arbitrary: fc.constantFrom('draining', 'rate', 'internal', 'lost') },
            ),
          ),
          async (targets, stream) => {
            const script: Script = async () => {
              const fault = stream.next().value as keyof typeof faults;
              return faults[fault]() ?? 'stored';
            };
            await using scene = await makeScene({ targets, script, takesBatches });
            await using client = await scene.open();
            client.start();
            await scene.drain(client);
            for (const target of new Set(targets)) {
              assert.deepEqual(storedIndexes(scene.node, target), indexesOf(targets, target));
            }
            assert.equal(scene.node.inFlightMax.perTarget, 1);
          },
        ),
        { numRuns: takesBatches ? 15 : 25 },
      );
    });
  }

  test('takes what goes to many devices along in one call, and what is refused to none', async () => {
    const targets = Array.from({ length: 100 }, (_, n) => n);
    await using scene = await makeScene({
      targets: [...targets, ...targets],
      takesBatches: true,
      script: async ({ rid }) =>
        rid[0] === 7 ? new NotFoundError('UNKNOWN_DEVICE', 'gone') : 'stored',
    });
    await using client = await scene.open();
    const events = client.events();
    client.start();
    await scene.drain(client);
    // Each payload here is another one, so that a batch is full with 64 of them.
    assert.deepEqual(scene.node.batches.slice(0, 3), [64, 36, 64]);
    assert.equal(scene.node.calls.length, 200);
    assert.equal(scene.node.stored.size, 99);
    assert.equal(scene.node.inFlightMax.perTarget, 1);
    await client.close();
    let failed = 0;
    for await (const event of events) if (event.type === 'sendFailed') failed += 1;
    assert.equal(failed, 2);
  });

  test('takes more of a backlog for one device along each time, and less after a refusal', async () => {
    const targets = Array.from({ length: 200 }, () => 0);
    const full = new UnavailableError('STORE_FULL', 'not now');
    let refusals = 1;
    await using scene = await makeScene({
      targets,
      takesBatches: true,
      // The first time that it comes; it stands in the middle of a batch.
      script: async ({ mid }) => (mid[3] === 80 && (refusals -= 1) >= 0 ? full : 'stored'),
    });
    await using client = await scene.open();
    client.start();
    await scene.drain(client);
    // The first copy after each start goes alone, by Enqueue.
    assert.deepEqual(scene.node.batches, [2, 4, 8, 16, 32, 32, 2, 4, 8, 16, 32, 32, 25]);
    assert.deepEqual(storedIndexes(scene.node, 0), indexesOf(targets, 0));
    assert.equal(scene.node.calls.length, 201);
  });

  test('an OK without the signature of the node is none', async () => {
    let isHonest = false;
    await using scene = await makeScene({
      targets: [0],
      overrides: {
        enqueue: async ({ mid, payload, rid, domain }) => {
          const target = { rid, domain };
          const statement = { mid, tag: messageTag(mid, payload), target, receivedMs: 1 };
          const stranger = signingKeyFromSeed(new Uint8Array(32).fill(9));
          if (!isHonest) {
            const proof = signDeliveryProof(statement, stranger);
            return { outcome: 1, receivedMs: 1n, proof };
          }
          return { outcome: 2, receivedMs: 1n, proof: scene.node.sign(statement) };
        },
      },
    });
    await using client = await scene.open();
    const events = client.events();
    client.start();
    await scene.clock.advance(60_000);
    isHonest = true;
    await scene.drain(client);
    await client.close();
    const told: string[] = [];
    for await (const event of events) {
      if (event.type === 'unproven') told.push(event.reason);
    }
    assert.deepEqual(told, ['BAD_PROOF']);
  });

  test('sends to at most 32 devices at once', async () => {
    const targets = Array.from({ length: 80 }, (_, n) => n);
    const gate = Promise.withResolvers<void>();
    await using scene = await sceneOf(targets, async () => {
      await gate.promise;
      return 'stored';
    });
    await using client = await scene.open();
    client.start();
    await scene.clock.advance(10);
    assert.equal(scene.node.calls.length, 32);
    gate.resolve();
    await scene.drain(client);
    assert.equal(scene.node.stored.size, 80);
    assert.equal(scene.node.inFlightMax.all, 32);
  });

  test('many devices that cannot be reached hold nobody up', async () => {
    const targets = Array.from({ length: 40 }, (_, n) => n);
    await using scene = await sceneOf(targets, async ({ mid }) =>
      mid[3] === 39 ? 'stored' : new UnavailableError('STORE_FULL', 'not now'),
    );
    await using client = await scene.open();
    client.start();
    await scene.clock.advance(10_000);
    assert.deepEqual(storedIndexes(scene.node, 39), [39]);
    assert.equal(scene.node.stored.size, 1);
    assert.ok(scene.node.inFlightMax.all <= 32);
  });

  test('waits as long as a rate limit says, with all devices', async () => {
    const retryAfterMs = 60_000;
    let isFirst = true;
    await using scene = await sceneOf([0, 0, 0], async () => {
      if (!isFirst) return 'stored';
      isFirst = false;
      return new ResourceExhaustedError('RATE_LIMITED', 'slower', { retryAfterMs });
    });
    await using client = await scene.open();
    client.start();
    await scene.clock.advance(retryAfterMs - 1);
    assert.equal(scene.node.calls.length, 1);
    await scene.drain(client);
    assert.deepEqual(storedIndexes(scene.node, 0), [0, 1, 2]);
  });

  test('gives a row up when the node refuses it for good, says so, and goes on', async () => {
    const refusals = [
      new NotFoundError('UNKNOWN_DEVICE', 'no such device'),
      new PermissionDeniedError('PEER_DENIED', 'no peer'),
      new FailedPreconditionError('FEATURE_OFF', 'off'),
    ];
    for (const refusal of refusals) {
      await using scene = await sceneOf([0, 0, 1], async ({ mid }) =>
        mid[3] === 0 ? refusal : 'stored',
      );
      await using client = await scene.open();
      const events = client.events();
      client.start();
      await scene.drain(client);
      assert.deepEqual(storedIndexes(scene.node, 0), [1]);
      assert.deepEqual(storedIndexes(scene.node, 1), [2]);
      for await (const event of events) {
        if (event.type !== 'sendFailed') continue;
        assert.deepEqual([event.reason, event.rid], [refusal.reason, targetOf(0)]);
        break;
      }
      await client.close();
      using store = openStore(scene.path, storeKey);
      assert.deepEqual(
        store.outbox.failures().map(({ failure }) => failure),
        [refusal.reason],
      );
    }
  });

  test('gives a row up that the node cannot take eight times, so that the next ones go', async () => {
    await using scene = await sceneOf([0, 0], async ({ mid }) =>
      mid[3] === 0 ? new InternalError('poison') : 'stored',
    );
    await using client = await scene.open();
    client.start();
    await scene.drain(client);
    assert.deepEqual(storedIndexes(scene.node, 0), [1]);
    assert.equal(scene.node.calls.length, 9);
  });

  test('goes on where it was after a restart of the client, with the same bytes', async () => {
    let left = 3;
    const scene = await sceneOf([0, 0, 0, 0, 0], async () => {
      left -= 1;
      return left >= 0 ? 'stored' : new UnavailableError('DRAINING', 'later');
    });
    await using _scene = scene;
    {
      await using client = await scene.open();
      client.start();
      await scene.clock.runUntil(() => left < -1, hourMs);
    }
    left = 100;
    await using client = await scene.open();
    client.start();
    await scene.drain(client);
    assert.deepEqual(storedIndexes(scene.node, 0), [0, 1, 2, 3, 4]);
    for (const call of scene.node.calls) {
      const index = call.mid[3] ?? 0;
      assert.deepEqual(call.payload, Uint8Array.of(index));
    }
  });

  test('sends again what another store of the node had accepted', async () => {
    await using scene = await sceneOf([0, 1], async () => 'stored');
    await using client = await scene.open();
    client.start();
    await scene.drain(client);
    assert.equal(scene.node.calls.length, 2);
    scene.node.storeId = new Uint8Array(8).fill(2);
    await scene.node.disconnect();
    assert(await scene.clock.runUntil(() => scene.node.calls.length === 4, hourMs));
    const mids = scene.node.calls.map(({ mid }) => mid[3]);
    assert.deepEqual(new Set(mids.slice(2)), new Set(mids.slice(0, 2)));
    await scene.drain(client);
    // And not once more for the same store.
    await scene.node.disconnect();
    await scene.clock.advance(hourMs);
    assert.equal(scene.node.calls.length, 4);
  });

  test('leaves nothing running when the client closes, wherever a send stands', async () => {
    const faults: Record<string, Script> = {
      'in flight': () => new Promise(() => undefined),
      'in back-off': async () => new UnavailableError('DRAINING', 'soon back'),
      'in a pause': async () =>
        new ResourceExhaustedError('RATE_LIMITED', 'slower', { retryAfterMs: 700 }),
      'with an OK that is not written down': async () => 'stored',
    };
    for (const [where, script] of Object.entries(faults)) {
      const targets = Array.from({ length: 40 }, (_, n) => n);
      await using scene = await sceneOf(targets, script);
      const client = await scene.open();
      client.start();
      assert(await scene.clock.runUntil(() => scene.node.calls.length > 0, hourMs), where);
      const unhandled: unknown[] = [];
      const note = (error: unknown): void => void unhandled.push(error);
      process.on('unhandledRejection', note);
      await client.close();
      await scene.clock.advance(hourMs);
      process.off('unhandledRejection', note);
      assert.deepEqual(unhandled, [], where);
    }
  });

  test('keeps nobody waiting who waited when the client closed', async () => {
    await using scene = await sceneOf([0], () => new Promise(() => undefined));
    const client = await scene.open();
    client.start();
    assert(await scene.clock.runUntil(() => scene.node.calls.length > 0, hourMs));
    const flushed = client.flush();
    await scene.node[Symbol.asyncDispose]();
    await scene.clock.advance(1_000);
    const online = client.online();
    const created = client.createConversation({ name: 'late', members: ['bob@red.example'] });
    const closed = [flushed, online, created].map((one) =>
      assert.rejects(one, (error) => hasReason(error, 'CLOSED')),
    );
    await client.close();
    await Promise.all(closed);
  });
});
