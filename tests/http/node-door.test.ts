/** The door of a running node: an auditor without account follows its log, the page names who cosigned. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Follower, httpReader, MemoryAuditStore, Mirror, nativeSuite } from '@quicprochat/kt-log';
import { systemClock } from '@quicprochat/proto';
import { memoryNetwork } from '@quicprochat/proto/transport';
import { LocalNode, TestDevice, testRuntime } from '../cluster/local-node.ts';

const config =
  '[kt]\nbatch_ms = 5\nvrf_threads = 0\n[rates.auth]\nper_second = 1000\nburst = 1000\n';

test('the log of a node is followed over its HTTP door, and its page shows the cosigners', async () => {
  const network = memoryNetwork(testRuntime);
  const door = '[http]\nlisten = "127.0.0.1:0"\n';
  await using red = await LocalNode.create(network, 'red.example', `${config}${door}`);
  await using blue = await LocalNode.create(network, 'blue.example', config);
  await blue.start([red]);
  await red.start([blue]);
  await using alice = await TestDevice.register(red, 'alice@red.example');
  assert.ok(alice);
  const url = `http://127.0.0.1:${red.node?.door?.endpoint.port}/`;
  assert.equal(blue.node?.door, undefined);

  const mirror = new Mirror(httpReader(new URL(url), systemClock), nativeSuite.sha256);
  const { origin, config: pinned, key } = await mirror.keys();
  const follower = new Follower({
    suite: nativeSuite,
    log: { config: pinned, identity: { origin, key } },
    store: new MemoryAuditStore(),
    clock: systemClock,
  });
  const pulled = await follower.pull(mirror);
  assert.equal(pulled.status, 'ok', pulled.failure?.message);
  assert.ok(pulled.size >= 2);

  const pageOf = async (): Promise<string> => (await fetch(`${url}kt/`)).text();
  const endMs = systemClock.monotonic() + 15_000;
  let html = await pageOf();
  while (!/\(newest\)/.test(html) && systemClock.monotonic() < endMs) {
    await systemClock.sleep(50);
    html = await pageOf();
  }
  assert.match(html, /blue\.example\/auditor<\/td><td>Ed25519<\/td><td>\d+ \(newest\)/);
  assert.match(html, /group peers 1 blue\.example\/auditor/);
  assert.match(html, /blue\.example\/kt<\/td><td>ok/);
});
