/** The admin door: an operator decides over dead letters of a running node, real `qpcd` processes on both sides. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { appendFileSync, chmodSync, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadConfig, openNodeStore, readKeyFile } from '@quicprochat/nodes';
import {
  call,
  hasReason,
  methods,
  silentLog,
  systemClock,
  systemRandom,
  type MethodName,
} from '@quicprochat/proto';
import {
  CloseCode,
  defaultLimits,
  dialLocal,
  makeIdentity,
  type Connection,
} from '@quicprochat/proto/transport';
import { CrashingNode, dialNode, RawDevice } from '../cluster/crashing-node.ts';
import { initCluster, NodeProcess, runQpcd, type CommandResult } from '../cluster/node-process.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const blue = 'blue.example';
const socketOf = (node: NodeProcess): string => `${node.databaseFile}-admin/socket`;
const refused = (reason: string) => (error: unknown) => hasReason(error, reason);
/** Nobody's on this machine. */
const stranger = 65_534;

const outbox = (node: NodeProcess, ...args: string[]): Promise<CommandResult> =>
  runQpcd(['outbox', ...args, '--config', node.configFile]);
/** Standard output, once the command did what it should. */
async function ok(node: NodeProcess, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await outbox(node, ...args);
  assert.equal(code, 0, stderr);
  return stdout;
}
async function numbers(node: NodeProcess): Promise<string[]> {
  const lines = (await ok(node, 'list')).matchAll(/^#(\d+) /gmu);
  return Array.from(lines, ([, number = '']) => number);
}

/** Messages of the stopped node to devices of blue that died before they left. */
async function plant(node: NodeProcess, rids: readonly Uint8Array[]): Promise<void> {
  const { databasePath: path, databaseKeyPath, store: limits } = loadConfig(node.configFile);
  const key = readKeyFile(databaseKeyPath);
  await using store = await openNodeStore({ path, key, limits, runtime });
  for (const rid of rids) {
    const [mid, payload] = [systemRandom.bytes(16), systemRandom.bytes(100)];
    await store.enqueueRemote(blue, { rid, kind: 1, mid, payload, ttlMs: 3_600_000 });
  }
  const { streamId } = await store.outboundStream(blue, 'bulk');
  const rows = await store.readOutbox(blue, 'bulk', 0, 999, 1e6);
  const rejects = rows.map(({ seq, rids: [rid = new Uint8Array()] }) => {
    return { seq, rid, reason: 'BLOCKED' as const, temporary: false };
  });
  await store.settleOutbox(blue, 'bulk', streamId, rows.at(-1)?.seq ?? 0, rejects);
}

suite('the admin door', () => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-admin-'));
  let red: NodeProcess;
  let peer: CrashingNode;
  let bob: RawDevice;
  before(async () => {
    const [first, second] = await initCluster(directory, ['red.example', blue]);
    assert.ok(first !== undefined && second !== undefined);
    red = first;
    peer = new CrashingNode(second);
    await peer.start();
    bob = await RawDevice.register(peer, 'bob');
    // Two for a device that is there, one for a device that is not.
    await plant(red, [bob.rid, bob.rid, systemRandom.bytes(32)]);
    await red.start();
  });
  after(async () => {
    await Promise.all([red.kill(), peer[Symbol.asyncDispose]()]);
    rmSync(directory, { recursive: true, force: true });
  });

  /** How many rows bob's inbox has, once there are so many. */
  async function arrived(rows: number): Promise<number> {
    const cursors = [{ log: {}, after: 0n }];
    for (let tries = 0; ; tries += 1) {
      const { logs } = await bob.tryCall(methods.fetchWait, { cursors, waitMs: 100 });
      const found = logs[0]?.fetched?.rows.length ?? 0;
      if (found >= rows || tries === 200) return found;
      await sleep(100);
    }
  }
  async function withDoor(work: (connection: Connection) => Promise<void>): Promise<void> {
    const connection = await dialLocal(runtime, socketOf(red), defaultLimits);
    try {
      await work(connection);
    } finally {
      await connection.close(CloseCode.Normal, 'done');
    }
  }

  test('a retry sends while the node runs; what is refused again is not tried for ever', async () => {
    const [first = '', second = '', third = ''] = await numbers(red);
    assert.equal(
      await ok(red, 'retry', `#${first}`, '9999'),
      '1 are sent again, 0 are past their time\n',
    );
    assert.equal(await arrived(1), 1);
    assert.deepEqual(await numbers(red), [second, third]);
    assert.equal(await ok(red, 'retry', '--all'), '2 are sent again, 0 are past their time\n');
    assert.equal(await arrived(2), 2);
    // The one for nobody comes back under another number, by what the peer says of it.
    let left: string[] = [];
    for (let tries = 0; left.length === 0 && tries < 50; tries += 1) left = await numbers(red);
    assert.equal(left.length, 1);
    assert.match(await ok(red, 'list', '--peer', blue), /0 rows wait .*\n#\d+ .* UNKNOWN_DEVICE /u);
  });

  test('drop removes; what was decided is logged, and for whom is not', async () => {
    assert.equal(await ok(red, 'drop', '--peer', 'green.example'), '0 removed\n');
    assert.equal(await ok(red, 'drop', '--peer', blue), '1 removed\n');
    assert.deepEqual(await numbers(red), []);
    const lines = red.logLines.filter((line) => line.includes('"msg":"dead letters'));
    assert.equal(lines.length, 3);
    assert.match(
      lines[0] ?? '',
      /"asked":2,"retried":1,"expired":0,"msg":"dead letters sent again"/,
    );
    assert.match(lines[2] ?? '', /"asked":1,"dropped":1,"msg":"dead letters dropped"/);
    assert.ok(!lines.join().includes(Buffer.from(bob.rid).toString('hex').slice(0, 16)));
  });

  test('a wrong choice is refused before the node is asked for anything', async () => {
    for (const args of [['retry'], ['drop', 'x'], ['drop', '--all', '1']]) {
      const { code, stderr, stdout } = await outbox(red, ...args);
      assert.deepEqual([code, stdout], [2, ''], args.join(' '));
      assert.match(stderr, /^qpcd: [^\n]+\n$/u);
    }
  });

  test("the operator may call what is the operator's, and health; nobody else may", async () => {
    await withDoor(async (connection) => {
      assert.equal((await call(connection, methods.health, {})).status, 'ready');
      for (const name of Object.keys(methods) as MethodName[]) {
        if (name === 'health' || name === 'adminOutbox') continue;
        const request = { methodId: methods[name].id, requestId: 1, payload: new Uint8Array() };
        const options = { deadlineMs: 5_000, maxResponseBytes: 1_024 };
        assert.equal((await connection.call(request, options)).status, 3, name);
      }
      for (const ask of [{ ids: [] }, { ids: Array<bigint>(501).fill(1n) }, { ids: [2n ** 60n] }]) {
        const wrong = call(connection, methods.adminOutbox, { ask: { case: 'drop', value: ask } });
        await assert.rejects(wrong, refused('BAD_FIELD'));
      }
      await assert.rejects(call(connection, methods.adminOutbox, {}), refused('BAD_FIELD'));
    });
    const remote = await dialNode(red.address, await makeIdentity(systemRandom));
    const ask = { case: 'letters', value: {} } as const;
    await assert.rejects(call(remote, methods.adminOutbox, { ask }), refused('CALLER_CLASS'));
    await remote.close(CloseCode.Normal, 'done');
  });

  test('many calls at once are answered, and silent programs do not keep others out', async () => {
    await withDoor(async (connection) => {
      const ask = { case: 'letters', value: {} } as const;
      const calls = Array.from({ length: 1_000 }, () =>
        call(connection, methods.adminOutbox, { ask }),
      );
      assert.equal((await Promise.all(calls)).length, 1_000);
    });
    const silent = Array.from({ length: 16 }, () => connect(socketOf(red)));
    for (const socket of silent) await once(socket, 'data');
    const { code, stderr } = await outbox(red, 'drop', '--all');
    assert.equal(code, 2);
    assert.match(stderr, /the node turned the command away/u);
    // The node's own time-out does it after 30 s.
    for (const socket of silent) socket.destroy();
    assert.equal(await ok(red, 'drop', '--all'), '0 removed\n');
  });

  test('only the user of the node comes in', async (t) => {
    assert.equal(statSync(socketOf(red)).mode & 0o777, 0o600);
    assert.equal(statSync(dirname(socketOf(red))).mode & 0o777, 0o700);
    if (process.getuid?.() !== 0) return t.skip('only root may be somebody else');
    for (const folder of [directory, red.directory]) chmodSync(folder, 0o755);
    chmodSync(red.configFile, 0o644);
    const args = ['outbox', 'drop', '--all', '--config', red.configFile];
    const { code, stderr } = await runQpcd(args, stranger);
    assert.equal(code, 2);
    assert.match(stderr, /^qpcd: [^\n]+you may not ask the node; run this command as its user\n$/u);
  });

  test('a second node on the database leaves the door of the first alone', async () => {
    const { code, stderr } = await runQpcd(['run', '--config', red.configFile]);
    assert.equal(code, 2);
    assert.match(stderr, /in use by another process/u);
    assert.equal(await ok(red, 'drop', '--all'), '0 removed\n');
  });

  test('of a node that hangs, list shows what its database holds, and says so', async () => {
    assert.ok(red.pid !== undefined);
    process.kill(red.pid, 'SIGSTOP');
    try {
      const { code, stdout, stderr } = await outbox(red, 'list');
      assert.equal(code, 0);
      assert.match(stdout, /^blue\.example  \d+ rows wait /u);
      assert.match(stderr, /^qpcd: the node does not answer [^\n]+\n$/u);
    } finally {
      process.kill(red.pid, 'SIGCONT');
    }
  });

  test('a killed node leaves a socket: commands go to the database, its next start replaces it', async () => {
    await red.kill();
    assert.ok(existsSync(socketOf(red)));
    await plant(red, [bob.rid]);
    assert.equal(
      await ok(red, 'retry', '--all'),
      '1 are sent again from the next start, 0 are past their time\n',
    );
    await red.start();
    assert.equal(await arrived(3), 3);
    assert.equal(await ok(red, 'drop', '--all'), '0 removed\n');
  });

  test('a peer that is away: what is retried waits for it, and leaves when it is back', async () => {
    await Promise.all([red.stop(), peer.crash()]);
    assert.ok(!existsSync(socketOf(red)), 'a node that stops takes its socket along');
    await plant(red, [bob.rid]);
    await red.start();
    assert.equal(await ok(red, 'retry', '--all'), '1 are sent again, 0 are past their time\n');
    assert.match(await ok(red, 'list'), /^blue\.example  1 rows wait .* 0 dead/u);
    await peer.start();
    assert.equal(await arrived(4), 4);
  });

  test('a peer that knows this node again is dialed at once, and need not say so itself', async () => {
    await Promise.all([red.stop(), peer.crash()]);
    await plant(red, [bob.rid]);
    peer.process.federateWith([]);
    await peer.start();
    red.logLines.length = 0;
    await red.start();
    const isSuspended = (): boolean => red.logLines.some((one) => one.includes('peer suspended'));
    for (let tries = 0; !isSuspended() && tries < 200; tries += 1) await sleep(50);
    assert.ok(isSuspended());
    // It is listed with a port where nobody listens: its own hello does not arrive.
    const address = red.address.replace(/:\d+#/, ':1#');
    peer.process.federateWith([{ domain: red.domain, address }]);
    const reload = await runQpcd(['peers', 'reload', '--config', peer.process.configFile]);
    assert.equal(reload.code, 0, reload.stderr);
    assert.equal(await ok(red, 'retry', '--all'), '1 are sent again, 0 are past their time\n');
    assert.equal(await arrived(5), 5);
  });
});

test('a name that is too long for a socket is told at the start, and the door can be left out', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-admin-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  await using node = await NodeProcess.init('red.example', join(directory, 'long'.repeat(25)));
  const { code, stderr } = await runQpcd(['run', '--config', node.configFile]);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /^qpcd: [^\n]+at most 107 bytes, this one \d+; [^\n]+admin_door = false\n$/u,
  );
  appendFileSync(node.configFile, 'admin_door = false\n');
  await node.start();
  assert.ok(!existsSync(dirname(socketOf(node))));
});
