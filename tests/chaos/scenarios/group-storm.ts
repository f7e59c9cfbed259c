/**
 * Everybody changes one group at once while the nodes that order its commits are killed: one history, no
 * message lost, and every wish ends as done, superseded, or refused with a reason.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Dice } from '../../cluster/dice.ts';
import { comparedEpochs } from '../hub-logs.ts';
import { judge } from '../judge.ts';
import { LeaderWatch } from '../leader-watch.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';
import { StormCrowd, type Wish } from '../storm-crowd.ts';

/** A node lives up to this long between two kills, and stays away up to this long (ms, random below). */
const lifeMs = 20_000;
const awayMs = 3_000;
/** The leader stays away this long, and up to so much longer: members wait 30 s before another hub is to take over. */
const leaderAwayMs = 35_000;
const leaderLongerMs = 20_000;
/** The first kill, and so many of the others, hit whoever leads the group's hubs; the rest any node. */
const leaderShare = 0.5;
const settleMs = 300_000;
/** Then rows of epochs that somebody was not in have been told: a device looks for their keys after 15 s. */
const restMs = 30_000;

export const groupStorm: Scenario = {
  name: 'group-storm',
  shows: 'members of one group with three hubs change it at once while these are killed: no fork',
  needs: [],
  async run({ dice, directory, sizes, cleanUp, say }: Stage): Promise<readonly Part[]> {
    const { people, stormSeconds } = sizes;
    await using crowd = await StormCrowd.gather({ directory, people, dice, cleanUp });
    crowd.storm();
    const watch = new LeaderWatch(crowd.nodes);
    const { kills, leaders } = await killHubs(crowd, watch, stormSeconds * 1_000, dice.branch(1));
    await crowd.calm();
    const late = await settled(crowd);
    await sleep(restMs);
    const views = await crowd.views();
    await crowd.testify();
    const judgement = judge(crowd.recorder.history, {
      liveWithinMs: settleMs,
      promised: 'sent',
    });
    const epochs = views[0]?.epoch ?? 0;
    watch.look();
    const killed = `${kills} kills of nodes, ${leaders} of them of the leader`;
    say(`${killed}; term ${watch.term}; epoch ${epochs}; ${count(crowd.wishes)}`);
    for (const line of crowd.leftOver) say(line);
    return [
      {
        name: `${people} people, ${stormSeconds} s, ${killed}`,
        judgement,
        findings: [
          ...crowd.unexpectedEnds,
          ...crowd.alarms,
          ...(crowd.hubs === 3 ? [] : [`the group has ${crowd.hubs} hubs, not three`]),
          ...(late === undefined ? [] : [`not settled: ${late}`]),
          ...unexplained(crowd.wishes),
        ],
        notes: [
          `epoch ${epochs} of all, in term ${watch.term}`,
          `${comparedEpochs(crowd.recorder.history)} epochs whose keys members could compare`,
          count(crowd.wishes),
          slowest(crowd.wishes),
        ],
      },
    ];
  },
};

async function killHubs(
  crowd: StormCrowd,
  watch: LeaderWatch,
  forMs: number,
  dice: Dice,
): Promise<{ readonly kills: number; readonly leaders: number }> {
  const endMs = performance.now() + forMs;
  let [kills, leaders] = [0, 0];
  while (performance.now() < endMs) {
    await sleep(dice.int(lifeMs));
    const leader = watch.look();
    const any = crowd.nodes[dice.int(crowd.nodes.length)];
    const node = kills === 0 || dice.chance(leaderShare) ? leader : any;
    if (node === undefined) break;
    crowd.recorder.fault('kill', node.domain);
    await node.kill();
    kills += 1;
    if (node === leader) leaders += 1;
    await sleep(node === leader ? leaderAwayMs + dice.int(leaderLongerMs) : dice.int(awayMs));
    crowd.recorder.fault('start', node.domain);
    await node.start();
  }
  return { kills, leaders };
}

/** Undefined when everybody has everything; else what is missing at the end of the time. */
async function settled(crowd: StormCrowd): Promise<string | undefined> {
  for (const endMs = performance.now() + settleMs; ;) {
    const missing = await crowd.unsettled();
    if (missing === undefined || performance.now() > endMs) return missing;
    await sleep(1_000);
  }
}

/** Refused without a reason is no end. */
function unexplained(wishes: readonly Wish[]): string[] {
  return wishes
    .filter(({ outcome, reason }) => outcome === 'refused' && reason === '')
    .map(({ by, change }) => `${by}: ${change.kind} was refused without a reason`);
}

function count(wishes: readonly Wish[]): string {
  const counts = new Map<string, number>();
  for (const { outcome, reason } of wishes) {
    const name = outcome === 'refused' ? `refused (${reason})` : outcome;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const parts = [...counts].map(([name, times]) => `${times} ${name}`);
  return `${wishes.length} wishes: ${parts.join(', ')}`;
}

function slowest(wishes: readonly Wish[]): string {
  const sorted = wishes.map(({ ms }) => ms).toSorted((a, b) => a - b);
  const at = (share: number): string =>
    ((sorted[Math.floor(share * (sorted.length - 1))] ?? 0) / 1_000).toFixed(1);
  return `a wish took ${at(0.5)} s in the median, ${at(1)} s at most`;
}
