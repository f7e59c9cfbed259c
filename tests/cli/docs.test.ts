/**
 * The pages for client developers are true: the commands and the program of getting-started.md run
 * as they stand there, and qpc-command.md lists what the command prints and understands.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { after, suite, test } from 'node:test';
import { freePort } from '../cluster/free-port.ts';
import { runQpc } from './qpc-process.ts';

const repository = resolve(import.meta.dirname, '../..');
const page = (name: string): string =>
  readFileSync(join(repository, 'docs/developer', name), 'utf8');

/** Code blocks of a page in one language. */
function blocks(markdown: string, language: string): string[] {
  return [...markdown.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter(([, found]) => found === language)
    .map(([, , body = '']) => body);
}

interface Command {
  readonly name: string;
  readonly args: string;
}

suite('docs/developer', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-docs-'));
  const ending: (() => Promise<void>)[] = [];
  after(async () => {
    await Promise.all(ending.map((end) => end()));
    rmSync(directory, { recursive: true, force: true });
  });

  /** A shell as the reader has it: both commands on the PATH, and Node 24. */
  function shell(script: string): ReturnType<typeof spawn> {
    const path = [join(directory, 'bin'), dirname(process.execPath), process.env['PATH'] ?? ''];
    return spawn('/bin/sh', ['-e', '-c', script], {
      cwd: directory,
      env: {
        PATH: path.join(delimiter),
        NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'],
        HOME: directory,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  function installCommands(): void {
    mkdirSync(join(directory, 'bin'));
    for (const [name, main] of [
      ['qpc', 'client-lib/cli/main.ts'],
      ['qpcd', 'nodes/main.ts'],
    ] as const) {
      const path = join(directory, 'bin', name);
      const command = `exec '${process.execPath}' '${join(repository, main)}' "$@"\n`;
      writeFileSync(path, `#!/bin/sh\n${command}`);
      chmodSync(path, 0o755);
    }
    symlinkSync(join(repository, 'node_modules'), join(directory, 'node_modules'));
  }

  async function run(script: string): Promise<string> {
    const child = shell(script);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    await once(child, 'close');
    assert.equal(child.exitCode, 0, `${script}\n${output}`);
    return output;
  }

  /** `exec`, so that the process to be ended is the node and not the shell around it. */
  async function runInBackground(command: string, ready: RegExp): Promise<void> {
    const child = shell(`exec ${command}`);
    ending.push(async () => {
      if (child.exitCode !== null) return;
      const closed = once(child, 'close');
      child.kill('SIGTERM');
      await closed;
    });
    assert(child.stdout !== null);
    for await (const line of createInterface({ input: child.stdout })) {
      if (ready.test(line)) return;
    }
    assert.fail(`${command} ended`);
  }

  test('getting-started.md runs as it stands there', async () => {
    installCommands();
    const port = String(await freePort());
    const text = page('getting-started.md').replaceAll('127.0.0.1:5001', `127.0.0.1:${port}`);
    const scripts = blocks(text, 'sh');
    assert.equal(scripts.length, 4);
    let output = '';
    for (const script of scripts) {
      if (script.startsWith('qpcd run')) await runInBackground(script, /"msg":"ready"/);
      else output += await run(script);
    }
    assert.match(output, /registered alice@red\.example/);
    assert.match(output, /alice@red\.example: hello bob/);
    const [program, ...others] = blocks(text, 'ts');
    assert(program !== undefined && others.length === 0);
    writeFileSync(join(directory, 'hello.ts'), program);
    assert.match(await run('node hello.ts'), /carol@red\.example: noon\? \(logged\)/);
  });

  test('the program of library.md runs as it stands there, at the same node, and ends by itself', async () => {
    const [program, ...others] = blocks(page('library.md'), 'ts');
    assert(program !== undefined && others.length === 0);
    writeFileSync(join(directory, 'library.ts'), program);
    const said = (await run('node library.ts')).split('\n').filter((line) => line !== '');
    assert.deepEqual(said, [
      ...['ann', 'ben', 'cyd'].map((name) => `${name}@red.example reads ann@red.example: noon?`),
      'only owners and admins give names',
      'compared',
      'ben@red.example',
      '0 mailboxes',
      'ann@red.example ben@red.example',
      'UNKNOWN_USER 4',
    ]);
  });

  test('qpc-command.md lists the commands and their options', async () => {
    const text = page('qpc-command.md');
    const [usage = ''] = blocks(text, '');
    const listed = async (path: readonly string[]): Promise<Command[]> => {
      const help = (await runQpc([...path, '--help'])).stdout;
      const rows = [...help.matchAll(/^ {2}([\w-]+) ?(\[options\])? ?(.*?) {2,}/gm)];
      const found = rows.map(async ([, name = '', options, args = '']): Promise<Command[]> => {
        if (name === 'help' || name.startsWith('-')) return [];
        const at = [...path, name];
        // A group of commands has no options of its own.
        return options === undefined ? listed(at) : [{ name: at.join(' '), args }];
      });
      return (await Promise.all(found)).flat();
    };
    const commands = await listed([]);
    assert.ok(commands.length >= 21);
    for (const { name, args } of commands) {
      const line = usage.split('\n').find((one) => one.startsWith(`qpc ${name}`));
      assert(line?.startsWith(`qpc ${name} ${args}`.trimEnd()), `usage of ${name}: ${line}`);
      const own = (await runQpc([...name.split(' '), '--help'])).stdout;
      for (const [option] of own.matchAll(/--[a-z-]+/g)) {
        if (option === '--help') continue;
        assert(text.includes(option), `${name} ${option} is not on the page`);
      }
    }
  });

  test('qpc-command.md lists what the commands print', () => {
    const sources = [
      'account',
      'blocking',
      'conversations',
      'devices',
      'forks',
      'groups',
      'history',
      'keys',
      'messages',
      'output',
    ]
      .map((name) => readFileSync(join(repository, `client-lib/cli/${name}.ts`), 'utf8'))
      .join('\n');
    const rows = [...page('qpc-command.md').matchAll(/^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$/gm)];
    const listed = rows.map(([, type]) => type);
    assert.ok(rows.length >= 36);
    const printed = [...sources.matchAll(/\btype: '(\w+)'/g)].map(([, type]) => type);
    for (const type of printed) assert(listed.includes(type), `${type} is not on the page`);
  });

  test('pages link to pages that exist', () => {
    for (const name of ['getting-started.md', 'library.md', 'qpc-command.md', 'verification.md']) {
      for (const [, target = ''] of page(name).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
        assert(existsSync(join(repository, 'docs/developer', target)), `${name}: ${target}`);
      }
    }
  });
});
