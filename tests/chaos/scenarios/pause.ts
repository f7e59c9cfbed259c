/** Processes that stand still and go on: a node, a client, both nodes at once (SIGSTOP, SIGCONT). */
import { setTimeout as sleep } from 'node:timers/promises';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';

const settleMs = 240_000;
const calmMs = 3_000;
/** Only the first pause takes as long as asked for (s). */
const shortSeconds = 8;

export const pause: Scenario = {
  name: 'pause',
  shows: 'a node or client that stood still goes on as if nothing had been',
  needs: [],
  async run({ dice, directory, sizes, cleanUp }: Stage): Promise<readonly Part[]> {
    await using company = await Company.gather({ directory, dice, cleanUp });
    company.talk();
    const [alice] = company.talkers;
    const [red, blue] = company.nodes;
    const rounds = [
      { who: 'node', pids: [blue.pid], seconds: sizes.pauseSeconds },
      { who: 'client', pids: [alice?.process.pid], seconds: shortSeconds },
      { who: 'both nodes', pids: [red.pid, blue.pid], seconds: shortSeconds },
    ];
    const notes: string[] = [];
    const recoveriesMs: number[] = [];
    for (const { who, pids, seconds } of rounds) {
      await sleep(calmMs);
      company.recorder.fault('stop', who, `${seconds} s`);
      for (const pid of pids) if (pid !== undefined) process.kill(pid, 'SIGSTOP');
      await sleep(1_000 * seconds);
      const before = company.progress;
      for (const pid of pids) if (pid !== undefined) process.kill(pid, 'SIGCONT');
      company.recorder.fault('continue', who);
      const upMs = Date.now();
      const goal = before.read + 20;
      while (company.progress.read < goal && Date.now() < upMs + settleMs) await sleep(50);
      recoveriesMs.push(Date.now() - upMs);
      notes.push(`${who} for ${seconds} s: the next 20 messages took ${Date.now() - upMs} ms`);
    }
    const ending = await company.settle(settleMs);
    await company.testify();
    return [
      {
        name: `node ${sizes.pauseSeconds} s, client and both nodes ${shortSeconds} s; ${ending}`,
        judgement: judge(company.recorder.history, {
          liveWithinMs: settleMs,
          promised: 'sent',
          recoveriesMs,
        }),
        findings: company.unexpectedEnds,
        notes,
      },
    ];
  },
};
