/** Single stories of a hub of three, on simulated time: no majority, and a death at every single step. */
import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import {
  ConflictError,
  entryHash,
  InvalidArgumentError,
  PermissionDeniedError,
  QpcError,
  type ParsedEntry,
} from '@quicprochat/proto';
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

  async function startAll(options: Partial<ClusterOptions> = {}): Promise<HubCluster> {
    const cluster = new HubCluster({
      ...{ starts, seed: 1, faults: { lost: 0, twice: 0 } },
      dies: () => false,
      onDeath: () => {},
      ...options,
    });
    for (const hub of cluster.hubs) await cluster.finish(hub.start());
    return cluster;
  }

  /** Three hubs with a group that all of them know. */
  async function begin(options: Partial<ClusterOptions> = {}) {
    const cluster = await startAll(options);
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const entry = cluster.group.sign(undefined);
    await cluster.finish(setOf(red).create(entry, domains, creator));
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    const [first] = cluster.observer.accepted;
    assert.ok(first !== undefined);
    return { cluster, red, green, blue, first, entry };
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

  test('a leader that refuses what the others would take loses its place, and one that is right keeps it', async () => {
    const { cluster, red, green, blue, first } = await begin();
    using _ = cluster;
    const newest = () => cluster.observer.accepted.at(-1) ?? first;
    // blue has not heard of it: what red shows for its refusal is certified, so nobody takes over.
    cutOff(cluster, blueName);
    await cluster.finish(setOf(red).submit(cluster.newCommit(first), member));
    cluster.wire.healAll();
    const late = takeover(cluster, cluster.newCommit(first));
    await assert.rejects(cluster.finish(setOf(blue).takeover(late, member)), {
      reason: 'EPOCH_CONFLICT',
    });
    const { groupId } = cluster.group;
    assert.equal((await cluster.finish(storeOf(blue).hubState(groupId)))?.promised, 0);

    const lies = [
      new PermissionDeniedError('PEER_DENIED', 'not with them'),
      new InvalidArgumentError('BAD_SIGNATURE', 'entry: not by a member'),
      new ConflictError('EPOCH_CONFLICT', 'another commit won this epoch'),
    ];
    for (const lie of lies) {
      setOf(red).submit = () => Promise.reject(lie);
      const request = cluster.newCommit(newest());
      await assert.rejects(cluster.finish(setOf(green).submit(request, member)), unavailable);
    }
    // What nobody would take is refused, and changes nothing.
    const wrong = { ...cluster.newCommit(newest()), commit: new Uint8Array(60) };
    const asked = setOf(green).takeover(takeover(cluster, wrong), member);
    await assert.rejects(cluster.finish(asked), { reason: 'EPOCH_CONFLICT' });
    assert.equal((await cluster.finish(storeOf(green).hubState(groupId)))?.promised, 0);
    const wanted = cluster.newCommit(newest());
    const taken = await cluster.finish(setOf(green).takeover(takeover(cluster, wanted), member));
    assert.equal(taken.leader, greenName);
    // Honest again.
    Reflect.deleteProperty(setOf(red), 'submit');
    assert.ok(same(newest().hash, hashOf(wanted)));
    await agree(cluster, newest(), green);
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

  test('two that take over at the same time refuse nobody: one of them is asked again', async () => {
    const told = new Set<string>();
    for (let apartMs = 0; apartMs <= 60; apartMs += 2) {
      const { cluster, green, blue, first } = await begin({ seed: apartMs + 1 });
      using _ = cluster;
      cutOff(cluster, redName);
      const { scheduler } = cluster;
      const ends = [green, blue].map(async (hub, index) => {
        const submit = cluster.newCommit(first);
        if (index === 1) await new Promise<void>((go) => void scheduler.after(apartMs, go));
        return setOf(hub)
          .takeover(takeover(cluster, submit), member)
          .then(
            () => 'done',
            (error: unknown) => (error instanceof QpcError ? error.reason : String(error)),
          );
      });
      for (const end of await cluster.finish(Promise.all(ends))) told.add(end);
      assert.deepEqual(cluster.observer.violations, []);
    }
    assert.ok(told.delete('done'));
    for (const reason of told) {
      assert.ok(['HUB_UNAVAILABLE', 'EPOCH_CONFLICT'].includes(reason), reason);
    }
    assert.ok(told.has('HUB_UNAVAILABLE'), 'they never met');
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

  /** Its disk is older than the group. */
  async function forgetGroup(cluster: HubCluster, hub: SimHub): Promise<void> {
    hub.restore();
    cluster.observer.forget(hub);
    await cluster.finish(hub.start());
  }

  test('a first hub that forgot the group does not begin it anew with who heard of entry 0 alone', async () => {
    const { cluster, red, green, first, entry } = await begin();
    using _ = cluster;
    cutOff(cluster, greenName);
    await cluster.finish(setOf(red).submit(cluster.newCommit(first), member));
    await forgetGroup(cluster, red);
    cluster.wire.healAll();
    cutOff(cluster, blueName);
    // A creator that lies, and its friend at the hub that missed the commit.
    const anew = () => cluster.finish(setOf(red).create(entry, domains, creator));
    const rival = cluster.newCommit(first);
    await assert.rejects(anew(), unavailable);
    await assert.rejects(cluster.finish(setOf(red).submit(rival, member)), unavailable);
    const brought = takeover(cluster, rival);
    await assert.rejects(cluster.finish(setOf(green).takeover(brought, member)), unavailable);
    assert.equal(cluster.observer.accepted.length, 2);
    cluster.wire.healAll();
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined);
    // The hub learns from both others, and has its say again.
    await cluster.scheduler.run(cluster.scheduler.nowMs + 120_000);
    assert.equal((await cluster.finish(anew())).wasNew, false);
    await agree(cluster, newest, red);
  });

  test('a first hub that begins anew gives no promise to who heard of entry 0 alone', async () => {
    const { cluster, red, green, first, entry } = await begin();
    using _ = cluster;
    cutOff(cluster, greenName);
    await cluster.finish(setOf(red).submit(cluster.newCommit(first), member));
    await forgetGroup(cluster, red);
    cutOff(cluster, blueName);
    // It hears of nobody's refusal, and stands at the beginning.
    await assert.rejects(cluster.finish(setOf(red).create(entry, domains, creator)), unavailable);
    cluster.wire.healAll();
    cutOff(cluster, blueName);
    const brought = takeover(cluster, cluster.newCommit(first));
    await assert.rejects(cluster.finish(setOf(green).takeover(brought, member)), unavailable);
    cluster.wire.healAll();
    const [, second] = cluster.observer.accepted;
    assert.ok(second !== undefined);
    const next = cluster.newCommit(second);
    await cluster.finish(setOf(green).takeover(takeover(cluster, next), member));
    await cluster.scheduler.run(cluster.scheduler.nowMs + 60_000);
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined && same(newest.hash, hashOf(next)));
    await agree(cluster, newest, green);
    const { isLearner } =
      (await cluster.finish(storeOf(red).hubState(cluster.group.groupId))) ?? {};
    assert.equal(isLearner, false, 'it has its say again');
  });

  test('where two forgot the group, it is silent: one that remembers is enough', async () => {
    const { cluster, red, green, blue, first, entry } = await begin();
    using _ = cluster;
    cutOff(cluster, greenName);
    await cluster.finish(setOf(red).submit(cluster.newCommit(first), member));
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    await forgetGroup(cluster, red);
    await forgetGroup(cluster, green);
    cluster.wire.healAll();
    const anew = () => cluster.finish(setOf(red).create(entry, domains, creator));
    cutOff(cluster, blueName);
    await assert.rejects(anew(), unavailable);
    cluster.wire.healAll();
    await assert.rejects(anew(), unavailable);
    assert.deepEqual(cluster.observer.violations, []);
    assert.equal((await cluster.finish(cluster.readLog(blue))).length, 2);
  });

  test('two that forgot the group do not begin it anew, nor does one of them follow who heard of entry 0 alone', async () => {
    const { cluster, red, green, blue, first, entry } = await begin();
    using _ = cluster;
    cutOff(cluster, blueName);
    await cluster.finish(setOf(red).submit(cluster.newCommit(first), member));
    await forgetGroup(cluster, red);
    await forgetGroup(cluster, green);
    cluster.wire.healAll();
    // Blue refuses it; green hears of it for the first time, for all that it knows.
    await assert.rejects(cluster.finish(setOf(red).create(entry, domains, creator)), unavailable);
    const brought = takeover(cluster, cluster.newCommit(first));
    for (const hub of [blue, green]) {
      // What blue has shows them that they forgot: they wait for members.
      await assert.rejects(cluster.finish(setOf(hub).takeover(brought, member)), {
        name: 'UnavailableError',
      });
    }
    await cluster.scheduler.run(cluster.scheduler.nowMs + 100_000);
    assert.deepEqual(cluster.observer.violations, []);
    assert.equal(cluster.observer.accepted.length, 2);
  });

  test('a first hub that dies before the others know that entry 0 counts goes on when it is back', async () => {
    let hasBegun = (): boolean => false;
    let hasDied = false;
    const cluster = await startAll({
      dies: ({ domain }) => {
        if (domain !== redName || hasDied || !hasBegun()) return false;
        hasDied = true;
        return true;
      },
    });
    using _ = cluster;
    hasBegun = () => cluster.observer.accepted.length > 0;
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const entry = cluster.group.sign(undefined);
    setOf(red)
      .create(entry, domains, creator)
      .catch(() => undefined);
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    const [first] = cluster.observer.accepted;
    assert.ok(hasDied && first !== undefined && red.life === undefined);
    const request = cluster.newCommit(first);
    const brought = takeover(cluster, request);
    await assert.rejects(cluster.finish(setOf(green).takeover(brought, member)), unavailable);
    await cluster.finish(red.start());
    await cluster.finish(setOf(green).submit(request, member));
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined && same(newest.hash, hashOf(request)));
    await agree(cluster, newest, blue);
  });

  test('who did not hear at once that entry 0 counts hears it a little later, and the first hub may go', async () => {
    let hasBegun = (): boolean => false;
    let isCut = false;
    const cluster = await startAll({
      dies: () => {
        if (isCut || !hasBegun()) return false;
        isCut = true;
        cutOff(cluster, redName);
        return false;
      },
    });
    using _ = cluster;
    hasBegun = () => cluster.observer.accepted.length > 0;
    const [red, green] = cluster.hubs;
    assert.ok(red && green);
    const entry = cluster.group.sign(undefined);
    await cluster.finish(setOf(red).create(entry, domains, creator));
    const [first] = cluster.observer.accepted;
    assert.ok(isCut && first !== undefined);
    await cluster.scheduler.run(cluster.scheduler.nowMs + 5_000);
    cluster.wire.healAll();
    await cluster.scheduler.run(cluster.scheduler.nowMs + 10_000);
    red.kill();
    const brought = takeover(cluster, cluster.newCommit(first));
    await cluster.finish(setOf(green).takeover(brought, member));
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined && newest.epoch === 1);
    await cluster.finish(red.start());
    await agree(cluster, newest, green);
  });

  test('the one hub that knows that entry 0 counts shows it to both others, where the first has lost its disk', async () => {
    let hasBegun = (): boolean => false;
    let isCut = false;
    const cluster = await startAll({
      dies: () => {
        if (isCut || !hasBegun()) return false;
        isCut = true;
        cutOff(cluster, greenName);
        return false;
      },
    });
    using _ = cluster;
    hasBegun = () => cluster.observer.accepted.length > 0;
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const entry = cluster.group.sign(undefined);
    const create = () => cluster.finish(setOf(red).create(entry, domains, creator));
    await create();
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    const ends = () =>
      Promise.all(
        cluster.hubs.map(async ({ life }) => {
          const state = await life?.store.hubState(cluster.group.groupId);
          return state?.position;
        }),
      );
    assert.deepEqual(await cluster.finish(ends()), [1, 0, 1]);
    await forgetGroup(cluster, red);
    cluster.wire.healAll();
    await assert.rejects(create(), unavailable);
    const [first] = cluster.observer.accepted;
    assert.ok(first !== undefined);
    const request = cluster.newCommit(first);
    const ask = (hub: SimHub) =>
      cluster.finish(setOf(hub).takeover(takeover(cluster, request), member));
    // Two have no say and nothing to show; the third one's question shows them that they may have forgotten.
    for (const hub of [green, red, blue]) await assert.rejects(ask(hub), unavailable);
    assert.deepEqual(await cluster.finish(ends()), [1, 1, 1]);
    const held = { name: 'UnavailableError', reason: 'HUB_RESTORED' };
    await assert.rejects(ask(green), held);
    await cluster.scheduler.run(cluster.scheduler.nowMs + 135_000);
    await ask(green);
    const newest = cluster.observer.accepted.at(-1);
    assert.ok(newest !== undefined && same(newest.hash, hashOf(request)));
    await agree(cluster, newest, blue);
  });

  test('a group begins with all three, and begins again with what both others have', async () => {
    const cluster = await startAll();
    using _ = cluster;
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const entry = cluster.group.sign(undefined);
    const create = () => cluster.finish(setOf(red).create(entry, domains, creator));
    cutOff(cluster, greenName);
    await assert.rejects(create(), unavailable);
    // Nobody asks for ever: whoever made it makes another one, with fewer hubs.
    await cluster.scheduler.run(cluster.scheduler.nowMs + 60_000);
    assert.equal(cluster.observer.accepted.length, 0);
    red.kill();
    await cluster.finish(red.start());
    cluster.wire.healAll();
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    assert.equal(cluster.observer.accepted.length, 0, 'nor after a restart');
    assert.equal((await create()).wasNew, true);
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    // What both others have is taken up in a later term.
    await forgetGroup(cluster, red);
    await assert.rejects(create(), unavailable);
    await cluster.scheduler.run(cluster.scheduler.nowMs + 10_000);
    const again = await create();
    assert.deepEqual([again.wasNew, again.entry?.term], [false, 0n]);
    const [first] = cluster.observer.accepted;
    assert.ok(first !== undefined);
    await agree(cluster, first, red);
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
