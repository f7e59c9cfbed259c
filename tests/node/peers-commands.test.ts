/** `qpcd peers` and `qpcd keys` as an operator runs them: beside a running node, and without one. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, suite, test } from 'node:test';
import { call, methods, systemRandom } from '@quicprochat/proto';
import { fromBinary, NodeRecordSchema, type NodeRecord } from '@quicprochat/proto/messages';
import { makeIdentity } from '@quicprochat/proto/transport';
import { dialNode } from '../cluster/crashing-node.ts';
import {
  initCluster,
  runQpcd,
  type CommandResult,
  type NodeProcess,
} from '../cluster/node-process.ts';

async function recordOf(node: NodeProcess): Promise<NodeRecord> {
  const connection = await dialNode(node.address, await makeIdentity(systemRandom));
  const { record } = await call(connection, methods.getNodeRecord, { domain: '' });
  await connection.close(0, 'done');
  return fromBinary(NodeRecordSchema, record?.record ?? new Uint8Array());
}

suite('qpcd peers, qpcd keys', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-peers-'));
  let red: NodeProcess;
  let blue: NodeProcess;
  before(async () => {
    const [first, second] = await initCluster(directory, ['red.example', 'blue.example']);
    assert.ok(first !== undefined && second !== undefined);
    red = first;
    blue = second;
  });
  after(async () => {
    await Promise.all([red.kill(), blue.kill()]);
    rmSync(directory, { recursive: true, force: true });
  });

  const qpcd = async (...args: string[]): Promise<CommandResult> =>
    runQpcd([...args, '--config', red.configFile]);
  /** Standard output, once the command did what it should. */
  async function ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await qpcd(...args);
    assert.equal(code, 0, stderr);
    return stdout;
  }
  async function refused(message: RegExp, ...args: string[]): Promise<void> {
    const { code, stderr } = await qpcd(...args);
    assert.equal(code, 2);
    assert.match(stderr, message);
  }
  async function untilLogged(node: NodeProcess, text: string): Promise<void> {
    for (let tries = 0; tries < 600; tries += 1) {
      if (node.logLines.some((line) => line.includes(text))) return;
      await sleep(50);
    }
    assert.fail(`${node.domain} did not log ${text}`);
  }

  /** The record is written to the log a moment after the start. */
  async function untilShown(node: NodeProcess, keys: number): Promise<void> {
    for (let tries = 0; tries < 50; tries += 1) {
      if ((await recordOf(node)).keys.length === keys) return;
      await sleep(200);
    }
    assert.fail(`${node.domain} shows no record with ${keys} keys`);
  }

  test('a peers file is read again at a signal, and the list shows what came of it', async () => {
    assert.match(await ok('peers'), /^blue\.example {2}listed {2}never heard$/m);
    red.federateWith([]);
    await Promise.all([red.start(), blue.start()]);
    await untilLogged(blue, 'PEER_DENIED');
    red.federateWith([blue]);
    assert.match(await ok('peers', 'reload'), /^1 peers in the file; process \d+ reads it now/);
    await untilLogged(red, '"msg":"peers file"');
    await untilLogged(red, '"msg":"peer record"');
    assert.match(
      await ok('peers', 'list'),
      /^blue\.example {2}listed {2}active {2}heard 0 min ago\n {2}0 rows wait \(0 bytes\), 0 dead, credit 64\n {2}record 1, keys \S{43} \(without end\)$/m,
    );
  });

  test('a wrong file is refused before anybody is told, and the node goes on', async () => {
    writeFileSync(join(red.directory, 'peers'), 'friend blue.example\n');
    await refused(/peers line 1: "friend"/, 'peers', 'reload');
    assert.ok(red.pid !== undefined);
    red.federateWith([blue]);
  });

  test('keys: prepared, in the record beside the old ones, and then used alone', async () => {
    await red.stop();
    const prepared = await ok('keys', 'prepare');
    assert.ok(prepared.startsWith(`key 1 in use  ${red.address}\n`));
    const next = /^key 2 prepared {2}(\S+) {2}finish it after \d{4}-\d\d-\d\dT/m.exec(
      prepared,
    )?.[1];
    assert.ok(next !== undefined && next !== red.address);
    // Blue learns of the new key by the record that the old one signs...
    await red.start();
    await untilShown(red, 2);
    await blue.stop();
    await blue.start();
    await untilLogged(blue, '"msg":"peer keys"');
    await red.stop();
    assert.equal(await ok('keys', 'finish', '--now'), `key 2 in use  ${next}\n`);
    // ...and takes it when the old one is gone, without a look at its peers file.
    blue.logLines.length = 0;
    await red.start();
    await untilLogged(blue, '"msg":"peer connected"');
  });
});
