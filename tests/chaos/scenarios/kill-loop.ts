/**
 * SIGKILL under load: the sender's node, the receiver's node and clients die at random moments while
 * four people talk. Every node both sends and receives, so a kill of either is one of each.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Dice } from '../../cluster/dice.ts';
import type { NodeProcess } from '../../cluster/node-process.ts';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';
import type { Talker } from '../talker.ts';

/** A node lives at least until a message of it got through and then this long (ms, random below). */
const lifeMs = 1_500;
/** A killed process stays away at most this long (ms) before it is started again. */
const awayMs = 800;
/** Waits for a sign of life are given up after this (ms). */
const signMs = 20_000;
const settleMs = 600_000;

export const killLoop: Scenario = {
  name: 'kill-loop',
  shows: 'kill -9 of both nodes and of clients under load loses and doubles nothing',
  needs: [],
  async run(stage: Stage): Promise<readonly Part[]> {
    const { dice, directory, sizes, cleanUp, say } = stage;
    await using company = await Company.gather({ directory, dice, cleanUp });
    company.talk();
    const left = { red: sizes.kills, blue: sizes.kills, clients: sizes.kills };
    const [red, blue] = company.nodes;
    // Three loops at once: two parties, or all three, are down together now and then.
    await Promise.all([
      nodeLoop(company, red, left, 'red', dice.branch(1)),
      nodeLoop(company, blue, left, 'blue', dice.branch(2)),
      clientLoop(company, left, dice.branch(3)),
    ]);
    const before = company.progress;
    const ending = await company.settle(settleMs);
    await company.testify();
    const judgement = judge(company.recorder.history, {
      liveWithinMs: settleMs,
      promised: 'sent',
    });
    say(`${before.accepted} accepted before the last kill; ${ending}`);
    return [
      {
        name: `${sizes.kills} kills of each node, ${sizes.kills} of clients`,
        judgement,
        findings: company.unexpectedEnds,
        notes: [],
      },
    ];
  },
};

type Left = Record<'red' | 'blue' | 'clients', number>;

async function nodeLoop(
  company: Company,
  node: NodeProcess,
  left: Left,
  which: 'red' | 'blue',
  dice: Dice,
): Promise<void> {
  const own = company.talkers.filter((talker) => talker.node === node);
  while (left[which] > 0) {
    await signOfLife(own);
    await sleep(dice.int(lifeMs));
    await company.killNode(node);
    left[which] -= 1;
    await sleep(dice.int(awayMs));
    await company.startNode(node);
  }
}

async function clientLoop(company: Company, left: Left, dice: Dice): Promise<void> {
  while (left.clients > 0) {
    const talker = company.talkers[dice.int(company.talkers.length)];
    if (talker === undefined) return;
    await signOfLife([talker]);
    await sleep(dice.int(lifeMs / 3));
    await talker.kill();
    left.clients -= 1;
    await sleep(dice.int(awayMs / 2));
    await talker.restart();
  }
}

/** Resolves when one of these clients got something through or in; at the latest after a while. */
async function signOfLife(talkers: readonly Talker[]): Promise<void> {
  const came = Promise.withResolvers<void>();
  const late = new AbortController();
  for (const talker of talkers) talker.listen(came.resolve);
  await Promise.race([
    came.promise,
    sleep(signMs, undefined, { signal: late.signal }).catch(() => undefined),
  ]);
  late.abort();
  for (const talker of talkers) talker.unlisten(came.resolve);
}
