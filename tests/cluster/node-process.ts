/**
 * Real nodes as processes of their own: `qpcd init` and `qpcd run` exactly as an operator types
 * them, on loopback. Used by the demo, the crash tests, the chaos suite and the benches.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.ts';
import { launchOf, type Launch } from './launch.ts';

const qpcd = fileURLToPath(new URL('../../nodes/main.ts', import.meta.url));
const lyingMain = fileURLToPath(new URL('./lying-main.ts', import.meta.url));
const keptLogLines = 10_000;

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `qpcd` to its end, as another user if one is named (by number; only root may). */
export async function runQpcd(args: readonly string[], uid?: number): Promise<CommandResult> {
  const child = spawn(process.execPath, [qpcd, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid === undefined ? {} : { uid }),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

/**
 * How long the process ran on a core, and how long it was ready to and waited for one: tells a start that
 * hangs from one that the machine leaves no time for.
 */
function cpuOf(pid: number | undefined): string {
  try {
    const [ranNs, waitedNs] = readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ');
    const seconds = (ns: string | undefined): string => (Number(ns) / 1e9).toFixed(1);
    return `its first thread ran ${seconds(ranNs)} s and waited ${seconds(waitedNs)} s for a core`;
  } catch {
    return 'this system does not tell its CPU time';
  }
}

/** One node: its directory stays, its process comes and goes. */
export class NodeProcess implements AsyncDisposable {
  readonly domain: string;
  readonly directory: string;
  /** `qpc://127.0.0.1:port#pin` */
  readonly address: string;
  /** How `qpcd run` is started; takes effect at the next start. */
  launch: Launch = {};
  /** A node that is not ready by then failed to start (ms). */
  readyMs = 20_000;
  /** Standard output and error of all runs, newest lines last. */
  readonly logLines: string[] = [];
  /** Called when the process ends, once it was ready, although nobody here ended it. */
  onUnexpectedEnd: ((why: string) => void) | undefined;
  #child: ChildProcess | undefined;
  #isReady = false;

  private constructor(domain: string, directory: string) {
    this.domain = domain;
    this.directory = directory;
    this.address = readFileSync(join(directory, 'address'), 'utf8').trim();
  }

  /**
   * `qpcd init`, on a free port unless told where, with extra lines appended to its configuration.
   */
  static async init(
    domain: string,
    directory: string,
    config = '',
    at?: string,
  ): Promise<NodeProcess> {
    const listen = at ?? `127.0.0.1:${await freePort()}`;
    const args = ['init', '--domain', domain, '--dir', directory];
    const result = await runQpcd([...args, '--listen', listen, '--advertise', listen]);
    if (result.code !== 0) throw new Error(`qpcd init ended with ${result.code}: ${result.stderr}`);
    const node = new NodeProcess(domain, directory);
    const file = join(directory, 'qpcd.toml');
    if (config !== '') writeFileSync(file, `${readFileSync(file, 'utf8')}${config}\n`);
    return node;
  }

  get configFile(): string {
    return join(this.directory, 'qpcd.toml');
  }

  get databaseFile(): string {
    return join(this.directory, 'node.db');
  }

  /** Process id of the running node; undefined when it does not run. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Replaces the peers file; takes effect at the next start. */
  federateWith(peers: readonly Pick<NodeProcess, 'domain' | 'address'>[]): void {
    const lines = peers.map((peer) => `peer ${peer.domain} ${peer.address}\n`);
    writeFileSync(join(this.directory, 'peers'), lines.join(''), { mode: 0o600 });
  }

  /** `qpcd run`; resolves when the node said that it is ready. */
  async start(): Promise<void> {
    await this.#run(qpcd, this.launch);
  }

  /** The same directory under an operator who swaps the keys of a user of this node. */
  async startLying(victim: string): Promise<void> {
    await this.#run(lyingMain, { env: { QPC_VICTIM: victim } });
  }

  async #run(script: string, launch: Launch): Promise<void> {
    const { command, args, env } = launchOf(launch, script, ['run', '--config', this.configFile]);
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.logLines.push(line);
        if (this.logLines.length > keptLogLines) this.logLines.shift();
        if (!line.includes('"msg":"ready"')) return;
        this.#isReady = true;
        ready.resolve();
      });
    }
    child.once('exit', (code, signal) => {
      if (this.#child === child) this.#child = undefined;
      const last = this.logLines.slice(-5).join('\n');
      const why = `(${code ?? signal}):\n${last}`;
      ready.reject(new Error(`${this.domain} ended before it was ready ${why}`));
      if (this.#isReady) this.onUnexpectedEnd?.(`${this.domain} ended by itself ${why}`);
      this.#isReady = false;
    });
    const timer = setTimeout(() => {
      const last = this.logLines.slice(-5).join('\n');
      const why = `${this.domain} was not ready in ${this.readyMs} ms`;
      ready.reject(new Error(`${why} (${cpuOf(child.pid)}):\n${last}`));
    }, this.readyMs);
    try {
      await ready.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** SIGKILL; resolves when the process is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** SIGTERM: drains and closes. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null) return;
    this.#isReady = false;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }
}

/** Makes nodes that all federate with each other; none runs yet. */
export async function initCluster(
  directory: string,
  domains: readonly string[],
  config = '',
): Promise<NodeProcess[]> {
  const nodes = await Promise.all(
    domains.map((domain) => NodeProcess.init(domain, join(directory, domain), config)),
  );
  for (const node of nodes) node.federateWith(nodes.filter((other) => other !== node));
  return nodes;
}
