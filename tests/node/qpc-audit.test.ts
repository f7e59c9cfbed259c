/** The real `qpc-audit` against a real node: over QUIC, and over its HTTP door where that listens. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePort } from '../cluster/free-port.ts';
import { NodeProcess } from '../cluster/node-process.ts';

const main = fileURLToPath(new URL('../../kt-log/main.ts', import.meta.url));

async function audit(...args: readonly string[]): Promise<{ code: number; out: string }> {
  const child = spawn(process.execPath, [main, 'follow', '--once', '--json', ...args]);
  let out = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (out += text));
  }
  const [code] = (await once(child, 'close')) as [number];
  return { code, out };
}

test('a node is audited over QUIC and over HTTP, with the same result', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'qpc-audit-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const http = `127.0.0.1:${await freePort()}`;
  const config = `[http]\nlisten = "${http}"`;
  await using node = await NodeProcess.init('red.example', join(directory, 'red'), config);
  await node.start();
  for (const [i, target] of [node.address, `http://${http}`].entries()) {
    const { code, out } = await audit(target, '--state', join(directory, `state-${i}`));
    assert.equal(code, 0, out);
    const report = JSON.parse(out) as Record<string, unknown>;
    const { status, origin, replayedSize, newestSize, evidence } = report;
    assert.deepEqual([status, origin, evidence], ['ok', 'red.example/kt', []], out);
    assert.ok(typeof replayedSize === 'number' && replayedSize >= 1);
    assert.equal(replayedSize, newestSize);
  }
  // Both doors state the same keys, and what was replayed over one goes on over the other.
  const again = await audit(`http://${http}`, '--state', join(directory, 'state-0'));
  assert.equal(again.code, 0, again.out);
  assert.equal((JSON.parse(again.out) as Record<string, unknown>)['pinnedBy'], 'state');
  const pin = node.address.replace(/#.*/, `#${'A'.repeat(43)}`);
  const refused = await audit(pin, '--state', join(directory, 'state-0'));
  assert.equal(refused.code, 1, refused.out);
});

test('a verdict that could not be written is no good one', async () => {
  const full = openSync('/dev/full', 'w');
  const child = spawn(process.execPath, [main, '--help'], { stdio: ['ignore', full, 'ignore'] });
  const [code] = (await once(child, 'close')) as [number];
  closeSync(full);
  assert.equal(code, 1);
});
