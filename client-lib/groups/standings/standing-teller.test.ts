/** When a device says where it stands: also where the clock was ahead when that was put off. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestDevice } from '../../test-devices.ts';
import { TestDirectory } from '../../test-directory.ts';
import { testRuntime } from '../../test-runtime.ts';
import { standingLimits } from './standing-rules.ts';

test('what is due at a date that nothing is put off to is said now', async () => {
  const alice = new TestDevice('alice@red.example', new TestDirectory());
  const { store, groups } = alice;
  const [groupId, hash] = [testRuntime.random.bytes(32), testRuntime.random.bytes(32)];
  const askedAt = (askMs: number): void => {
    store.transaction(() =>
      store.standings.putDoubt({
        ...{ groupId, hash, epoch: 5, cause: 'OWN', author: '', voters: [] },
        ...{ seenMs: 0, voteMs: undefined, askMs, round: 0 },
      }),
    );
  };
  const run = async (): Promise<number | undefined> => {
    groups.standings.start();
    await groups.standings.idle();
    await groups.standings.stop();
    // There is no such group: whoever looks at it finds nothing to say any more.
    return store.standings.doubt(groupId, hash)?.askMs;
  };
  const { longestLookMs } = standingLimits;
  const nowMs = testRuntime.clock.now();
  askedAt(nowMs + longestLookMs);
  assert.equal(await run(), nowMs + longestLookMs);
  askedAt(nowMs + longestLookMs + 24 * 3_600_000);
  assert.equal(await run(), undefined);
});
