/**
 * A node that runs out of file descriptors refuses and lives; a node that runs out of memory may be
 * killed by the kernel, and then nothing that it acknowledged is lost.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseNodeAddress, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  transportOf,
  type Connection,
  type EngineName,
  type NodeIdentity,
} from '@quicprochat/proto/transport';
import type { NodeProcess } from '../../cluster/node-process.ts';
import { memoryCgroup, missing } from '../capabilities.ts';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import type { Part, Scenario, SkippedPart, Stage } from '../scenario.ts';

const descriptors = 96;
const connectionsTried = 200;
/** What a node may take beyond what it has when its people are there (bytes). */
const roomBytes = 24 * 1024 * 1024;
const crowdSize = 4_000;
const settleMs = 240_000;

export const limits: Scenario = {
  name: 'limits',
  shows: 'without file descriptors a node refuses and lives; without memory nothing taken is lost',
  needs: ['prlimit'],
  async run(stage: Stage): Promise<readonly (Part | SkippedPart)[]> {
    const few = await fewDescriptors(stage);
    const lacking = missing(['memory-cgroup']);
    return [
      few,
      lacking.length === 0 ? await littleMemory(stage) : { name: 'memory', skipped: lacking },
    ];
  },
};

async function fewDescriptors({ dice, directory: base, cleanUp }: Stage): Promise<Part> {
  const directory = join(base, 'descriptors');
  const few = { prefix: ['prlimit', `--nofile=${descriptors}:${descriptors}`] };
  await using company = await Company.gather({
    directory,
    cleanUp,
    dice,
    launches: [{}, few],
    config: '[transport]\nengines = ["quic", "tls"]\n',
  });
  company.talk();
  const identity = await makeIdentity(systemRandom);
  const { blue } = company;
  company.recorder.fault('crowd', blue.domain, `${connectionsTried} connections over TCP`);
  const before = company.progress;
  const crowd = await dialCrowd(blue, 'tls', identity, connectionsTried, 20);
  await sleep(4_000);
  const during = company.progress;
  for (const connection of crowd) void connection.close(CloseCode.Normal, 'bye');
  const again = await dialCrowd(blue, 'tls', identity, 1, 1);
  const findings = [...company.unexpectedEnds];
  if (crowd.length >= connectionsTried) findings.push('all connections were taken: no limit hit');
  if (during.accepted === before.accepted) findings.push('people got nothing through meanwhile');
  if (again.length === 0) findings.push('nobody gets in after the crowd left');
  const ending = await company.settle(settleMs);
  for (const connection of again) void connection.close(CloseCode.Normal, 'bye');
  await company.testify();
  return {
    name: `${descriptors} descriptors; ${ending}`,
    judgement: judge(company.recorder.history, { liveWithinMs: settleMs, promised: 'sent' }),
    findings,
    notes: [
      `${crowd.length} of ${connectionsTried} connections stood; meanwhile ${during.accepted - before.accepted} messages accepted`,
    ],
  };
}

async function littleMemory({ dice, directory: base, cleanUp }: Stage): Promise<Part> {
  const directory = join(base, 'memory');
  const group = join(memoryCgroup, `qpc${process.pid}`);
  mkdirSync(group);
  cleanUp(() => rmdirSync(group));
  const enter = `echo $$ > ${group}/cgroup.procs && exec "$@"`;
  await using company = await Company.gather({
    directory,
    cleanUp,
    dice,
    launches: [{}, { prefix: ['sh', '-c', enter, 'sh'] }],
    config: '[limits]\nhandshakes_per_host_per_second = 100000\nconnections_per_host = 100000\n',
  });
  const { blue, recorder } = company;
  company.talk();
  await sleep(3_000);
  const usedBytes = Number(readFileSync(join(group, 'memory.usage_in_bytes'), 'utf8'));
  const limitFile = join(group, 'memory.limit_in_bytes');
  writeFileSync(limitFile, String(usedBytes + roomBytes));
  recorder.fault('memory', blue.domain, `${usedBytes + roomBytes} bytes`);
  const identity = await makeIdentity(systemRandom);
  const crowd = await dialCrowd(blue, 'quic', identity, crowdSize, 50);
  const isDead = blue.pid === undefined;
  writeFileSync(limitFile, '-1');
  if (isDead) await company.startNode(blue);
  for (const connection of crowd) void connection.close(CloseCode.Normal, 'bye');
  const ending = await company.settle(settleMs);
  await company.testify();
  return {
    name: `${Math.round((usedBytes + roomBytes) / 1024 ** 2)} MiB; ${ending}`,
    judgement: judge(recorder.history, { liveWithinMs: settleMs, promised: 'sent' }),
    findings: [],
    notes: [
      `${crowd.length} of ${crowdSize} connections stood; the node ${isDead ? 'was killed by the kernel and started again' : 'lived'}`,
    ],
  };
}

/** Dials so many connections, some at a time; stops when a whole group fails. */
async function dialCrowd(
  node: NodeProcess,
  engine: EngineName,
  identity: NodeIdentity,
  count: number,
  atOnce: number,
): Promise<Connection[]> {
  const { host, port, pin } = parseNodeAddress(node.address);
  const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
  const transport = transportOf(runtime, [engine]);
  const options = { identity, limits: defaultLimits, maxRequestBytes: () => 0, pins: [pin] };
  const crowd: Connection[] = [];
  for (let tried = 0; tried < count; tried += atOnce) {
    const dials = Array.from({ length: Math.min(atOnce, count - tried) }, () =>
      transport.dial({ host, port }, options),
    );
    const settled = await Promise.allSettled(dials);
    const stood = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    crowd.push(...stood);
    if (stood.length === 0 || node.pid === undefined) break;
  }
  return crowd;
}
