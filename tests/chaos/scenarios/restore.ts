/**
 * A node starts from the copy of its database that was made a while ago: once as the manual says, without
 * the counter file beside it, once with it, so that only its peers and clients can know. What it had
 * acknowledged since is gone from its disk; the clients still have it.
 */
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NodeProcess } from '../../cluster/node-process.ts';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';

const talkMs = 5_000;
const settleMs = 400_000;

export const restore: Scenario = {
  name: 'restore',
  shows: 'a node that starts from an old copy is noticed, and its clients make good what it lost',
  needs: [],
  async run(stage: Stage): Promise<readonly Part[]> {
    return [
      await fromCopy(stage, 'without the counter file', ['']),
      await fromCopy(stage, 'with the counter file', ['', '-commits']),
    ];
  },
};

/** `ends`: the files of the database that the backup has, by their ends. */
async function fromCopy(
  { dice, directory: base, cleanUp }: Stage,
  name: string,
  ends: readonly string[],
): Promise<Part> {
  const directory = join(base, name);
  await using company = await Company.gather({ directory, cleanUp, dice });
  company.talk();
  const [red, blue] = company.nodes;
  const recoveriesMs: number[] = [];
  for (const node of [blue, red]) {
    await sleep(talkMs);
    await node.stop();
    const backup = join(directory, `backup of ${node.domain}`);
    for (const end of ends) cpSync(node.databaseFile + end, backup + end);
    await company.startNode(node);
    // What comes now is what the copy will not have.
    await sleep(talkMs);
    await node.stop();
    restoreFrom(node, backup, ends);
    company.recorder.fault('restore', node.domain, name);
    const upMs = Date.now();
    const before = company.progress.read;
    await company.startNode(node);
    while (company.progress.read < before + 20 && Date.now() < upMs + settleMs) await sleep(50);
    recoveriesMs.push(Date.now() - upMs);
  }
  const ending = await company.settle(settleMs);
  await company.testify();
  return {
    name: `${name}; ${ending}`,
    judgement: judge(company.recorder.history, {
      liveWithinMs: settleMs,
      promised: 'sent',
      recoveriesMs,
    }),
    findings: company.unexpectedEnds,
    notes: [],
  };
}

function restoreFrom(node: NodeProcess, backup: string, ends: readonly string[]): void {
  for (const end of ['', '-wal', '-shm', '-commits']) {
    rmSync(node.databaseFile + end, { force: true });
  }
  for (const end of ends) cpSync(backup + end, node.databaseFile + end);
}
