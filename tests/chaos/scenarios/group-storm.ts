/**
 * Everybody changes one group at once while the nodes that order its commits are killed: one history, no
 * message lost, and every wish ends as done, superseded, or refused with a reason.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Dice } from '../../cluster/dice.ts';
import { judge } from '../judge.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';
import { StormCrowd, type Wish } from '../storm-crowd.ts';

/** A node lives up to this long between two kills, and stays away up to this long (ms, random below). */
const lifeMs = 20_000;
const awayMs = 3_000;
const settleMs = 300_000;

export const groupStorm: Scenario = {
  name: 'group-storm',
  shows:
    'members of one group over three nodes change it at once while its hubs are killed: no fork',
  needs: [],
  async run({ dice, directory, sizes, cleanUp, say }: Stage): Promise<readonly Part[]> {
    const { people, stormSeconds } = sizes;
    await using crowd = await StormCrowd.gather({ directory, people, dice, cleanUp });
    crowd.storm();
    const kills = await killHubs(crowd, stormSeconds * 1_000, dice.branch(1));
    await crowd.calm();
    const late = await settled(crowd);
    const views = await crowd.views();
    await crowd.testify();
    const judgement = judge(crowd.recorder.history, {
      liveWithinMs: settleMs,
      promised: 'sent',
    });
    const epochs = views[0]?.epoch ?? 0;
    say(`${kills} kills; epoch ${epochs}; ${count(crowd.wishes)}`);
    for (const line of crowd.leftOver) say(line);
    return [
      {
        name: `${people} people, ${stormSeconds} s, ${kills} kills of nodes`,
        judgement,
        findings: [
          ...crowd.unexpectedEnds,
          ...(late === undefined ? [] : [`not settled: ${late}`]),
          ...unexplained(crowd.wishes),
        ],
        notes: [`epoch ${epochs} of all`, count(crowd.wishes), slowest(crowd.wishes)],
      },
    ];
  },
};

async function killHubs(crowd: StormCrowd, forMs: number, dice: Dice): Promise<number> {
  const endMs = performance.now() + forMs;
  let kills = 0;
  while (performance.now() < endMs) {
    await sleep(dice.int(lifeMs));
    const node = crowd.nodes[dice.int(crowd.nodes.length)];
    if (node === undefined) break;
    crowd.recorder.fault('kill', node.domain);
    await node.kill();
    kills += 1;
    await sleep(dice.int(awayMs));
    crowd.recorder.fault('start', node.domain);
    await node.start();
  }
  return kills;
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
