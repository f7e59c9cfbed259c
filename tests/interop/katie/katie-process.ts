/**
 * The Go program of this folder as a process: built where Go and katie's module are to be had, asked
 * over pipes with one JSON line each way. See README.md.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const goMinorMin = 25;

interface Ran {
  /** Undefined: there is no such program. */
  readonly code: number | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

async function go(args: readonly string[]): Promise<Ran> {
  const env = { GOTOOLCHAIN: 'local', ...process.env };
  const child = spawn('go', args, {
    cwd: import.meta.dirname,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const code = await new Promise<number | null | undefined>((resolve, reject) => {
    child.once('close', resolve);
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve(undefined);
      else reject(error);
    });
  });
  return { code, stdout, stderr };
}

/** What the go command says when a proxy does not give a module, or cannot be reached. */
const notGiven =
  /: (?:4\d\d|5\d\d) [A-Z]|dial tcp|no such host|connection re(?:fused|set)|i\/o timeout|TLS handshake|GOPROXY=off|proxyconnect/;

/** Why there is nothing to compare with on this machine; undefined when there is. */
export async function whyAbsent(): Promise<string | undefined> {
  const { code, stdout } = await go(['env', 'GOVERSION']);
  if (code === undefined) return 'Go is not installed';
  const [, minor] = /^go1\.(\d+)/.exec(stdout) ?? [];
  if (minor !== undefined && Number(minor) < goMinorMin) {
    return `Go 1.${goMinorMin} is needed, found ${stdout.trim()}`;
  }
  const fetched = await go(['mod', 'download']);
  if (fetched.code === 0) return undefined;
  if (!/SECURITY ERROR/.test(fetched.stderr) && notGiven.test(fetched.stderr)) {
    const [line = ''] = fetched.stderr.split('\n').filter((text) => notGiven.test(text));
    return `the Go module proxy does not give a module: ${line.trim()}`;
  }
  throw new Error(`go mod download ended with ${fetched.code}: ${fetched.stderr}`);
}

/** A folder with the two programs in it; removed when disposed of. */
export class KatieProgram implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'qpc-katie-'));
  /** Serves the differential test, under simulated time. */
  readonly server = join(this.#folder, 'katie-serve');
  /** Runs the benches, under the time of the machine. */
  readonly bench = join(this.#folder, 'katie');

  static async build(what: 'server' | 'bench'): Promise<KatieProgram> {
    const program = new KatieProgram();
    const args =
      what === 'server' ? ['test', '-c', '-o', program.server] : ['build', '-o', program.bench];
    const built = await go([...args, '.']);
    if (built.code === 0) return program;
    program[Symbol.dispose]();
    throw new Error(`go ${args[0]} ended with ${built.code}: ${built.stderr}`);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** What a verified response says, as katie's algorithms took it. */
export interface Outcome {
  readonly size: number;
  readonly root: string;
  readonly version: number;
  readonly value: string | null;
  readonly terminal: number;
  readonly mustMonitor: boolean;
  readonly map: readonly (readonly [number, number])[] | null;
  readonly start: number;
  readonly versionAtStart: number;
  readonly upcoming: readonly number[] | null;
  readonly created: readonly string[] | null;
}

/** protocol.go: byte strings are base64. */
export interface Reply {
  readonly refused?: string;
  readonly id?: number;
  readonly config?: string;
  readonly root?: string;
  readonly entry?: string;
  readonly update?: string;
  readonly head?: string;
  readonly response?: string;
  readonly outcome?: Outcome;
  readonly library?: string;
}

export const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
export const ofBase64 = (text: string | null | undefined): Uint8Array =>
  new Uint8Array(Buffer.from(text ?? '', 'base64'));

function encodeBytes(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? toBase64(value) : value;
}

/** A running server. Its time is the one that the messages carry. */
export class KatieServer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting: PromiseWithResolvers<Reply>[] = [];
  readonly #closed: Promise<unknown>;
  #stderr = '';

  constructor(program: KatieProgram) {
    this.#child = spawn(program.server, ['-test.run=^TestServe$', '-test.timeout=0'], {
      env: { ...process.env, KATIE_SERVE: '1' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = this.#child;
    if (stdout === null || stderr === null) throw new TypeError('no pipes');
    stderr.setEncoding('utf8').on('data', (text: string) => (this.#stderr += text));
    createInterface({ input: stdout }).on('line', (line) => this.#take(line));
    this.#closed = once(this.#child, 'close').then(([code, signal]) => {
      const end = String(code ?? signal);
      for (const one of this.#waiting.splice(0)) {
        one.reject(new Error(`the Go program ended with ${end}: ${this.#stderr}`));
      }
    });
  }

  #take(line: string): void {
    const next = this.#waiting.shift();
    // What the testing package prints at the end is nobody's answer.
    if (next === undefined) return;
    const reply = JSON.parse(line) as Reply & { readonly fault?: string };
    if (reply.fault === undefined) next.resolve(reply);
    else next.reject(new Error(`the Go program: ${reply.fault}`));
  }

  /** Sends one message and waits for its answer; several may be under way, in order. */
  ask(op: string, atMs: number, fields: Readonly<Record<string, unknown>> = {}): Promise<Reply> {
    const waiting = Promise.withResolvers<Reply>();
    this.#waiting.push(waiting);
    this.#child.stdin?.write(`${JSON.stringify({ op, atMs, ...fields }, encodeBytes)}\n`);
    return waiting.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin?.end();
    await this.#closed;
  }
}
