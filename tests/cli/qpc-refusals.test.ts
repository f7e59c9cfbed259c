/** What `qpc` refuses without any node: with which line, which exit code, and nothing half-made. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { runQpc, type QpcResult } from './qpc-process.ts';

const pin = 'A'.repeat(43);
const node = `qpc://127.0.0.1:1#${pin}`;

/** A refusal: this exit code, and exactly one line that matches. */
function assertRefused(result: QpcResult, line: RegExp, code = 2): void {
  assert.equal(result.code, code, result.stderr);
  assert.equal(result.stdout, '');
  assert.match(result.stderr, /^qpc: [^\n]+\n$/);
  assert.match(result.stderr, line);
}

suite('qpc refuses', { concurrency: 2 }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-refusals-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  let lastHome = 0;
  const newHome = (): string => join(directory, `home-${(lastHome += 1)}`);
  const secret = (name: string, text: string | Uint8Array, mode = 0o600): string => {
    const path = join(directory, name);
    writeFileSync(path, text, { mode });
    chmodSync(path, mode);
    return path;
  };
  const passwordFile = secret('password', 'secret\n');

  test('audit is the auditor’s command, with its arguments and exit codes', async () => {
    const help = await runQpc(['audit', '--help']);
    assert.equal(help.code, 0);
    assert.match(help.stdout, /^qpc-audit: follow a key transparency log/u);
    const usage = await runQpc(['audit', 'follow', '--once']);
    assert.equal(usage.code, 3);
    assert.match(usage.stderr, /^qpc-audit: follow: takes 1 operand\n$/u);
    const notProven = await runQpc(['audit', 'verify-fork', passwordFile]);
    assert.equal(notProven.code, 1);
    assert.match(notProven.stderr, /^qpc-audit: not proven: /u);
  });

  for (const [name, args, line] of [
    ['an unknown command', ['chat'], /unknown command 'chat'/],
    ['a missing argument', ['send', 'bob@red.example'], /missing required argument 'text'/],
    ['a missing node', ['register', 'alice@red.example'], /--node/],
    ['an unknown option', ['whoami', '--password', 'x'], /unknown option '--password'/],
    ['a time limit of no time', ['send', 'a', 'b', '--timeout', '0'], /--timeout/],
    ['a count of half a message', ['listen', '--count', '1.5'], /--count/],
    ['a user id in capitals', ['register', 'Alice@red.example', '--node', node], /user id/],
    ['a role that there is not', ['role', 'x', 'a@red.example', 'king'], /owner, admin, member/],
    ['a port of a swarm that is off', ['send', 'a', 'b', '--p2p-port', '5'], /goes with --p2p/],
    ['a timer without a unit', ['timer', 'x', '5'], /30s, 5m, 8h or 7d/],
    ['a node address without a pin', ['register', 'a@red.example', '--node', 'qpc://h:1'], /pin/],
    [
      'two ways to keep the key',
      ['register', 'a@red.example', '--node', node, '--no-passphrase', '--passphrase-file', 'x'],
      /exclude each other/,
    ],
  ] as const) {
    test(`${name}, and makes nothing`, async () => {
      const home = newHome();
      assertRefused(await runQpc([...args, '--home', home]), line);
      assert.equal(existsSync(home), false);
    });
  }

  test('a home without an account, with the command that makes one', async () => {
    for (const args of [
      ['whoami'],
      ['conversations'],
      ['login'],
      ['send', 'bob@red.example', 'x'],
      ['listen'],
      ['create', 'team', 'bob@red.example'],
    ]) {
      assertRefused(await runQpc([...args, '--home', newHome()]), /qpc register/);
    }
  });

  test('to ask for a secret when there is no terminal', async () => {
    const home = newHome();
    const register = ['register', 'alice@red.example', '--node', node, '--home', home];
    assertRefused(await runQpc(register), /--password-file/);
    assertRefused(
      await runQpc([...register, '--password-file', passwordFile]),
      /--passphrase-file/,
    );
    assertRefused(
      await runQpc([...register, '--password-file', '-', '--no-passphrase']),
      /standard input ended/,
    );
    assert.equal(existsSync(home), false);
  });

  test('secret files that others may read, or that hold more than a secret', async () => {
    const home = newHome();
    const register = ['register', 'alice@red.example', '--node', node, '--home', home];
    const attempt = (file: string): Promise<QpcResult> =>
      runQpc([...register, '--no-passphrase', '--password-file', file]);
    assertRefused(await attempt(secret('readable', 'secret\n', 0o644)), /chmod 600 /);
    assertRefused(await attempt(secret('lines', 'one\ntwo\n')), /more than one line/);
    assertRefused(await attempt(secret('empty', '\n')), /password: is empty/);
    assertRefused(await attempt(secret('latin1', Buffer.from('caf\u00e9', 'latin1'))), /no UTF-8/);
    assertRefused(await attempt(join(directory, 'nothing')), /does not exist/);
    assertRefused(await attempt(directory), /no regular file/);
    assert.equal(existsSync(home), false);
  });

  test('a home or a vault that others may use, with the command that mends it', async () => {
    const home = newHome();
    mkdirSync(home, { mode: 0o700 });
    writeFileSync(join(home, 'store.key'), 'x', { mode: 0o600 });
    chmodSync(home, 0o750);
    assertRefused(await runQpc(['whoami', '--home', home]), /chmod 700 /);
    chmodSync(home, 0o700);
    chmodSync(join(home, 'store.key'), 0o640);
    assertRefused(await runQpc(['whoami', '--home', home]), /chmod 600 .*store\.key/);
    chmodSync(join(home, 'store.key'), 0o600);
    assertRefused(await runQpc(['whoami', '--home', home]), /is no qpc key vault/);
  });

  test('a store whose vault is missing, instead of making a new key', async () => {
    const home = newHome();
    mkdirSync(home, { mode: 0o700 });
    writeFileSync(join(home, 'store.db'), 'x', { mode: 0o600 });
    const register = ['register', 'alice@red.example', '--node', node, '--home', home];
    assertRefused(
      await runQpc([...register, '--no-passphrase', '--password-file', passwordFile]),
      /store\.key: is missing/,
    );
    assert.deepEqual(readdirSync(home), ['store.db']);
  });

  test('a node that does not answer, and goes on from there at the next try', async () => {
    const home = newHome();
    const register = ['register', 'alice@red.example', '--node', node, '--home', home];
    const args = [...register, '--no-passphrase', '--password-file', passwordFile];
    assertRefused(await runQpc([...args, '--timeout', '1']), /did not answer/, 1);
    const { code, stdout } = await runQpc(['whoami', '--home', home, '--json']);
    assert.equal(code, 0);
    assert.equal((JSON.parse(stdout) as { isRegistered: boolean }).isRegistered, false);
    assertRefused(await runQpc(['conversations', '--home', newHome()]), /qpc register/);
  });

  test('in JSON when it was asked to, on standard error', async () => {
    const result = await runQpc(['whoami', '--json', '--home', newHome()]);
    assert.equal(result.stdout, '');
    const error = JSON.parse(result.stderr) as Record<string, unknown>;
    assert.deepEqual(Object.keys(error), ['type', 'reason', 'message']);
    assert.deepEqual([error['type'], error['reason']], ['error', 'NO_ACCOUNT']);
  });

  test('nothing when it is asked for help or its version', async () => {
    const help = await runQpc(['register', '--help']);
    assert.equal(help.code, 0);
    assert.match(help.stdout.replaceAll(/\s+/g, ' '), /default: \$QPC_HOME or ~\/\.qpc/);
    assert.equal((await runQpc(['--version'])).stdout, 'qpc 0.1.0\n');
  });
});
