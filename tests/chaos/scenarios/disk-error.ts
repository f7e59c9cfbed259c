/**
 * The disk says EIO to a sync, by strace: the node must answer OK to nothing from then on, must not
 * sync again, must end as in a crash, and must have everything when it starts again.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NodeProcess } from '../../cluster/node-process.ts';
import { readyMs } from '../company.ts';
import { judge } from '../judge.ts';
import { RawCrowd } from '../raw-crowd.ts';
import { Recorder } from '../recorder.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';
import { rawConfig } from './raw-config.ts';

const rounds = 4;
const endMs = 20_000;
/** OKs of syncs that succeeded just before may still be on their way to the client (ms). */
const underWayMs = 250;

export const diskError: Scenario = {
  name: 'disk-error',
  shows: 'after a failed sync a node answers OK to nothing, never syncs again, ends and recovers',
  needs: ['root', 'strace'],
  async run({ dice, directory, cleanUp }: Stage): Promise<readonly Part[]> {
    using recorder = new Recorder(join(directory, 'history.jsonl'));
    const process = await NodeProcess.init('red.example', join(directory, 'red'), rawConfig);
    process.readyMs = readyMs;
    cleanUp(() => process.kill());
    await using crowd = await RawCrowd.gather(process, recorder, dice.branch(1));
    crowd.send();
    const findings: string[] = [];
    const notes: string[] = [];
    const recoveriesMs: number[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      await sleep(500 + dice.int(1_000));
      // Once only: a second sync that works must not make the node believe that all is well.
      const when = round % 2 === 0 ? '1' : '1+';
      const trace = join(directory, `trace-${round}`);
      const ended = Promise.withResolvers<number>();
      process.onUnexpectedEnd = () => ended.resolve(Date.now());
      const strace = await inject(process.pid ?? 0, when, trace);
      recorder.fault('EIO', 'red.example', `when=${when}`);
      const late = sleep(endMs, 0, { ref: false });
      const goneMs = await Promise.race([ended.promise, late]);
      await end(strace);
      const { failedMs, syncsAfter } = readTrace(trace);
      if (failedMs === undefined) {
        findings.push(`round ${round}: no sync was injected`);
      } else if (goneMs === 0) {
        findings.push(`round ${round}: the node lives ${endMs / 1000} s after a failed sync`);
      } else {
        const okAfterMs = crowd.lastOkMs - failedMs;
        notes.push(
          `round ${round} (when=${when}): gone ${goneMs - failedMs} ms after the failed sync, ${syncsAfter} syncs after it, last OK ${okAfterMs} ms after it`,
        );
        if (syncsAfter > 0) findings.push(`round ${round}: ${syncsAfter} syncs after a failed one`);
        if (okAfterMs > underWayMs) findings.push(`round ${round}: an OK after a failed sync`);
      }
      await crowd.node.crash();
      const upMs = Date.now();
      await crowd.node.start();
      await crowd.oks(1);
      recoveriesMs.push(Date.now() - upMs);
      const missing = await crowd.missing();
      if (missing > 0) findings.push(`round ${round}: ${missing} acknowledged messages are gone`);
    }
    recorder.now({ kind: 'healed' });
    await crowd.quiet();
    await crowd.testify();
    return [
      {
        name: `${rounds} failed syncs`,
        judgement: judge(recorder.history, { liveWithinMs: 60_000, recoveriesMs }),
        findings,
        notes,
      },
    ];
  },
};

/** Attaches to all threads of the process; resolves when the next sync will fail. */
async function inject(pid: number, when: string, trace: string): Promise<ChildProcess> {
  const calls = 'fsync,fdatasync';
  const strace = spawn(
    'strace',
    [
      ...['-f', '-ttt', '-p', String(pid), '-o', trace, '-e', `trace=${calls}`],
      ...['-e', `inject=${calls}:error=EIO:when=${when}`],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  const attached = Promise.withResolvers<void>();
  strace.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    if (said.includes('attached')) attached.resolve();
  });
  strace.once('exit', () => attached.reject(new Error(`strace ended: ${said}`)));
  await attached.promise;
  return strace;
}

async function end(strace: ChildProcess): Promise<void> {
  if (strace.exitCode !== null || strace.signalCode !== null) return;
  const exited = once(strace, 'exit');
  // It detaches first.
  strace.kill('SIGINT');
  await exited;
}

/** When the first sync failed (ms), and how many of whichever thread began after it. */
function readTrace(trace: string): { failedMs: number | undefined; syncsAfter: number } {
  const calls = readFileSync(trace, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const match = /^\d+ +(\d+\.\d+) f(?:data)?sync\(/u.exec(line);
      const isInjected = line.includes('(INJECTED)');
      return match?.[1] === undefined ? [] : [{ atMs: Number(match[1]) * 1_000, isInjected }];
    });
  const first = calls.findIndex(({ isInjected }) => isInjected);
  return {
    failedMs: calls[first] === undefined ? undefined : Math.round(calls[first].atMs),
    syncsAfter: first < 0 ? 0 : calls.length - first - 1,
  };
}
