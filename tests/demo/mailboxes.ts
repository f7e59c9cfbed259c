/**
 * `npm run demo:mailboxes`: three nodes and two people, with `qpcd` and `qpc` as anybody runs them. Alice is at red,
 * Bob at blue, and neither finds a way to the other's device: only green is left when red and blue are killed
 * with SIGKILL, and green keeps a mailbox for each. What they write then comes through it; the nodes return
 * and bring the same copies; nothing is lost, doubled or out of order. At the end Bob gives his mailbox back.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QpcProcess, runQpc } from '../cli/qpc-process.ts';
import { freePort } from '../cluster/free-port.ts';
import { NodeProcess } from '../cluster/node-process.ts';
import { pause } from './stage.ts';

type Json = Readonly<Record<string, unknown>>;
/** Past nodes, over relays alone; and no node here relays. */
const ways = ['--p2p', '--p2p-relays'];
/** Of one step (ms). */
const patienceMs = 150_000;
const kt =
  '[kt]\nbatch_ms = 50\nvrf_threads = 0\nreasonable_monitoring_window_ms = 100\nmax_behind_ms = 4000\n';

const directory = mkdtempSync(join(tmpdir(), 'qpc-demo-'));
const startedMs = performance.now();
const nodes: NodeProcess[] = [];
const listeners = new Set<QpcProcess>();

function say(text: string): void {
  console.log(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(5)} s  ${text}`);
}

/** `qpcd init`, with a swarm that says which peers have one; no relay, or devices would meet there. */
async function makeNode(name: string, more = ''): Promise<NodeProcess> {
  const place = `127.0.0.1:${await freePort()}`;
  const p2p = `[p2p]\nlisten = "${place}"\nadvertise = ["${place}"]\nrelay = false\n`;
  const node = await NodeProcess.init(
    `${name}.example`,
    join(directory, name),
    `${p2p}${more}${kt}`,
  );
  // Three of them start at once, beside whatever else this machine does.
  node.readyMs = patienceMs;
  nodes.push(node);
  return node;
}

/** A person with one device, whose home is used by one `qpc` at a time. */
class Person {
  readonly name: string;
  /** Texts that came, with their paths, in the order of their coming. */
  readonly came: (readonly [string, string])[] = [];
  readonly #home: string;
  #listener: QpcProcess | undefined;

  constructor(name: string) {
    this.name = name;
    this.#home = join(directory, `home-${name}`);
  }

  async run(args: readonly string[], code = 0): Promise<readonly Json[]> {
    const result = await runQpc([...args, '--home', this.#home, '--json']);
    assert.equal(result.code, code, `qpc ${args.join(' ')}: ${result.stderr}`);
    const lines = (code === 0 ? result.stdout : result.stderr).split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as Json);
  }

  async register(node: NodeProcess): Promise<void> {
    const passwordFile = join(directory, `password-${this.name}`);
    writeFileSync(passwordFile, 'a password of the demo\n', { mode: 0o600 });
    await this.run([
      ...['register', `${this.name}@${node.domain}`, '--node', node.address],
      ...['--password-file', passwordFile, '--no-passphrase', '--timeout', '120'],
    ]);
  }

  listen(): void {
    const listener = new QpcProcess(['listen', ...ways, '--home', this.#home, '--json']);
    listeners.add(listener);
    this.#listener = listener;
  }

  /** Until this text has come; returns by which path. */
  async hears(text: string): Promise<string> {
    const heard = new AbortController();
    const { signal } = heard;
    const late = sleep(patienceMs, undefined, { signal }).then(() => {
      throw new Error(`${this.name} waits for: ${text}`);
    });
    const line = await Promise.race([this.#listener?.line(new RegExp(`"text":"${text}"`)), late]);
    // Else the process would wait for the time to be over.
    heard.abort();
    return String((JSON.parse(line ?? '{}') as Json)['via']);
  }

  /** Ends the listener, and keeps what it heard. */
  async quiet(): Promise<void> {
    const listener = this.#listener;
    if (listener === undefined) return;
    this.#listener = undefined;
    await listener.stop('SIGTERM');
    listeners.delete(listener);
    const heard = listener.lines.map((line) => JSON.parse(line) as Json);
    for (const { type, text, via } of heard) {
      if (type === 'message') this.came.push([String(text), String(via)]);
    }
  }

  /** Writes; with `code` 1 nobody answers for the copies within the time. */
  async writes(to: string, text: string, { code = 0, seconds = 120 } = {}): Promise<void> {
    await this.quiet();
    await this.run(['send', to, text, ...ways, '--timeout', String(seconds)], code);
    this.listen();
  }

  /** Goes on listening until there is a mailbox. */
  async getsMailbox(): Promise<void> {
    for (const untilMs = performance.now() + patienceMs; ;) {
      this.listen();
      await pause(25_000);
      await this.quiet();
      const mailboxes = await this.run(['mailbox', 'list']);
      if (mailboxes.length > 0)
        return say(`${this.name} has a mailbox at ${String(mailboxes[0]?.['domain'])}`);
      assert(performance.now() < untilMs, `${this.name} got no mailbox`);
    }
  }
}

async function run(): Promise<void> {
  const [red, blue, green] = [
    await makeNode('red'),
    await makeNode('blue'),
    await makeNode('green', '[mailboxes]\nplaces = 8\n'),
  ];
  for (const node of nodes) node.federateWith(nodes.filter((one) => one !== node));
  await Promise.all(nodes.map((node) => node.start()));
  const [alice, bob] = [new Person('alice'), new Person('bob')];
  await Promise.all([alice.register(red), bob.register(blue)]);
  say('three nodes run, green keeps mailboxes; alice is at red, bob at blue');
  await Promise.all([alice.getsMailbox(), bob.getsMailbox()]);

  bob.listen();
  await alice.writes('bob@blue.example', 'hello');
  await bob.hears('hello');
  // Who writes tells where its mailbox is; who hears it asks the own node for the node that keeps it.
  await bob.writes('alice@red.example', 'hello yourself');
  await alice.hears('hello yourself');
  // Addresses are told when their device has done with looking for relays, ten seconds after its start.
  await pause(25_000);
  say('they know each other, and where to write when nodes die');

  await Promise.all([red.kill(), blue.kill()]);
  const diedMs = performance.now();
  say('red and blue are killed with SIGKILL');
  for (const text of ['dark one', 'dark two']) {
    await alice.writes('bob@blue.example', text, { code: 1, seconds: 10 });
  }
  const via = await bob.hears('dark two');
  say(
    `bob has what alice wrote, ${((performance.now() - diedMs) / 1000).toFixed(1)} s after the death of his node, by: ${via}`,
  );
  assert.equal(via, 'mailbox');
  await bob.writes('alice@red.example', 'dark three', { code: 1, seconds: 10 });
  assert.equal(await alice.hears('dark three'), 'mailbox');
  say('and alice has what bob wrote');

  await Promise.all([red.start(), blue.start()]);
  say('red and blue are back');
  await alice.writes('bob@blue.example', 'light');
  assert.equal(await bob.hears('light'), 'node');
  await bob.writes('alice@red.example', 'light too');
  await alice.hears('light too');
  await Promise.all([alice.quiet(), bob.quiet()]);

  const texts = ({ came }: Person): readonly string[] => came.map(([text]) => text);
  for (const { name, came } of [alice, bob]) {
    for (const [text, path] of came) console.log(`  ${name.padEnd(6)} ${text.padEnd(16)} ${path}`);
  }
  assert.deepEqual(texts(bob), ['hello', 'dark one', 'dark two', 'light']);
  assert.deepEqual(texts(alice), ['hello yourself', 'dark three', 'light too']);
  await bob.run(['mailbox', 'give-back']);
  assert.deepEqual(await bob.run(['mailbox', 'list']), []);
  say(`bob has given his mailbox at ${green.domain} back`);
}

let isGood = false;
try {
  await run();
  isGood = true;
} catch (error) {
  console.error(error);
  for (const { domain, logLines } of nodes) {
    console.error(`-- ${domain}\n${logLines.slice(-20).join('\n')}`);
  }
}
await Promise.allSettled([...listeners, ...nodes].map((one) => one[Symbol.asyncDispose]()));
rmSync(directory, { recursive: true, force: true });
say(isGood ? 'nothing was lost, doubled or out of order' : 'FAILED');
process.exitCode = isGood ? 0 : 1;
