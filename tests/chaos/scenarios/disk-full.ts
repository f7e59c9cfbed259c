/**
 * A node on a small disk that fills up: first to below its reserve, then to the last byte. OK stops
 * and a typed error comes, reads go on, what was taken before survives, and room heals.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Company } from '../company.ts';
import { Ballast, mountTmpfs, unmount } from '../disk.ts';
import { judge } from '../judge.ts';
import { Probe, tally } from '../probe.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';

const diskMib = 192;
/** Below what the node keeps for acks and its log. */
const belowReserve = 10 * 1024 * 1024;
const probes = 40;
const probeMs = 150;
const healMs = 60_000;
const settleMs = 240_000;

export const diskFull: Scenario = {
  name: 'disk-full',
  shows: 'a full disk stops OKs with a typed error, keeps what was taken, and room heals it',
  needs: ['mount'],
  async run({ dice, directory, cleanUp }: Stage): Promise<readonly Part[]> {
    const disk = join(directory, 'small');
    mountTmpfs(disk, diskMib);
    cleanUp(() => unmount(disk));
    await using company = await Company.gather({
      directory,
      cleanUp,
      dice,
      nodeDirectories: [join(directory, 'red'), join(disk, 'blue')],
    });
    const { blue, recorder } = company;
    const probe = await Probe.register(blue);
    const ballast = new Ballast(disk);
    company.talk();
    await sleep(3_000);
    const findings: string[] = [];
    const notes: string[] = [];
    const recoveriesMs: number[] = [];
    for (const [name, free] of [
      ['below the reserve', belowReserve],
      ['to the last byte', 0],
    ] as const) {
      ballast.leave(free);
      recorder.fault('full', blue.domain, name);
      const answers: string[] = [];
      for (let count = 0; count < probes; count += 1) {
        answers.push(await probe.enqueue());
        await sleep(probeMs);
      }
      const reads = await probe.fetch();
      const isDead = blue.pid === undefined;
      ballast.remove();
      recorder.fault('room', blue.domain);
      if (isDead) await company.startNode(blue);
      const backMs = await probe.ok(healMs);
      notes.push(
        `${name}: Enqueue ${tally(answers)}; Fetch ${reads}; ${isDead ? 'the node ended; ' : ''}OK again after ${backMs ?? 'never'} ms`,
      );
      if (backMs === undefined) findings.push(`${name}: no OK after there was room again`);
      else recoveriesMs.push(backMs);
      // The first answers may be of a commit that had its room already.
      if (answers.slice(3).includes('OK')) findings.push(`${name}: OK on a full disk`);
      if (!answers.includes('STORE_FULL')) findings.push(`${name}: no STORE_FULL`);
      if (reads !== 'OK' && free > 0) findings.push(`${name}: no reads`);
      await sleep(3_000);
    }
    const ending = await company.settle(settleMs);
    probe.disconnect();
    await company.testify();
    return [
      {
        name: `tmpfs of ${diskMib} MiB; ${ending}`,
        judgement: judge(recorder.history, {
          liveWithinMs: settleMs,
          promised: 'sent',
          recoveriesMs,
        }),
        findings,
        notes,
      },
    ];
  },
};
