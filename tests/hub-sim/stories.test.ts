/** Single stories of a hub of three, on simulated time: no majority, and a death at every single step. */
import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import { entryHash, type ParsedEntry } from '@quicprochat/proto';
import {
  create,
  GroupTakeoverRequestSchema,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { creator, domains, HubCluster, makeStarts, type ClusterOptions } from './cluster.ts';
import type { HubStart, SimHub } from './hub.ts';

const [redName = '', greenName = '', blueName = ''] = domains;
const unavailable = { name: 'UnavailableError', reason: 'HUB_UNAVAILABLE' };
const member = { fromHub: false };

suite('a hub of three in simulated time', () => {
  let starts: readonly HubStart[];
  before(async () => {
    starts = await makeStarts();
  });

  /** Three hubs with a group that all of them know. */
  async function begin(options: Partial<ClusterOptions> = {}) {
    const cluster = new HubCluster({
      ...{ starts, seed: 1, faults: { lost: 0, twice: 0 } },
      dies: () => false,
      onDeath: () => {},
      ...options,
    });
    for (const hub of cluster.hubs) await cluster.finish(hub.start());
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const entry = cluster.group.sign(undefined);
    await cluster.finish(setOf(red).create(entry, domains, creator));
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    const [first] = cluster.observer.accepted;
    assert.ok(first !== undefined);
    return { cluster, red, green, blue, first };
  }

  const lifeOf = ({ life }: SimHub) => {
    assert.ok(life !== undefined, 'the hub is down');
    return life;
  };
  const setOf = (hub: SimHub) => lifeOf(hub).set;
  const storeOf = (hub: SimHub) => lifeOf(hub).store;
  const cutOff = (cluster: HubCluster, name: string): void => {
    for (const other of domains) {
      cluster.wire.cut(name, other);
      cluster.wire.cut(other, name);
    }
  };
  const takeover = (cluster: HubCluster, submit?: SubmitCommitRequest) =>
    create(GroupTakeoverRequestSchema, {
      group: cluster.group.groupId,
      ...(submit && { submit }),
    });
  const hashOf = ({ entry }: SubmitCommitRequest): Uint8Array =>
    entryHash(entry?.entry ?? new Uint8Array(0));
  const same = (a: Uint8Array | undefined, b: Uint8Array): boolean =>
    Buffer.compare(a ?? new Uint8Array(0), b) === 0;

  /** All hubs show the same log, and it goes on. */
  async function agree(cluster: HubCluster, newest: ParsedEntry, hub: SimHub): Promise<void> {
    await cluster.finish(setOf(hub).submit(cluster.newCommit(newest), member));
    await cluster.scheduler.run(cluster.scheduler.nowMs + 60_000);
    const { accepted, violations } = cluster.observer;
    for (const one of cluster.hubs) {
      const controls = await cluster.finish(cluster.readLog(one));
      cluster.observer.checkLog(one, controls);
      assert.equal(controls.length, accepted.length, one.domain);
    }
    assert.deepEqual(violations, []);
  }

  test('without a majority the outcome is open, is told, and comes by itself', async () => {
    const { cluster, red, first } = await begin();
    using _ = cluster;
    cutOff(cluster, redName);
    const request = cluster.newCommit(first);
    const beganMs = cluster.scheduler.nowMs;
    await assert.rejects(cluster.finish(setOf(red).submit(request, member)), unavailable);
    const waitedMs = cluster.scheduler.nowMs - beganMs;
    assert.ok(waitedMs >= 5_000 && waitedMs < 5_200, `${waitedMs} ms`);
    const page = await cluster.finish(
      storeOf(red).groupLog(cluster.group.groupId, hashOf(request), 9),
    );
    assert.deepEqual([page.prepared, page.controls.length], [hashOf(request), 1]);
    // One at a time: another commit has to wait for that one.
    const rival = cluster.newCommit(first);
    await assert.rejects(cluster.finish(setOf(red).submit(rival, member)), unavailable);
    cluster.wire.healAll();
    await cluster.scheduler.run(cluster.scheduler.nowMs + 30_000);
    assert.ok(same(cluster.observer.accepted.at(-1)?.hash, hashOf(request)), 'nobody asked again');
    const again = await cluster.finish(setOf(red).submit(request, member));
    assert.ok(same(entryHash(again?.entry?.entry ?? new Uint8Array(0)), hashOf(request)));
    await assert.rejects(cluster.finish(setOf(red).submit(rival, member)), {
      reason: 'EPOCH_CONFLICT',
    });
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined);
    await agree(cluster, newest, red);
  });

  test('what an old leader wrote down alone gives way, and it follows', async () => {
    const { cluster, red, green, first } = await begin();
    using _ = cluster;
    cutOff(cluster, redName);
    const lonely = cluster.newCommit(first);
    await assert.rejects(cluster.finish(setOf(red).submit(lonely, member)), unavailable);
    const other = cluster.newCommit(first);
    const taken = await cluster.finish(setOf(green).takeover(takeover(cluster, other), member));
    assert.equal(taken.leader, greenName);
    cluster.wire.healAll();
    // It is refused by its next question, and says what the others decided.
    await assert.rejects(cluster.finish(setOf(red).submit(lonely, member)), {
      reason: 'EPOCH_CONFLICT',
    });
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined && same(newest.hash, hashOf(other)));
    await agree(cluster, newest, red);
  });

  test('a minority cannot take over, and a member that asks for it changes nothing', async () => {
    const { cluster, red, green, blue, first } = await begin();
    using _ = cluster;
    cutOff(cluster, blueName);
    for (let count = 0; count < 3; count += 1) {
      await assert.rejects(
        cluster.finish(setOf(blue).takeover(takeover(cluster), member)),
        unavailable,
      );
    }
    await cluster.finish(setOf(red).submit(cluster.newCommit(first), member));
    cluster.wire.healAll();
    const kept = await cluster.finish(setOf(green).takeover(takeover(cluster), member));
    assert.deepEqual([kept.leader, kept.term], [redName, 0n]);
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined);
    await agree(cluster, newest, green);
  });

  test("a leader that knows the group no more stands in nobody's way", async () => {
    const { cluster, red, green, blue, first } = await begin();
    using _ = cluster;
    // Its backup is older than the group.
    red.restore();
    cluster.observer.forget(red);
    await cluster.finish(red.start());
    const request = cluster.newCommit(first);
    await assert.rejects(cluster.finish(setOf(blue).submit(request, member)), unavailable);
    const taken = await cluster.finish(setOf(green).takeover(takeover(cluster, request), member));
    assert.equal(taken.leader, greenName);
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined && same(newest.hash, hashOf(request)));
    await agree(cluster, newest, blue);
  });

  for (const name of [redName, greenName]) {
    test(`${name} dies at every step of a commit, one after the other`, async (context) => {
      let deaths = 0;
      for (let step = 0; ; step += 1) {
        let left = Number.POSITIVE_INFINITY;
        const { cluster, red, green, blue, first } = await begin({
          seed: step,
          dies: (hub) => hub.domain === name && left-- === 0,
        });
        using _ = cluster;
        left = step;
        const request = cluster.newCommit(first);
        const submitted = setOf(red).submit(request, member);
        submitted.catch(() => undefined);
        await cluster.scheduler.run(cluster.scheduler.nowMs + 20_000);
        left = Number.POSITIVE_INFINITY;
        const isDead = cluster.hubs.some(({ life }) => life === undefined);
        // Its members go on at the next hub, with the same bytes.
        const submit = takeover(cluster, request);
        await cluster.finish(setOf(blue).takeover(submit, member));
        const newest = cluster.observer.accepted.at(-1);
        assert.ok(newest !== undefined && same(newest.hash, hashOf(request)), `step ${step}`);
        assert.equal(cluster.observer.accepted.length, 2, `step ${step}`);
        for (const hub of [red, green])
          if (hub.life === undefined) await cluster.finish(hub.start());
        await agree(cluster, newest, blue);
        if (!isDead) break;
        deaths += 1;
      }
      context.diagnostic(`${deaths} steps`);
      assert.ok(deaths >= 4, `${deaths} steps`);
    });
  }
});
