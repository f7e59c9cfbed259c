/**
 * Devices behind two MASQUERADE routers, in network namespaces: what direct dials, relays and gossip
 * do there. Root on Linux with iproute2 and iptables; elsewhere it says so and is skipped.
 * `npm run p2p:nat`
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { loadSwarmKey } from '@quicprochat/p2p';
import { systemClock, systemRandom } from '@quicprochat/proto';
import { missing } from '../../chaos/capabilities.ts';
import { addresses, NatNetwork, type Party } from './network.ts';
import type { Answer, Command } from './party.ts';

const port = 5002;

class Process {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #lastId = 0;

  constructor(prefix: readonly string[]) {
    const program = fileURLToPath(new URL('party.ts', import.meta.url));
    const [command = '', ...args] = prefix;
    this.#child = spawn(command, [...args, process.execPath, program], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    });
    this.#child.on('message', (message) => {
      const [id, answer] = message as [number, Answer];
      this.#waiting.get(id)?.(answer);
      this.#waiting.delete(id);
    });
  }

  ask(command: Command): Promise<Answer> {
    const id = (this.#lastId += 1);
    const answer = new Promise<Answer>((resolve) => this.#waiting.set(id, resolve));
    this.#child.send([id, command]);
    return answer;
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exited;
  }
}

/** Waits for a state; returns how long it took (ms). */
async function until(what: () => Promise<boolean>, ms: number): Promise<number> {
  const startMs = performance.now();
  while (!(await what())) {
    assert.ok(performance.now() - startMs < ms, `not within ${ms} ms`);
    await systemClock.sleep(100);
  }
  return performance.now() - startMs;
}

const said = (name: string, result: string): void => console.log(`${name.padEnd(58)} ${result}`);

async function main(network: NatNetwork, started: Process[]): Promise<void> {
  network.build();
  const start = (party: Party): Process => {
    const process_ = new Process(network.prefix(party));
    started.push(process_);
    return process_;
  };
  for (const transport of [`udp/${port}/quic-v1`, `tcp/${port}`]) await devices(start, transport);
  await nodes(start, network);
  await neighboursAtHome(start);
}

async function devices(start: (party: Party) => Process, transport: string): Promise<void> {
  const [anna, bert] = [start('anna'), start('bert')];
  let relay = start('relay');
  const seed = systemRandom.bytes(32);
  const relayCommand: Command = { do: 'relay', seed, host: addresses.relay, port };
  await Promise.all([
    anna.ask({ do: 'device', seed: systemRandom.bytes(32) }),
    bert.ask({ do: 'device', seed: systemRandom.bytes(32) }),
    relay.ask(relayCommand),
  ]);
  const place = `/ip4/${addresses.relay}/${transport}/p2p/${loadSwarmKey(seed).peerId}`;
  await bert.ask({ do: 'setRelays', relays: [place] });
  const isReserved = async () => (await bert.ask({ do: 'status' })).isReserved === true;
  await until(isReserved, 20_000);
  const { record } = await bert.ask({ do: 'status' });
  assert(record !== undefined);
  const deliver = (direct: boolean, relayed: boolean): Promise<Answer> =>
    anna.ask({ do: 'deliver', to: record, direct, relay: relayed, budgetMs: 8_000 });

  const direct = await deliver(true, false);
  assert.ok(direct.outcome !== 'direct' && direct.outcome !== 'relay');
  said(`direct dial through both routers`, `fails, as it must: ${direct.outcome}`);
  const both = await deliver(true, true);
  assert.equal(both.outcome, 'relay');
  said(`all ways, relay over ${transport}`, `relay after ${both.ms?.toFixed(0)} ms`);
  const again = await deliver(false, true);
  assert.equal(again.outcome, 'relay');
  said(`the next message`, `relay after ${again.ms?.toFixed(0)} ms`);

  await relay.kill();
  const lostMs = await until(async () => !(await isReserved()), 30_000);
  said(`relay killed: loss noticed`, `${lostMs.toFixed(0)} ms`);
  await systemClock.sleep(5_000);
  relay = start('relay');
  await relay.ask(relayCommand);
  const backMs = await until(isReserved, 75_000);
  const after = await deliver(false, true);
  assert.equal(after.outcome, 'relay');
  said(`relay is back: reserved again, and delivered to`, `${backMs.toFixed(0)} ms`);
  await Promise.all([anna, bert, relay].map((one) => one.kill()));
}

async function nodes(start: (party: Party) => Process, network: NatNetwork): Promise<void> {
  const logSeed = systemRandom.bytes(32);
  const names = ['red', 'blue'] as const;
  const parties = names.map((party, index) => ({
    party,
    process: start(party),
    seed: systemRandom.bytes(32),
    listen: `/ip4/${addresses[party]}/udp/${port}/quic-v1`,
    entries: 3 + index,
  }));
  const [red, blue] = parties;
  assert(red !== undefined && blue !== undefined);
  await Promise.all(
    parties.map(({ process: one, seed, listen, entries }) =>
      one.ask({ do: 'node', seed, logSeed, listen, entries }),
    ),
  );
  for (const [one, other] of [[red, blue] as const, [blue, red] as const]) {
    const { peerId } = loadSwarmKey(other.seed);
    await one.process.ask({ do: 'setPeer', peerId, address: other.listen });
  }
  const status = (one: Process): Promise<Answer> => one.ask({ do: 'status' });
  const areUp = async () =>
    (await status(red.process)).up === 1 && (await status(blue.process)).up === 1;
  await until(areUp, 20_000);
  network.setLink('blue', false);
  await until(async () => (await status(red.process)).up === 0, 30_000);
  // While they are apart, the log shows each of them another face.
  await Promise.all(parties.map(({ process: one }) => one.ask({ do: 'pull' })));
  await systemClock.sleep(5_000);
  network.setLink('blue', true);
  const upMs = await until(areUp, 75_000);
  const convicted = async () =>
    (await status(red.process)).isConvicted === true &&
    (await status(blue.process)).isConvicted === true;
  const healedMs = await until(convicted, 10_000);
  said('partition of two nodes ends: connected again', `${upMs.toFixed(0)} ms`);
  said('the fork of while they were apart: evidence at both', `${healedMs.toFixed(0)} ms later`);
}

/** Two devices on one bridge that know each other's keys, and no address. */
async function neighboursAtHome(start: (party: Party) => Process): Promise<void> {
  const [one, other] = [start('red'), start('blue')];
  for (const device of [one, other]) {
    await device.ask({ do: 'device', seed: systemRandom.bytes(32), lan: true });
  }
  const { record } = await other.ask({ do: 'status' });
  assert(record !== undefined);
  let delivered: Answer = {};
  const foundMs = await until(async () => {
    // Their records' own addresses are left out.
    delivered = await one.ask({
      do: 'deliver',
      to: record,
      direct: false,
      relay: false,
      budgetMs: 5_000,
    });
    return delivered.outcome === 'direct';
  }, 30_000);
  said('multicast DNS on a bridge: found and delivered to', `${foundMs.toFixed(0)} ms`);
}

const lacking = missing(['root', 'netns', 'iptables']);
if (lacking.length > 0) {
  console.log(`skipped: this machine does not allow ${lacking.join(', ')}`);
} else {
  const network = new NatNetwork();
  const started: Process[] = [];
  try {
    await main(network, started);
  } finally {
    await Promise.all(started.map((one) => one.kill()));
    network.remove();
  }
}
