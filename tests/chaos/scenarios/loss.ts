/**
 * Bad roads between people and nodes and between the nodes: loss, delay, reordering, repetition,
 * flipped bits and changed addresses by a relay of our own, then loss by the kernel where it lets us.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseNodeAddress, formatNodeAddress } from '@quicprochat/proto';
import type { NodeProcess } from '../../cluster/node-process.ts';
import { missing } from '../capabilities.ts';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import { listenOf, Network, parties } from '../network.ts';
import type { Part, Scenario, SkippedPart, Stage } from '../scenario.ts';
import { goodRoad, UdpRelay, type Road } from '../udp-relay.ts';

const settleMs = 240_000;
/** How long each road stays as bad as it is (ms). */
const stretchMs = 8_000;

const roads: readonly (readonly [name: string, road: Road])[] = [
  ['5 % loss', { ...goodRoad, loss: 0.05 }],
  ['20 % loss', { ...goodRoad, loss: 0.2 }],
  ['100 ms, reordered', { ...goodRoad, delayMs: 20, jitterMs: 160 }],
  ['20 % twice', { ...goodRoad, twice: 0.2, jitterMs: 20 }],
  ['5 % corrupt', { ...goodRoad, corrupt: 0.05 }],
  ['all of it', { loss: 0.05, twice: 0.05, corrupt: 0.03, delayMs: 10, jitterMs: 80 }],
];

export const loss: Scenario = {
  name: 'loss',
  shows: 'lost, late, repeated, reordered and damaged packets and changed addresses change nothing',
  needs: [],
  async run(stage: Stage): Promise<readonly (Part | SkippedPart)[]> {
    const relayed = await overRelay(stage);
    const lacking = missing(['netns', 'iptables']);
    return [
      relayed,
      lacking.length === 0 ? await byKernel(stage) : { name: 'kernel', skipped: lacking },
    ];
  },
};

async function overRelay({ dice, directory: base, cleanUp }: Stage): Promise<Part> {
  const directory = join(base, 'relayed');
  const relays = new Map<NodeProcess, UdpRelay>();
  cleanUp(async () => {
    for (const relay of relays.values()) await relay[Symbol.asyncDispose]();
  });
  const detour = (node: NodeProcess): string => {
    const { pin } = parseNodeAddress(node.address);
    const relay = relays.get(node);
    if (relay === undefined) throw new Error(`no relay in front of ${node.domain}`);
    return formatNodeAddress({ host: '127.0.0.1', port: relay.port, pin });
  };
  await using company = await Company.gather({
    directory,
    cleanUp,
    dice,
    prepare: async (nodes) => {
      for (const node of nodes) {
        relays.set(node, await UdpRelay.start(parseNodeAddress(node.address), dice.branch(50)));
      }
      for (const node of nodes) {
        const peers = nodes.filter((other) => other !== node);
        const lines = peers.map((peer) => `peer ${peer.domain} ${detour(peer)}\n`);
        writeFileSync(join(node.directory, 'peers'), lines.join(''), { mode: 0o600 });
      }
    },
    dialAddress: detour,
  });
  company.talk();
  const notes: string[] = [];
  for (const [name, road] of roads) {
    const before = company.progress.read;
    company.recorder.fault('road', '*', name);
    for (const relay of relays.values()) relay.road = road;
    await sleep(stretchMs / 2);
    for (const relay of relays.values()) relay.rebind();
    company.recorder.fault('rebind', '*');
    await sleep(stretchMs / 2);
    notes.push(`${name}: ${company.progress.read - before} messages read in ${stretchMs / 1000} s`);
  }
  for (const relay of relays.values()) relay.road = goodRoad;
  const ending = await company.settle(settleMs);
  await company.testify();
  const counts = [...relays.values()].map((relay) => relay.counts);
  notes.push(`packets: ${JSON.stringify(counts)}`);
  return {
    name: `relay, ${roads.length} roads; ${ending}`,
    judgement: judge(company.recorder.history, { liveWithinMs: settleMs, promised: 'sent' }),
    findings: company.unexpectedEnds,
    notes,
  };
}

async function byKernel({ dice, directory: base, cleanUp }: Stage): Promise<Part> {
  const directory = join(base, 'kernel');
  const network = new Network();
  cleanUp(() => network.remove());
  network.build();
  const people = network.launch('people');
  await using company = await Company.gather({
    directory,
    cleanUp,
    dice: dice.branch(60),
    listen: [listenOf('red'), listenOf('blue')],
    launches: [network.launch('red'), network.launch('blue')],
    clientLaunches: [people, people],
  });
  company.talk();
  const notes: string[] = [];
  for (const probability of ['0.05', '0.2', '0.4']) {
    const before = company.progress.read;
    for (const party of parties) {
      const random = ['-m', 'statistic', '--mode', 'random', '--probability', probability];
      network.filter(party, '-p', 'udp', ...random, '-j', 'DROP');
    }
    company.recorder.fault('loss', '*', probability);
    await sleep(stretchMs);
    const dropped = network.dropped();
    network.heal();
    const read = company.progress.read - before;
    notes.push(`loss ${probability}: ${dropped} packets dropped, ${read} messages read`);
  }
  const ending = await company.settle(settleMs);
  await company.testify();
  return {
    name: `kernel, 3 stretches; ${ending}`,
    judgement: judge(company.recorder.history, { liveWithinMs: settleMs, promised: 'sent' }),
    findings: company.unexpectedEnds,
    notes,
  };
}
