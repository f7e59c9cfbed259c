/** `qpcd outbox` as an operator runs it on a stopped node; on a running one: admin-door.test.ts. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { loadConfig, openNodeStore, readKeyFile, type NodeStore } from '@quicprochat/nodes';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { NodeProcess, runQpcd, type CommandResult } from '../cluster/node-process.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const peers = ['blue.example', 'green.example'] as const;

suite('qpcd outbox', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-outbox-'));
  let node: NodeProcess;
  before(async () => {
    node = await NodeProcess.init('red.example', join(directory, 'red'));
    // 3 dead letters and a waiting row for each peer.
    await onStore(async (store) => {
      for (const peer of peers) {
        const rid = systemRandom.bytes(32);
        for (let n = 0; n < 4; n += 1) {
          const [mid, payload] = [systemRandom.bytes(16), systemRandom.bytes(100)];
          await store.enqueueRemote(peer, { rid, kind: 1, mid, payload, ttlMs: 3_600_000 });
        }
        const { streamId } = await store.outboundStream(peer, 'bulk');
        const reason = 'UNKNOWN_DEVICE';
        const rejects = [1, 2, 3].map((seq) => ({ seq, rid, reason, temporary: false }));
        await store.settleOutbox(peer, 'bulk', streamId, 3, rejects);
      }
    });
  });
  after(async () => {
    await node.kill();
    rmSync(directory, { recursive: true, force: true });
  });

  const outbox = (...args: string[]): Promise<CommandResult> =>
    runQpcd(['outbox', ...args, '--config', node.configFile]);
  async function onStore(work: (store: NodeStore) => Promise<void>): Promise<void> {
    const { databasePath: path, databaseKeyPath, store: limits } = loadConfig(node.configFile);
    const key = readKeyFile(databaseKeyPath);
    await using store = await openNodeStore({ path, key, limits, runtime });
    await work(store);
  }
  const numbersOf = ({ stdout }: CommandResult): string[] =>
    Array.from(stdout.matchAll(/^#(\d+) /gmu), ([, number = '']) => number);

  test('list names what waits, what is dead and why', async () => {
    const all = await outbox('list');
    assert.equal(all.code, 0, all.stderr);
    assert.match(all.stdout, /^blue\.example  1 rows wait \(100 bytes\), 3 dead \(300 bytes\)\n/u);
    assert.equal(numbersOf(all).length, 6);
    assert.match(all.stdout, /^#\d+  blue\.example  device [0-9a-f]{16}  UNKNOWN_DEVICE  100 /mu);
    const blue = await outbox('list', '--peer', 'blue.example');
    assert.equal(numbersOf(blue).length, 3);
    assert.ok(!blue.stdout.includes('green.example'));
  });

  test('retry and drop take numbers, a peer or all, and nothing else', async () => {
    const wrong = [['retry'], ['drop', 'x'], ['drop', '--all', '1']];
    for (const args of wrong) {
      const { code, stderr, stdout } = await outbox(...args);
      assert.equal(code, 2, args.join(' '));
      assert.match(stderr, /^qpcd: [^\n]+\n$/u);
      assert.equal(stdout, '');
    }
    assert.equal(numbersOf(await outbox('list')).length, 6);
  });

  test('retry brings a letter back into the queue', async () => {
    const [first = ''] = numbersOf(await outbox('list'));
    const { code, stdout } = await outbox('retry', `#${first}`);
    assert.deepEqual(
      [code, stdout],
      [0, '1 are sent again from the next start, 0 are past their time\n'],
    );
    assert.match((await outbox('list')).stdout, /^blue\.example  2 rows wait .* 2 dead/u);
    await onStore(async (store) => {
      assert.equal((await store.readOutbox('blue.example', 'bulk', 0, 9, 9_999)).length, 2);
    });
  });

  test('drop removes one, those of a peer, and the rest', async () => {
    const [first = ''] = numbersOf(await outbox('list'));
    assert.equal((await outbox('drop', first, first)).stdout, '1 removed\n');
    assert.equal((await outbox('drop', '--peer', 'green.example')).stdout, '3 removed\n');
    assert.equal((await outbox('drop', '--all')).stdout, '1 removed\n');
    const left = await outbox('list');
    assert.deepEqual(numbersOf(left), []);
    assert.match(left.stdout, /^blue\.example  2 rows wait .* 0 dead \(0 bytes\)\n/u);
  });

  test('beside a node without an admin door, list lists and everything else is refused', async () => {
    appendFileSync(node.configFile, 'admin_door = false\n');
    await node.start();
    assert.match((await outbox('list')).stdout, /^blue\.example {2}2 rows wait /u);
    const { code, stderr } = await outbox('drop', '--all');
    assert.equal(code, 2);
    assert.match(stderr, /^qpcd: [^\n]+stop that qpcd first\n$/u);
  });
});
