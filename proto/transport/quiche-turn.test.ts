/** V8's collector hears of native memory that it does not see. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Turn } from './quiche-turn.ts';

test('a few flooded connections that ended make the collector run', async () => {
  const turn = new Turn();
  let collected = 0;
  const registry = new FinalizationRegistry(() => (collected += 1));
  const endAFew = async (heldBytes: number): Promise<number> => {
    collected = 0;
    for (let n = 0; n < 24; n += 1) {
      // Stands for the native object, which the collector frees with its wrapper.
      registry.register({}, n);
      turn.garbage.add(heldBytes);
      await nextTurn();
    }
    for (let n = 0; n < 100 && collected === 0; n += 1) await nextTurn();
    return collected;
  };
  // Each had quiche keep 70 MiB.
  assert.ok((await endAFew(2.5 * 1024 * 1024)) > 0);
});
