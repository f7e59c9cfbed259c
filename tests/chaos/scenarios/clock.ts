/**
 * Wall clocks of nodes that jump while they run, by libfaketime: a day, months and years, forth and
 * back. Monotonic time goes on. Whatever is refused meanwhile, nothing is lost when the clock is right
 * again and the people of that node have logged in again.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Launch } from '../../cluster/launch.ts';
import { libfaketime } from '../capabilities.ts';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';

/** Steps of the node red, one after the other; blue and all people stay where they are. */
const shortSteps = ['+1d', '+0', '-1d', '+0'];
const longSteps = ['+40d', '+0', '+3y', '+0', '-3y', '+0'];
const stepMs = 6_000;
const settleMs = 240_000;

export const clock: Scenario = {
  name: 'clock',
  shows: 'a node whose clock jumps by days, months, years and back loses nothing that it took',
  needs: ['faketime'],
  async run(stage: Stage): Promise<readonly Part[]> {
    return [
      await jumps(stage, 'a day', shortSteps),
      await jumps(stage, 'months and years', longSteps),
    ];
  },
};

async function jumps(
  { dice, directory: base, cleanUp }: Stage,
  name: string,
  steps: readonly string[],
): Promise<Part> {
  const directory = join(base, name);
  const faked = (node: string): Launch => ({
    env: {
      LD_PRELOAD: libfaketime() ?? '',
      FAKETIME_TIMESTAMP_FILE: join(base, `${name} ${node}`),
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    },
  });
  const set = (node: string, offset: string): void =>
    writeFileSync(join(base, `${name} ${node}`), `${offset}\n`);
  for (const node of ['red', 'blue']) set(node, '+0');
  await using company = await Company.gather({
    directory,
    cleanUp,
    dice,
    launches: [faked('red'), faked('blue')],
    meanPauseMs: 200,
  });
  company.talk();
  const notes: string[] = [];
  for (const offset of steps) {
    const before = company.progress;
    company.recorder.fault('clock', company.red.domain, offset);
    set('red', offset);
    await sleep(stepMs);
    const { accepted, read } = company.progress;
    notes.push(
      `red at ${offset}: ${accepted - before.accepted} accepted, ${read - before.read} read in ${stepMs / 1000} s`,
    );
  }
  // Sessions end after 90 days: a client whose node was years ahead waits for its person.
  for (const talker of company.talkers) if (talker.node === company.red) await talker.login();
  const ending = await company.settle(settleMs);
  await company.testify();
  return {
    name: `${name}, ${steps.length} steps; ${ending}`,
    judgement: judge(company.recorder.history, { liveWithinMs: settleMs, promised: 'sent' }),
    findings: company.unexpectedEnds,
    notes,
  };
}
