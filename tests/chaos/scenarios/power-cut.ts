/**
 * The power of a disk goes while the node answers: ext4 on a loop device is shut down without its log
 * being flushed, the node is killed, the journal is replayed. With `synchronous=FULL` nothing that was
 * acknowledged is gone; the same with NORMAL must lose something, else this scenario shows nothing.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Launch } from '../../cluster/launch.ts';
import { NodeProcess } from '../../cluster/node-process.ts';
import { readyMs } from '../company.ts';
import { LoopDisk } from '../disk.ts';
import { judge } from '../judge.ts';
import { RawCrowd } from '../raw-crowd.ts';
import { Recorder } from '../recorder.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';
import { rawConfig } from './raw-config.ts';

const diskMib = 512;
/** A life of the node has at least so many OKs, and lasts this long (ms, random below) after them. */
const lifeOks = 40;
const lifeMs = 400;
const normalSync: Launch = {
  nodeArgs: ['--import', fileURLToPath(new URL('../normal-sync.ts', import.meta.url))],
};

export const powerCut: Scenario = {
  name: 'power-cut',
  shows: 'a power cut takes nothing that was acknowledged; with synchronous=NORMAL it does',
  needs: ['mount', 'loop'],
  async run(stage: Stage): Promise<readonly Part[]> {
    const full = await cuts(stage, 'full', stage.sizes.cuts, {});
    // It ends with the first loss: one is proof enough.
    const normal = await cuts(stage, 'normal', stage.sizes.cuts, normalSync);
    const { lost } = normal.judgement;
    return [
      full,
      {
        ...normal,
        judgement: { ...normal.judgement, violations: [] },
        findings: lost > 0 ? [] : ['nothing was lost with NORMAL: this scenario tests nothing'],
        notes: [...normal.notes, 'a loss is what must happen here'],
      },
    ];
  },
};

async function cuts(stage: Stage, name: string, count: number, launch: Launch): Promise<Part> {
  const { dice, cleanUp } = stage;
  const directory = join(stage.directory, name);
  mkdirSync(directory);
  const disk = new LoopDisk(directory, diskMib);
  cleanUp(() => disk.remove());
  disk.make();
  using recorder = new Recorder(join(directory, 'history.jsonl'));
  const process = await NodeProcess.init('red.example', join(disk.path, 'red'), rawConfig);
  // What init promised to have made must be there, too.
  recorder.fault('cut', 'qpcd init');
  disk.cut();
  await disk.powerUp();
  process.launch = launch;
  process.readyMs = readyMs;
  cleanUp(() => process.kill());
  await using crowd = await RawCrowd.gather(process, recorder, dice.branch(name.length));
  crowd.send();
  const recoveriesMs: number[] = [];
  let made = 0;
  while (made < count) {
    await crowd.oks(lifeOks);
    await sleep(dice.int(lifeMs));
    recorder.fault('cut', 'red.example');
    disk.cut();
    await crowd.node.crash();
    made += 1;
    await disk.powerUp();
    const upMs = Date.now();
    await crowd.node.start();
    await crowd.oks(1);
    recoveriesMs.push(Date.now() - upMs);
    if (launch === normalSync && (await crowd.missing()) > 0) break;
  }
  recorder.now({ kind: 'healed' });
  await crowd.quiet();
  await crowd.testify();
  return {
    name: `${made} cuts, synchronous=${name.toUpperCase()}`,
    judgement: judge(recorder.history, { liveWithinMs: 60_000, recoveriesMs }),
    findings: [],
    notes: [],
  };
}
