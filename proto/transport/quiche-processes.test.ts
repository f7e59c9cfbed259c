/** Processes of the QUIC listener that do not come up, end at their start, or hang at their end. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { contractRuntime, fourMiB, rejectsWith } from './contract-rig.ts';
import { systemRandom, type Runtime } from '../runtime.ts';
import { makeIdentity } from './certificate.ts';
import { forkedQuicheTransport } from './quiche-processes.ts';
import { defaultLimits, type Listener } from './transport.ts';

/** What every process that is forked from now on runs in Node's place. */
function runInstead(t: TestContext, program: string): void {
  const { execPath } = process;
  process.execPath = program;
  t.after(() => (process.execPath = execPath));
}

function script(t: TestContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-processes-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'program');
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
  return file;
}

/** Waits of minutes are over at once. */
function hurried(): Runtime {
  const runtime = contractRuntime();
  const { clock } = runtime;
  return {
    ...runtime,
    clock: { ...clock, timer: (ms, callback) => clock.timer(Math.min(ms, 50), callback) },
  };
}

async function listen(runtime: Runtime): Promise<Listener> {
  return forkedQuicheTransport(runtime, 2).listen({
    endpoint: { host: '127.0.0.1', port: 0 },
    identity: await makeIdentity(systemRandom),
    limits: defaultLimits,
    maxRequestBytes: () => fourMiB,
    onConnection() {},
  });
}

test('a listener whose processes cannot be made says so', async (t) => {
  runInstead(t, '/nonexistent/node');
  await rejectsWith(listen(contractRuntime()), 'closed');
});

test('a listener whose processes end at their start says so, and nothing else ends', async (t) => {
  runInstead(t, script(t, 'exit 3'));
  await rejectsWith(listen(contractRuntime()), 'closed');
});

test('a listener whose processes hang at their start gives up and ends them', async (t) => {
  runInstead(t, script(t, 'exec sleep 600'));
  const { message } = await rejectsWith(listen(hurried()), 'timeout');
  assert.match(message, /process 0/);
});
