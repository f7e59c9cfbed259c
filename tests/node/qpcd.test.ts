/** The `qpcd` command as an operator runs it: what it refuses, with which line and exit code. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseNodeAddress } from '@quicprochat/proto';
import { NodeProcess, runQpcd, type CommandResult } from '../cluster/node-process.ts';

/** A refusal: exit code 2 and exactly one line that matches. */
function assertRefused(result: CommandResult, line: RegExp): void {
  assert.equal(result.code, 2, result.stderr);
  // A node that is to run says how far it came.
  assert.match(result.stdout, /^([^\n]*"msg":"starting"[^\n]*\n)*$/);
  assert.match(result.stderr, /^qpcd: [^\n]+\n$/);
  assert.match(result.stderr, line);
}

suite('qpcd', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpcd-test-'));
  let node: NodeProcess;
  before(async () => {
    node = await NodeProcess.init('red.example', join(directory, 'red'));
  });
  after(async () => {
    await node.kill();
    rmSync(directory, { recursive: true, force: true });
  });
  const run = (): Promise<CommandResult> => runQpcd(['run', '--config', node.configFile]);

  test('init prints the address with the pin, and keeps secrets to their owner', () => {
    assert.equal(parseNodeAddress(node.address).pin.length, 32);
    for (const file of ['database.key', 'node.db', 'qpcd.toml', 'peers']) {
      assert.equal(statSync(join(node.directory, file)).mode & 0o077, 0, file);
    }
  });

  test('init refuses a directory that is not empty, and changes nothing in it', async () => {
    const key = readFileSync(join(node.directory, 'database.key'));
    assertRefused(
      await runQpcd(['init', '--domain', 'red.example', '--dir', node.directory]),
      /not empty/,
    );
    assert.deepEqual(readFileSync(join(node.directory, 'database.key')), key);
  });

  test('init with a bad option leaves nothing behind', async () => {
    const target = join(directory, 'bad');
    assertRefused(
      await runQpcd(['init', '--domain', 'Red.Example', '--dir', target]),
      /domain: need/,
    );
    assertRefused(
      await runQpcd([
        'init',
        '--domain',
        'red.example',
        '--dir',
        target,
        '--listen',
        'localhost:1',
      ]),
      /listen: need ip:port/,
    );
    assert.equal(existsSync(target), false);
  });

  test('unknown commands and options end with 2', async () => {
    assert.equal((await runQpcd(['walk'])).code, 2);
    assert.equal((await runQpcd(['run', '--fast'])).code, 2);
  });

  test('a key file that others can read is refused with the command that mends it', async () => {
    const file = join(node.directory, 'database.key');
    for (const mode of [0o640, 0o604, 0o660]) {
      chmodSync(file, mode);
      assertRefused(await run(), /chmod 600/);
    }
    chmodSync(file, 0o600);
  });

  test('a wrong key is refused, and the database stays as it was', async () => {
    const file = join(node.directory, 'database.key');
    const key = readFileSync(file, 'utf8');
    const database = readFileSync(node.databaseFile);
    writeFileSync(file, `${'ab'.repeat(32)}\n`);
    assertRefused(await run(), /key/);
    writeFileSync(file, 'not hex\n');
    assertRefused(await run(), /64 hex digits/);
    writeFileSync(file, key);
    assert.deepEqual(readFileSync(node.databaseFile), database);
  });

  test('a broken configuration is refused with the key that is wrong', async () => {
    const config = readFileSync(node.configFile, 'utf8');
    const broken: [string, RegExp][] = [
      [`${config}\nlog_level = `, /qpcd\.toml: /],
      [`${config}\n[limits]\ninbox_rows = -1\n`, /limits\.inbox_rows/],
      [`${config}\n[limits]\ninbox_rowz = 5\n`, /inbox_rowz/],
      [config.replace(/^domain.*$/m, ''), /domain/],
      [config.replace(/^database = .*$/m, 'database = "elsewhere.db"'), /elsewhere\.db/],
    ];
    for (const [text, line] of broken) {
      writeFileSync(node.configFile, text);
      assertRefused(await run(), line);
    }
    writeFileSync(node.configFile, config);
    assert.equal(existsSync(join(node.directory, 'elsewhere.db')), false);
  });

  test('a broken peers file is refused with its line', async () => {
    const file = join(node.directory, 'peers');
    const peers = readFileSync(file, 'utf8');
    writeFileSync(file, '# comment\npeer blue.example qpc://blue.example:5001#short\n');
    assertRefused(await run(), /peers line 2/);
    writeFileSync(file, `peer red.example ${node.address}\n`);
    assertRefused(await run(), /own domain/);
    writeFileSync(file, peers);
  });

  test('a port in use is refused with what to do', async () => {
    const { host, port } = parseNodeAddress(node.address);
    const socket = createSocket('udp4');
    socket.bind(port, host);
    await once(socket, 'listening');
    try {
      assertRefused(await run(), /another process uses that port/);
    } finally {
      socket.close();
    }
  });

  test('a second process on the same database is refused; the first one lives on', async () => {
    const starting = node.start();
    // A signal that comes before there is anything to read again ends nothing, and is not forgotten.
    while (!node.logLines.some((line) => line.includes('"step"'))) await sleep(5);
    process.kill(node.pid ?? 0, 'SIGHUP');
    await starting;
    assertRefused(await run(), /in use by another process/);
    assert.notEqual(node.pid, undefined);
    const health = await runQpcd(['health', '--config', node.configFile]);
    assert.equal(health.code, 0, health.stdout + health.stderr);
    assert.match(health.stdout, /^red\.example {2}ready {2}qpcd [\d.]+, up 0 min\n$/);
    const backup = ['backup', join(directory, 'copy.db'), '--config', node.configFile];
    assert.match((await runQpcd(backup)).stdout, /copy\.db {2}\d+ bytes\n$/);
    await node.stop();
    assert.ok(node.logLines.some((line) => line.includes('"msg":"peers file"')));
    const silence = await runQpcd(['health', '--config', node.configFile]);
    assert.deepEqual([silence.code, silence.stderr], [1, '']);
    assert.match(silence.stdout, /^127\.0\.0\.1:\d+: no node answers there/);
    const said = node.logLines.join('\n');
    // The step that a start hangs in is the last one that it said.
    const steps = [...said.matchAll(/"step":"([^"]+)","msg":"starting"/g)].map(([, step]) => step);
    assert.deepEqual(steps, [
      ...['database', 'secrets', 'key log', 'password library', 'listener'],
      ...['http door', 'swarm', 'peers', 'hubs'],
    ]);
    assert.match(said, /stopping/);
  });
});
