/**
 * A leader of three that lies: it has one follower sign one commit and the other one another, in one place and term. Both
 * have a majority then; the two certificates convict it, and the honest hubs say so where they meet.
 */
import assert from 'node:assert/strict';
import { before, suite, test } from 'node:test';
import {
  checkEvidence,
  ConflictError,
  entryHash,
  parseEntry,
  type LogFields,
} from '@quicprochat/proto';
import {
  CertifiedEntrySchema,
  create,
  GroupControlSchema,
  GroupLogRequestSchema,
  GroupLogResponseSchema,
  GroupTakeoverRequestSchema,
  toBinary,
  type CertifiedEntry,
  type SubmitCommitRequest,
} from '@quicprochat/proto/messages';
import { creator, domains, HubCluster, makeStarts } from './cluster.ts';
import type { HubStart, SimHub } from './hub.ts';

const [redName = '', greenName = '', blueName = ''] = domains;
const alarm = 'a hub of a group is convicted';
const member = { fromHub: false };
const term = 0n;

interface Alarm {
  readonly at: string;
  readonly fields: LogFields;
}

suite('a leader of three that lies', () => {
  let starts: readonly HubStart[];
  before(async () => {
    starts = await makeStarts();
  });

  const lifeOf = ({ life }: SimHub) => {
    assert.ok(life !== undefined, 'the hub is down');
    return life;
  };
  const setOf = (hub: SimHub) => lifeOf(hub).set;

  /** Blue and green accepted two children of entry 0, each with red's word and its own. */
  async function fork() {
    const alarms: Alarm[] = [];
    const cluster = new HubCluster({
      ...{ starts, seed: 1, faults: { lost: 0, twice: 0 } },
      dies: () => false,
      onDeath: () => {},
      onLog: (at, level, event, fields) => {
        if (level === 'error') alarms.push({ at, fields });
        if (level === 'error') assert.equal(event, alarm);
      },
    });
    for (const hub of cluster.hubs) await cluster.finish(hub.start());
    const [red, green, blue] = cluster.hubs;
    assert.ok(red && green && blue);
    const begun = cluster.group.sign(undefined);
    await cluster.finish(setOf(red).create(begun, domains, creator));
    await cluster.scheduler.run(cluster.scheduler.nowMs + 1_000);
    const [first] = cluster.observer.accepted;
    assert.ok(first !== undefined);
    const { groupId: group } = cluster.group;
    const hubs = [...domains];
    const certify = async (hub: SimHub, submit: SubmitCommitRequest) => {
      const log = { group, hubs, term, position: 1n, head: first.hash };
      const peers = cluster.wire.peersOf(redName, lifeOf(red).process);
      const asked = peers.replicate(hub.domain, { ...log, prepared: submit });
      const { signature } = await cluster.finish(asked);
      assert.ok(signature !== undefined && submit.entry !== undefined);
      const own = lifeOf(red).offers.sign(entryHash(submit.entry.entry), Number(term));
      const { entry } = submit;
      const certified = create(CertifiedEntrySchema, { entry, term, signatures: [own, signature] });
      const control = create(GroupControlSchema, { entry: certified, commit: submit.commit });
      const shown = { group, hubs, position: 2n, entries: [control] };
      const show = (to: SimHub) => cluster.finish(peers.install(to.domain, shown));
      assert.equal((await show(hub)).position, 2n, `${hub.domain} has accepted it`);
      return { submit, certified, control, show };
    };
    const onGreen = await certify(green, cluster.newCommit(first));
    const onBlue = await certify(blue, cluster.newCommit(first));
    return { cluster, alarms, red, green, blue, onGreen, onBlue, group };
  }

  const convicted = (cluster: HubCluster, one: CertifiedEntry, other: CertifiedEntry): string[] =>
    checkEvidence(one, other, domains, (domain) =>
      cluster.hubs.filter((hub) => hub.domain === domain).map(({ signing }) => signing.publicKey),
    );

  const expected = (group: Uint8Array, at: string, from: string): Alarm => ({
    at,
    fields: {
      group: Buffer.from(group).toString('hex').slice(0, 16),
      hubs: redName,
      epoch: 1,
      from,
    },
  });

  test('convicts itself and nobody else, and who is shown the other certificate says so once', async () => {
    const { cluster, alarms, blue, onGreen, onBlue, group } = await fork();
    using _ = cluster;
    assert.deepEqual(convicted(cluster, onGreen.certified, onBlue.certified), [redName]);
    assert.deepEqual(alarms, []);
    for (let times = 0; times < 3; times += 1) {
      await assert.rejects(onGreen.show(blue), { reason: 'SEQ_CONFLICT' });
    }
    assert.deepEqual(alarms, [expected(group, blueName, redName)]);
  });

  test('is found when one of the others takes over, by both of these', async () => {
    const { cluster, alarms, red, green, blue, onGreen, onBlue, group } = await fork();
    using _ = cluster;
    red.kill();
    const submit = cluster.newCommit(cluster.observer.accepted.at(-1) ?? assert.fail());
    const wanted = create(GroupTakeoverRequestSchema, { group, submit });
    for (const hub of [green, blue, green]) {
      // Neither takes back what it accepted, so there is no majority any more.
      await assert.rejects(cluster.finish(setOf(hub).takeover(wanted, member)));
    }
    await cluster.scheduler.run(cluster.scheduler.nowMs + 60_000);
    const byName = alarms.toSorted((one, other) => (one.at < other.at ? -1 : 1));
    assert.deepEqual(byName, [
      expected(group, blueName, greenName),
      expected(group, greenName, blueName),
    ]);
    for (const [hub, { certified }] of [
      [green, onGreen],
      [blue, onBlue],
    ] as const) {
      const controls = await cluster.finish(cluster.readLog(hub));
      assert.equal(controls.length, 2, 'each keeps what it accepted');
      const { entries } = await cluster.finish(hub.groupLog(logOf(group)));
      assert.deepEqual(entries?.[1]?.entry, certified);
    }
  });

  test('is found when a member brings the other certificate', async () => {
    const { cluster, alarms, red, blue, onGreen, group } = await fork();
    using _ = cluster;
    red.kill();
    const { signatures } = onGreen.certified;
    const bring = (submit: SubmitCommitRequest) =>
      cluster.finish(setOf(blue).submit(submit, member));
    // What is signed by nobody else convicts nobody.
    await assert.rejects(bring({ ...onGreen.submit, signatures: signatures.slice(1), term }));
    assert.deepEqual(alarms, []);
    await assert.rejects(bring({ ...onGreen.submit, signatures, term }));
    assert.deepEqual(alarms, [expected(group, blueName, 'a member')]);
  });

  test('is found when it shows the other certificate for its refusal', async () => {
    const { cluster, alarms, red, blue, onGreen, onBlue, group } = await fork();
    using _ = cluster;
    const entries = [onGreen.control];
    const details = toBinary(GroupLogResponseSchema, create(GroupLogResponseSchema, { entries }));
    setOf(red).submit = () =>
      Promise.reject(new ConflictError('EPOCH_CONFLICT', 'another commit won', { details }));
    const next = cluster.newCommit(parseEntry(onBlue.submit.entry));
    await assert.rejects(cluster.finish(setOf(blue).submit(next, member)));
    assert.deepEqual(alarms, [expected(group, blueName, redName)]);
  });

  const logOf = (group: Uint8Array) => create(GroupLogRequestSchema, { group, maxEntries: 64 });
});
