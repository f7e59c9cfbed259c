/** Where two or three of three hubs forgot: what has to be there before they go on, and what they go on with. */
import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import { entryHash, methods, type ParsedEntry } from '@quicprochat/proto';
import {
  create,
  fromBinary,
  GroupControlSchema,
  GroupTakeoverRequestSchema,
  SubmitCommitRequestSchema,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { creator, domains, HubCluster, makeStarts } from './cluster.ts';
import type { HubStart, SimHub } from './hub.ts';

const member = { fromHub: false };
const held = { name: 'UnavailableError', reason: 'HUB_RESTORED' };
const holdMs = 120_000;

suite('hubs of three that forgot', () => {
  let starts: readonly HubStart[];
  before(async () => {
    starts = await makeStarts();
  });

  const setOf = ({ life }: SimHub) => {
    assert.ok(life !== undefined, 'the hub is down');
    return life.set;
  };
  const pass = (cluster: HubCluster, ms: number): Promise<unknown> =>
    cluster.scheduler.run(cluster.scheduler.nowMs + ms);

  /** A group with a commit that all have, of which backups are made. */
  async function begin(dies: (hub: SimHub) => boolean = () => false) {
    const cluster = new HubCluster({
      ...{ starts, seed: 1, faults: { lost: 0, twice: 0 }, dies },
      onDeath: () => {},
    });
    for (const hub of cluster.hubs) await cluster.finish(hub.start());
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const entry = cluster.group.sign(undefined);
    await cluster.finish(setOf(red).create(entry, domains, creator));
    await pass(cluster, 1_000);
    await commit(cluster, red);
    await pass(cluster, 40_000);
    for (const hub of cluster.hubs) hub.backUp();
    return { cluster, red, green, blue };
  }

  const newest = ({ observer }: HubCluster): ParsedEntry => {
    const entry = observer.accepted.at(-1);
    assert.ok(entry !== undefined);
    return entry;
  };

  async function commit(cluster: HubCluster, hub: SimHub): Promise<SubmitCommitRequest> {
    const request = cluster.newCommit(newest(cluster));
    await cluster.finish(setOf(hub).submit(request, member));
    return request;
  }

  /** What a member has of an entry: all hubs' logs, as they are now. */
  async function copyOf(cluster: HubCluster, hub: SimHub, { entry }: SubmitCommitRequest) {
    const hash = entryHash(entry?.entry ?? new Uint8Array(0));
    const controls = await cluster.finish(cluster.readLog(hub));
    const found = controls
      .map((bytes) => fromBinary(GroupControlSchema, bytes))
      .find((one) => Buffer.compare(entryHash(one.entry?.entry?.entry ?? hash), hash) === 0);
    const { signatures = [], term = 0n } = found?.entry ?? {};
    assert.ok(signatures.length >= 2);
    const { commit: bytes = new Uint8Array(0) } = found ?? {};
    const mid = new Uint8Array(16);
    return create(SubmitCommitRequestSchema, {
      ...{ commit: bytes, mid, signatures, term },
      ...(entry && { entry }),
    });
  }

  const cutOff = (cluster: HubCluster, name: string): void => {
    for (const other of domains) {
      cluster.wire.cut(name, other);
      cluster.wire.cut(other, name);
    }
  };
  const isPrepared = async (cluster: HubCluster, { life }: SimHub): Promise<boolean> => {
    const state = await cluster.finish(
      life?.store.hubState(cluster.group.groupId) ?? assert.fail(),
    );
    return state?.prepared !== undefined || state?.position === 3;
  };
  /** The last entry of the backups. */
  const parentOf = ({ observer }: HubCluster): ParsedEntry => observer.accepted[1] ?? assert.fail();

  async function restore(cluster: HubCluster, hubs: readonly SimHub[]): Promise<void> {
    for (const hub of hubs) {
      hub.restore();
      cluster.observer.forget(hub);
    }
    for (const hub of hubs) await cluster.finish(hub.start());
  }

  const wish = (cluster: HubCluster, submit: SubmitCommitRequest) =>
    create(GroupTakeoverRequestSchema, { group: cluster.group.groupId, submit });

  /** A member asks one hub after the other until its commit is in. */
  async function comesIn(cluster: HubCluster, submit: SubmitCommitRequest): Promise<number> {
    for (let tries = 0; tries < 40; tries += 1) {
      const hub = cluster.hubs[tries % 3];
      try {
        await cluster.finish(setOf(hub ?? assert.fail()).takeover(wish(cluster, submit), member));
        return tries;
      } catch {
        await pass(cluster, 10_000);
      }
    }
    return assert.fail('it does not come in');
  }

  /** All hubs show one log, have a say, and go on. */
  async function agree(cluster: HubCluster, entries: number): Promise<void> {
    await pass(cluster, 130_000);
    await comesIn(cluster, cluster.newCommit(newest(cluster)));
    await pass(cluster, 60_000);
    for (const hub of cluster.hubs) {
      const controls = await cluster.finish(cluster.readLog(hub));
      cluster.observer.checkLog(hub, controls);
      assert.equal(controls.length, entries + 1, hub.domain);
      const state = await cluster.finish(
        hub.life?.store.hubState(cluster.group.groupId) ?? assert.fail(),
      );
      assert.equal(state?.isLearner, false, hub.domain);
    }
    assert.deepEqual(cluster.observer.violations, []);
  }

  test('not without the third: it may have the only copy of what counted, and it wins though it is only PREPARED', async () => {
    const { cluster, red, green, blue } = await begin();
    using _ = cluster;
    // red and blue: blue signs, and red dies before it accepts.
    cutOff(cluster, green.domain);
    const counted = cluster.newCommit(newest(cluster));
    const submitted = setOf(red).submit(counted, member);
    submitted.catch(() => undefined);
    for (let step = 0; step < 400 && !(await isPrepared(cluster, blue)); step += 1)
      await pass(cluster, 5);
    assert.ok(await isPrepared(cluster, blue));
    const isAccepted = cluster.observer.accepted.length === 3;
    cutOff(cluster, blue.domain);
    await restore(cluster, [red, green]);
    cluster.wire.healAll();
    cutOff(cluster, blue.domain);
    const rival = cluster.newCommit(parentOf(cluster));
    for (const hub of [red, green, red, green]) {
      await assert.rejects(cluster.finish(setOf(hub).takeover(wish(cluster, rival), member)));
      await pass(cluster, holdMs);
    }
    assert.equal(cluster.observer.accepted.length, isAccepted ? 3 : 2, 'two of them went on alone');
    cluster.wire.healAll();
    await pass(cluster, 2 * holdMs);
    await agree(cluster, 3);
    const [, , third] = cluster.observer.accepted;
    assert.deepEqual(third?.hash, entryHash(counted.entry?.entry ?? new Uint8Array(0)));
  });

  test('one that says it forgot, though two remember, drops nothing', async () => {
    const { cluster, red, green, blue } = await begin();
    using _ = cluster;
    await commit(cluster, red);
    await pass(cluster, 40_000);
    // blue lies: it asks as one whose time is over, for a term of its own, and begins it with an older log.
    const { group } = newest(cluster).entry;
    const lie = { group, term: 5n, isWanted: true, recovers: true };
    for (const hub of [red, green]) {
      const request = create(methods.fedHubPromise.request, lie);
      const word = await cluster.finish(setOf(hub).promise(blue.domain, request));
      assert.deepEqual([word.forgot, word.position], [false, 3n]);
      const old = create(methods.fedHubReplicate.request, {
        ...{ group, hubs: domains, term: 5n, position: 2n, head: newest(cluster).entry.parent },
        prepared: cluster.newCommit(parentOf(cluster)),
      });
      await assert.rejects(cluster.finish(setOf(hub).replicate(blue.domain, old)), {
        reason: 'SEQ_CONFLICT',
      });
    }
    assert.equal(cluster.observer.accepted.length, 3);
  });

  test('a wish that comes while a hub asks by itself begins the time as any other', async () => {
    const { cluster, red, green } = await begin();
    using _ = cluster;
    await commit(cluster, red);
    await pass(cluster, 40_000);
    await restore(cluster, [red, green]);
    const { entry, hash: head } = parentOf(cluster);
    // The question of a leader has a hub that forgot ask both others, as it does every minute.
    const log = { group: entry.group, hubs: domains, term: 1n, position: 2n, head };
    const request = create(methods.fedHubReplicate.request, log);
    await assert.rejects(cluster.finish(setOf(red).replicate(green.domain, request)), {
      reason: 'HUB_UNAVAILABLE',
    });
    const rival = cluster.newCommit(newest(cluster));
    await assert.rejects(cluster.finish(setOf(red).takeover(wish(cluster, rival), member)), held);
    // Nobody has to want it twice.
    await pass(cluster, holdMs + 15_000);
    for (const { domain, life } of [red, green]) {
      const state = await cluster.finish(life?.store.hubState(entry.group) ?? assert.fail());
      assert.equal(state?.isLearner, false, `${domain} waits still`);
    }
    await agree(cluster, 3);
  });

  test('a hub dies, or forgets once more, at each step of the recovery', async (context) => {
    let deaths = 0;
    for (let step = 0; step < 30; step += 5) {
      let left = Number.POSITIVE_INFINITY;
      const { cluster, red, green, blue } = await begin(
        (hub) => hub.domain !== 'blue.example' && left-- === 0,
      );
      using _ = cluster;
      const lost = await commit(cluster, red);
      await pass(cluster, 40_000);
      const copy = await copyOf(cluster, red, lost);
      await restore(cluster, [red, green, blue]);
      const rival = cluster.newCommit(newest(cluster));
      const asked = wish(cluster, rival);
      for (const hub of cluster.hubs) {
        await assert.rejects(cluster.finish(setOf(hub).takeover(asked, member)), held);
        await cluster.finish(setOf(hub).submit(copy, member));
      }
      left = step;
      await pass(cluster, holdMs + 15_000);
      left = Number.POSITIVE_INFINITY;
      const dead = cluster.hubs.filter(({ life }) => life === undefined);
      for (const hub of dead) {
        if (step % 2 === 0) await restore(cluster, [hub]);
        else await cluster.finish(hub.start());
        // Members that hear of it bring back what they have once more.
        await cluster.finish(setOf(hub).takeover(asked, member)).catch(() => undefined);
        await cluster.finish(setOf(hub).submit(copy, member)).catch(() => undefined);
      }
      await comesIn(cluster, rival);
      await agree(cluster, 4);
      if (dead.length === 0) break;
      deaths += 1;
    }
    context.diagnostic(`${deaths} deaths`);
    assert.ok(deaths >= 4, `${deaths} deaths`);
  });

  for (const count of [2, 3]) {
    test(`${count} of three go on with what members bring back, and with no less`, async () => {
      const { cluster, red, green, blue } = await begin();
      using _ = cluster;
      const lost = await commit(cluster, red);
      await pass(cluster, 40_000);
      const copy = await copyOf(cluster, red, lost);
      await restore(cluster, [red, green, blue].slice(0, count));
      const rival = cluster.newCommit(newest(cluster));
      const beganMs = cluster.scheduler.nowMs;
      await assert.rejects(
        cluster.finish(setOf(red).takeover(wish(cluster, rival), member)),
        (error: Error & { retryAfterMs?: number }) => {
          assert.deepEqual([error.name, error.retryAfterMs], [held.name, holdMs]);
          return true;
        },
      );
      const log = await cluster.finish(
        red.life?.store.groupLog(cluster.group.groupId, rival.mid, 1) ?? assert.fail(),
      );
      assert.equal(log.wantsEntries, true);
      // Only with the word of two, and what fits.
      const [one] = copy.signatures;
      const alone = create(SubmitCommitRequestSchema, { ...copy, signatures: one ? [one] : [] });
      await assert.rejects(cluster.finish(setOf(red).submit(alone, member)), {
        reason: 'BAD_SIGNATURE',
      });
      // No quota of commits is for what is brought back; that is for it, and for nothing else.
      const isBack = (hub: SimHub, request: SubmitCommitRequest): Promise<boolean> =>
        cluster.finish(setOf(hub).isBroughtBack(request));
      assert.equal(await isBack(red, copy), true);
      assert.equal(await isBack(red, alone), false);
      assert.equal(await isBack(red, { ...copy, entry: rival.entry ?? assert.fail() }), false);
      assert.equal(await isBack(blue, copy), count === 3, 'it wants nothing');
      const entry = await cluster.finish(setOf(red).submit(copy, member));
      assert.equal(entry?.term, copy.term);
      await comesIn(cluster, rival);
      assert.ok(cluster.scheduler.nowMs - beganMs >= holdMs, 'before its time');
      assert.equal(cluster.observer.accepted.length, 4);
      await agree(cluster, 4);
    });
  }
});
