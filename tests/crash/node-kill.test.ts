/**
 * Crash test of the node: a real qpcd is killed with SIGKILL 50
 * times at random moments under load; every message that it acknowledged is there exactly once.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CrashingNode, RawDevice } from '../cluster/crashing-node.ts';
import { Dice } from '../cluster/dice.ts';
import { checkInbox } from '../cluster/inbox-check.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { InboxReader, runLane, type TrafficCounts } from './traffic.ts';

const kills = 50;
const names = ['alice', 'bob', 'carol', 'dave'];
const lanesPerDevice = 6;
/** A life of the node ends this long (ms, random below) after its start or its first OK. */
const lifeMs = 350;
/** Share of the kills after which the next start is killed too, before the node is ready. */
const startKillShare = 0.1;
const startMs = 900;

test(
  'an acknowledged message survives kill -9, once',
  { timeout: 240_000 },
  async (t: TestContext) => {
    const dice = new Dice();
    t.diagnostic(`seed ${dice.seed} (QPC_SEED=${dice.seed} plans the same kills)`);
    const directory = mkdtempSync(join(tmpdir(), 'qpc-node-kill-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    await using node = new CrashingNode(
      await NodeProcess.init('red.example', join(directory, 'red')),
    );
    await node.start();
    const devices: RawDevice[] = [];
    for (const name of names) devices.push(await RawDevice.register(node, name));

    const counts: TrafficCounts = { lostAnswers: 0, repeatsStored: 0, repeatsNew: 0, abandoned: 0 };
    const stop = new AbortController();
    const answered = new EventTarget();
    const readers = devices.map((device, index) => new InboxReader(device, dice.branch(index)));
    const lanes = devices.flatMap((from, index) =>
      Array.from({ length: lanesPerDevice }, (_, which) => {
        const to = devices[(index + which) % devices.length] ?? from;
        const lane = index * lanesPerDevice + which;
        const onOk = (): void => void answered.dispatchEvent(new Event('ok'));
        const signal = stop.signal;
        const sent = runLane({
          lane,
          from,
          to,
          dice: dice.branch(100 + lane),
          counts,
          stop: signal,
          onOk,
        });
        return { to, sent };
      }),
    );
    const traffic = Promise.all([
      ...lanes.map(({ sent }) => sent),
      ...readers.map((reader) => reader.run(stop.signal)),
    ]).then(() => undefined);

    const killing = killLoop(node, dice.branch(1000), answered);
    const report = await Promise.race([killing, traffic, node.failed]);
    assert.ok(report !== undefined, 'the traffic ended before the kills');
    stop.abort();
    await traffic;

    const total = { acknowledged: 0, found: 0, redelivered: 0, acks: 0 };
    for (const reader of readers) {
      const head = await reader.drain();
      const sent = await Promise.all(
        lanes.filter(({ to }) => to === reader.device).map((lane) => lane.sent),
      );
      const verdict = checkInbox(sent.flat(), [...reader.rows.values()], head);
      assert.ok(verdict.isClean, `${reader.device.userId}: ${JSON.stringify(verdict)}`);
      total.acknowledged += verdict.acknowledged;
      total.found += verdict.found;
      total.redelivered += reader.redelivered;
      total.acks += reader.acks;
    }
    t.diagnostic(JSON.stringify({ ...report, ...total, ...counts }));
    assert.equal(report.kills, kills);
    assert.ok(report.openEnqueues > 0, 'no kill fell inside an open Enqueue');
    assert.ok(counts.repeatsStored > 0, 'no kill fell between a commit and its answer');
    assert.ok(total.acks > 0, 'nothing was acknowledged by a reader');
    const broken = devices.reduce((sum, { brokenWhileUp }) => sum + brokenWhileUp, 0);
    assert.equal(broken, 0, 'connections broke while the node was alive');
  },
);

interface KillReport {
  kills: number;
  killsInOpenEnqueue: number;
  openEnqueues: number;
  openOthers: number;
  killsWhileStarting: number;
}

/** Kills and restarts; ends with the node running. */
async function killLoop(
  node: CrashingNode,
  dice: Dice,
  answered: EventTarget,
): Promise<KillReport> {
  const report: KillReport = {
    kills: 0,
    killsInOpenEnqueue: 0,
    openEnqueues: 0,
    openOthers: 0,
    killsWhileStarting: 0,
  };
  while (report.kills < kills) {
    // Most lives are under load; some end while the devices still come back.
    if (dice.chance(0.8)) await once(answered, 'ok');
    await sleep(dice.int(lifeMs));
    const open = await node.crash();
    report.kills += 1;
    report.killsInOpenEnqueue += open.enqueue > 0 ? 1 : 0;
    report.openEnqueues += open.enqueue;
    report.openOthers += open.other;
    if (dice.chance(startKillShare)) {
      const outcome = await node.crashWhileStarting(dice.int(startMs));
      report.killsWhileStarting += outcome === 'killed' ? 1 : 0;
    }
    if (!node.isUp) await node.start();
  }
  return report;
}
