/** A device store that fails while OKs are written down: nothing is lost, and nothing ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QpcClient } from '@quicprochat/client-lib';
import { openStore } from '@quicprochat/client-lib/store';
import { silentLog, systemRandom } from '@quicprochat/proto';
import { makeScene, storeKey } from '../client/scene.ts';

const hourMs = 3_600_000;

test('an OK that cannot be written down is written later, and costs no second message', async () => {
  await using scene = await makeScene({ targets: [0, 1] });
  let failures = 2;
  await using client = await QpcClient.open({
    storePath: scene.path,
    storeKey,
    runtime: { clock: scene.clock, random: systemRandom, log: silentLog },
    transport: scene.network.transport('alice'),
    openStore: (path, key) => {
      const store = openStore(path, key);
      const markAccepted: typeof store.outbox.markAccepted = (...mark) => {
        failures -= 1;
        if (failures >= 0) throw new RangeError('disk full');
        return store.outbox.markAccepted(...mark);
      };
      return { ...store, outbox: { ...store.outbox, markAccepted } };
    },
  });
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  try {
    client.start();
    assert(await scene.clock.runUntil(() => failures < 0, hourMs));
    await scene.drain(client);
  } finally {
    process.off('unhandledRejection', note);
    process.off('uncaughtException', note);
  }
  assert.deepEqual(unhandled, []);
  assert.equal(scene.node.stored.size, 2);
  assert.equal(scene.node.calls.length, 2);
});
