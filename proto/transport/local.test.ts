/** Local connections: whose socket it is, what becomes of files that lie there, and who holds up whom. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { systemRandom } from '../runtime.ts';
import { TransportError, type TransportFailure } from '../status.ts';
import { contractRuntime, echo } from './contract-rig.ts';
import { dialLocal, listenLocal, type LocalListener } from './local.ts';
import { CloseCode, defaultLimits, type CallHandler } from './transport.ts';

const runtime = contractRuntime();
const limits = { ...defaultLimits, connections: 2, handshakeMs: 500, idleMs: 1_000 };

function socketIn(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'qpc-local-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'socket');
}

async function listening(
  t: TestContext,
  path: string,
  handler: CallHandler = echo,
): Promise<LocalListener> {
  const listener = await listenLocal(runtime, {
    path,
    limits,
    maxRequestBytes: () => defaultLimits.maxPayloadBytes,
    onConnection: (connection) => connection.onCall(handler),
  });
  t.after(() => listener.close(CloseCode.Draining, 'over'));
  return listener;
}

/** The failure, and the system's error where there is one. */
const failing = (failure: TransportFailure, code?: string) => (error: unknown) => {
  assert.ok(error instanceof TransportError, String(error));
  assert.equal(error.failure, failure);
  if (code !== undefined) assert.equal((error.cause as NodeJS.ErrnoException).code, code);
  return true;
};

/** A process that listened there and was killed. */
function leaveBehind(path: string): void {
  const program = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', program, path]);
  assert.ok(statSync(path).isSocket());
}

suite('local connections', () => {
  test('many calls at once, large ones too, and an end that both sides see', async (t) => {
    const path = socketIn(t);
    const listener = await listening(t, path);
    const connection = await dialLocal(runtime, path, limits);
    const calls = Array.from({ length: 256 }, async (_, requestId) => {
      const payload = systemRandom.bytes(requestId === 0 ? 4 * 1024 * 1024 : 100);
      const options = { deadlineMs: 10_000, maxResponseBytes: payload.length };
      const answer = await connection.call({ methodId: 1, requestId, payload }, options);
      assert.deepEqual(answer, { status: 0, requestId, payload });
    });
    await Promise.all(calls);
    await listener.close(CloseCode.Draining, 'the node stops');
    const { code, local } = await connection.closed;
    assert.deepEqual({ code, local }, { code: CloseCode.Draining, local: false });
    assert.ok(!existsSync(path), 'the file goes with its listener');
    await assert.rejects(dialLocal(runtime, path, limits), failing('unreachable', 'ENOENT'));
  });

  test('only the user of the listener may connect', async (t) => {
    const path = socketIn(t);
    await listening(t, path);
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  test('a file that a killed process left is replaced', async (t) => {
    const path = socketIn(t);
    leaveBehind(path);
    await assert.rejects(dialLocal(runtime, path, limits), failing('unreachable', 'ECONNREFUSED'));
    await listening(t, path);
    await (await dialLocal(runtime, path, limits)).close(CloseCode.Normal, 'done');
  });

  test('one that somebody listens on is not, and no other file', async (t) => {
    const path = socketIn(t);
    await listening(t, path);
    await assert.rejects(listening(t, path), failing('internal', 'EADDRINUSE'));
    await (await dialLocal(runtime, path, limits)).close(CloseCode.Normal, 'done');
    const other = `${path}-file`;
    writeFileSync(other, 'mine');
    await assert.rejects(listening(t, other), failing('internal', 'EADDRINUSE'));
    assert.equal(readFileSync(other, 'utf8'), 'mine');
  });

  test('a name that no socket can have is refused on both sides', async (t) => {
    const path = socketIn(t).padEnd(109, 'x');
    await assert.rejects(listening(t, path), failing('internal', 'EINVAL'));
    await assert.rejects(dialLocal(runtime, path, limits), failing('unreachable', 'EINVAL'));
    await listening(t, path.slice(0, 107));
  });

  test('who connects and says nothing is sent away, and one too many at once', async (t) => {
    const path = socketIn(t);
    await listening(t, path);
    const silent = [connect(path), connect(path)];
    t.after(() => silent.forEach((socket) => socket.destroy()));
    // Its first records: it was let in.
    for (const socket of silent) await once(socket, 'data');
    const ends = silent.map((socket) => once(socket, 'close'));
    await assert.rejects(dialLocal(runtime, path, limits), failing('closed'));
    await Promise.all(ends);
    await (await dialLocal(runtime, path, limits)).close(CloseCode.Normal, 'done');
  });

  test('a listener that hangs is given up', async (t) => {
    const path = socketIn(t);
    const mute = createServer().listen(path);
    t.after(() => mute.close());
    await once(mute, 'listening');
    await assert.rejects(dialLocal(runtime, path, limits), failing('timeout'));
  });
});
