/** Heads that a peer pushes while its log cannot be read: they do not pile up here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryAuditStore } from '@quicprochat/kt-log';
import { hasReason, silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { FollowedPeer, followLimits } from './followed-peer.ts';

test('pushes that were answered for their time still count while they wait for the log', async () => {
  // Time that a push waits passes when the test says so.
  const due: (() => void)[] = [];
  const clock = {
    ...systemClock,
    timer: (_ms: number, callback: () => void) => {
      due.push(callback);
      return { cancel: () => {} };
    },
  };
  using followed = new FollowedPeer({
    domain: 'blue.example',
    origin: 'blue.example/kt',
    store: new MemoryAuditStore(),
    cosigners: [],
    runtime: { clock, random: systemRandom, log: silentLog },
    onEvidence: () => {},
    notify: () => {},
  });
  const { pushesWaiting } = followLimits;
  // No record has named the peer's log, so none of them can be judged.
  for (let n = 0; n < pushesWaiting; n += 1) {
    const answer = followed.pushed(systemRandom.bytes(1_000));
    for (const late of due.splice(0)) late();
    assert.equal(await answer, undefined);
  }
  await assert.rejects(followed.pushed(systemRandom.bytes(1_000)), (error) =>
    hasReason(error, 'RATE_LIMITED'),
  );
});
