/**
 * Namespaces that lose each other: both ways, one way, one port, only UDP. What is said meanwhile
 * waits where it is, and arrives when the cut heals; where a second engine gets through, it does not
 * even wait.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { linesOf, type History } from '../../checkers/index.ts';
import { Company } from '../company.ts';
import { judge } from '../judge.ts';
import { addressOf, listenOf, Network, nodePort } from '../network.ts';
import type { Part, Scenario, Stage } from '../scenario.ts';

/** Only the full cut takes as long as asked for; the others this long (s). */
const shortSeconds = 10;
/** Nobody looks for another engine before the connection that is there has died (s). */
const fallbackSeconds = 60;
/** From here on (s) people talk slowly: the cut is about its length, not about load. */
const longSeconds = 120;
/** A cut bites when what was under way has arrived: nothing for so long, or late (ms). */
const quietMs = 2_000;
const biteMs = 120_000;
/**
 * Before the first cut, so that all members of a new group have each other's delivery tokens: without
 * them a node holds 50 rows for an inbox and bounces the rest (ms).
 */
const warmUpMs = 15_000;
/** Between two cuts, so that each finds a working network (ms). */
const calmMs = 3_000;

interface Cut {
  readonly name: string;
  readonly make: (network: Network) => void;
  /** Whether messages between the domains must wait, or must get through all the same. */
  readonly isCrossed: 'never' | 'always' | 'perhaps';
  readonly seconds: (asked: number) => number;
}

const port = String(nodePort);
const cuts: readonly Cut[] = [
  {
    name: 'full',
    seconds: (asked) => asked,
    isCrossed: 'never',
    make: (network) => {
      network.filter('red', '-s', addressOf('blue'), '-j', 'DROP');
      network.filter('blue', '-s', addressOf('red'), '-j', 'DROP');
    },
  },
  {
    name: 'one-way',
    seconds: () => shortSeconds,
    isCrossed: 'never',
    make: (network) => network.filter('blue', '-s', addressOf('red'), '-j', 'DROP'),
  },
  {
    name: 'one port',
    seconds: () => shortSeconds,
    isCrossed: 'perhaps',
    // Its people cannot reach red any more; the nodes reach each other.
    make: (network) => {
      for (const protocol of ['udp', 'tcp']) {
        const rule = ['-s', addressOf('people'), '-p', protocol, '--dport', port, '-j', 'DROP'];
        network.filter('red', ...rule);
      }
    },
  },
  {
    name: 'only UDP',
    seconds: () => fallbackSeconds,
    isCrossed: 'always',
    make: (network) => {
      for (const party of ['red', 'blue'] as const)
        network.filter(party, '-p', 'udp', '-j', 'DROP');
    },
  },
];

export const partition: Scenario = {
  name: 'partition',
  shows: 'nodes and people cut off from each other lose nothing, and drain when the cut heals',
  needs: ['netns', 'iptables'],
  async run({ dice, directory, sizes, cleanUp }: Stage): Promise<readonly Part[]> {
    const network = new Network();
    cleanUp(() => network.remove());
    network.build();
    const seconds = sizes.partitionSeconds;
    // After an hour's cut the nodes try again every ten minutes, unless the other one comes first.
    const settleMs = 240_000 + Math.min(660_000, 250 * seconds);
    const people = network.launch('people');
    await using company = await Company.gather({
      directory,
      cleanUp,
      dice,
      listen: [listenOf('red'), listenOf('blue')],
      launches: [network.launch('red'), network.launch('blue')],
      clientLaunches: [people, people],
      meanPauseMs: seconds > longSeconds ? 1_000 : 150,
      config: '[transport]\nengines = ["quic", "tls"]\n',
    });
    company.talk();
    await sleep(warmUpMs);
    const made: { readonly cut: Cut; readonly fromMs: number; readonly toMs: number }[] = [];
    for (const cut of cuts) {
      await sleep(calmMs);
      const { recorder } = company;
      cut.make(network);
      recorder.fault('cut', '*', cut.name);
      if (cut.isCrossed === 'never') await noCrossing(company);
      const fromMs = Date.now();
      await sleep(1_000 * cut.seconds(seconds));
      const toMs = Date.now();
      recorder.fault('packets dropped', '*', String(network.dropped()));
      network.heal();
      recorder.fault('heal', '*', cut.name);
      made.push({ cut, fromMs, toMs });
      // Each one drains before the next one cuts.
      await crossing(company, toMs, settleMs);
    }
    const ending = await company.settle(settleMs);
    await company.testify();
    const { history } = company.recorder;
    const findings = [...company.unexpectedEnds];
    const recoveriesMs: number[] = [];
    const notes = made.map(({ cut, fromMs, toMs }) => {
      const during = crossedIn(history, fromMs, toMs).length;
      if (cut.isCrossed === 'never' && during > 0) {
        findings.push(`${cut.name}: ${during} messages crossed, so it was no cut`);
      }
      if (cut.isCrossed === 'always' && during === 0) {
        findings.push(`${cut.name}: nothing crossed, although TLS over TCP gets through`);
      }
      const [first] = crossedIn(history, toMs, Infinity);
      if (first !== undefined) recoveriesMs.push(first - toMs);
      const back = first === undefined ? 'never' : `${((first - toMs) / 1000).toFixed(1)} s`;
      const length = Math.round((toMs - fromMs) / 1000);
      return `${cut.name} for ${length} s: ${during} messages between the domains meanwhile; the next ${back} after it healed`;
    });
    return [
      {
        name: `${made.length} cuts, the longest ${seconds} s; ${ending}`,
        judgement: judge(history, { liveWithinMs: settleMs, promised: 'sent', recoveriesMs }),
        findings,
        notes,
      },
    ];
  },
};

/** Calls `each` whenever somebody reads texts of the other domain, until `done`. */
async function watchCrossing(
  company: Company,
  each: () => void,
  done: Promise<unknown>,
): Promise<void> {
  const sizes = new Map(company.talkers.map((talker) => [talker, talker.read.size]));
  const look = (): void => {
    for (const talker of company.talkers) {
      if (talker.read.size === sizes.get(talker)) continue;
      const news = [...talker.read].slice(sizes.get(talker));
      sizes.set(talker, talker.read.size);
      if (news.some((text) => !text.includes(`@${talker.node.domain}`))) each();
    }
  };
  for (const talker of company.talkers) talker.listen(look);
  await done;
  for (const talker of company.talkers) talker.unlisten(look);
}

/** Waits until somebody reads a message of the other domain, at most so long after the heal. */
async function crossing(company: Company, toMs: number, timeoutMs: number): Promise<void> {
  const came = Promise.withResolvers<void>();
  const late = sleep(Math.max(0, toMs + timeoutMs - Date.now()), undefined, { ref: false });
  await watchCrossing(company, came.resolve, Promise.race([came.promise, late]));
}

/** Waits until nobody reads anything of the other domain any more. */
async function noCrossing(company: Company): Promise<void> {
  const startMs = performance.now();
  let lastMs = startMs;
  const quiet = (async () => {
    while (performance.now() < Math.min(lastMs + quietMs, startMs + biteMs)) await sleep(100);
  })();
  await watchCrossing(company, () => (lastMs = performance.now()), quiet);
}

/** When messages of the other domain were taken in, from `fromMs` to `toMs`, in order. */
function crossedIn(history: History, fromMs: number, toMs: number): number[] {
  return linesOf(history, 'stored')
    .filter(({ atMs, device, senderDevice }) => {
      const isOther = domainOf(device) !== domainOf(senderDevice);
      return isOther && atMs >= fromMs && atMs <= toMs;
    })
    .map(({ atMs }) => atMs)
    .toSorted((a, b) => a - b);
}

function domainOf(device: string): string {
  return device.slice(device.indexOf('@') + 1);
}
