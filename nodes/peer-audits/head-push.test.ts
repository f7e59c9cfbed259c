/** Pushing heads to a peer that answers, and does not do its part. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LinkSession } from '@quicprochat/federation';
import { KtLog, MemoryTreeStore, nativeSuite } from '@quicprochat/kt-log';
import { testLogKeys } from '@quicprochat/kt-log/test-keys';
import { silentLog, systemClock, systemRandom } from '@quicprochat/proto';
import { create } from '@quicprochat/proto/messages';
import { HeadPush } from './head-push.ts';
import { OwnHeads } from './own-heads.ts';

const runtime = { clock: systemClock, random: systemRandom, log: silentLog };
const peer = 'blue.example';

test('a peer that answers with an older head is asked again after a pause, not at once', async () => {
  const origin = 'red.example/kt';
  const { keys, config, identity } = testLogKeys(origin, () => systemRandom.bytes(32));
  const tree = new MemoryTreeStore();
  const log = await KtLog.open({
    config,
    identity,
    keys,
    store: tree,
    suite: nativeSuite,
    clock: systemClock,
    random: systemRandom,
    sequencerLimits: { batchMs: 0 },
  });
  const append = (greatest: number): Promise<unknown> =>
    log.append({ label: Buffer.from('x'), greatest, values: [systemRandom.bytes(8)] });
  await append(-1);
  const older = new TextEncoder().encode(await log.checkpoint());
  await append(0);
  using ownHeads = new OwnHeads({ log, config, origin, tree }, [], runtime);
  using push = new HeadPush({ log, identity, peers: [peer], ownHeads, runtime, notify: () => {} });
  const ended = new AbortController();
  let asked = 0;
  // The hostile peer: whatever is pushed, it has the first head and nothing newer.
  const session: Pick<LinkSession, 'signal' | 'call'> = {
    signal: ended.signal,
    call: (method) => {
      asked += 1;
      const op = { case: 'checkpoint' as const, value: { cosigned: older } };
      return systemClock.sleep(1).then(() => create(method.response, { op } as never));
    },
  };
  const serving = push.serve(peer, session as LinkSession);
  await systemClock.sleep(300);
  ended.abort();
  await serving;
  await log[Symbol.asyncDispose]();
  assert.equal(asked, 1);
});
