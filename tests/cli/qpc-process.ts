/**
 * The `qpc` command as people and programs run it: a process of its own, its output by lines.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const qpcMain = fileURLToPath(new URL('../../client-lib/cli/main.ts', import.meta.url));
type Child = ChildProcessByStdio<Writable, Readable, Readable>;

export interface QpcResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface QpcOptions {
  /** What it reads from standard input; nothing by default. */
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
}

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): Child {
  return spawn(process.execPath, [qpcMain, ...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    // Nothing else of the test's environment; the cache spares each process half of its start.
    env: {
      PATH: process.env['PATH'],
      NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'],
      HOME: '/nonexistent',
      ...env,
    },
  });
}

/** Runs `qpc` to its end. */
export async function runQpc(
  args: readonly string[],
  options: QpcOptions = {},
): Promise<QpcResult> {
  const child = start(args, options.env);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // It may end without reading what it was given; that is its right.
  child.stdin.on('error', () => undefined).end(options.stdin ?? '');
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

/** A `qpc` that goes on until it is told to stop. */
export class QpcProcess implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly stderrLines: string[] = [];
  readonly #child: Child;
  readonly #ended: Promise<number | null>;
  #wake: () => void = () => undefined;

  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#child = start(args, env);
    this.#child.stdin.end();
    this.#ended = once(this.#child, 'close').then(() => this.#child.exitCode);
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.lines.push(line);
      this.#wake();
    });
    createInterface({ input: this.#child.stderr }).on('line', (line) => {
      this.stderrLines.push(line);
    });
    this.#child.on('close', () => this.#wake());
  }

  /** The first line of output that matches, from all so far or to come. */
  async line(pattern: RegExp): Promise<string> {
    for (;;) {
      const found = this.lines.find((line) => pattern.test(line));
      if (found !== undefined) return found;
      if (this.#child.exitCode !== null) {
        throw new Error(`qpc ended without ${pattern}: ${this.stderrLines.join('\n')}`);
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Exit code. */
  async stop(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    return this.#ended;
  }

  async ended(): Promise<number | null> {
    return this.#ended;
  }

  /** Closes our end of its output, as `head` does. */
  closeOutput(): void {
    this.#child.stdout.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
