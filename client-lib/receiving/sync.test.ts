/**
 * What is to be asked for stands in the store before the cursor passes a gap: the node tells it no more then. The
 * rest of following an inbox: tests/client/sync.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { methods, systemRandom, UnimplementedError } from '@quicprochat/proto';
import {
  create,
  FetchResponseSchema,
  FetchWaitResponseSchema,
  type FetchWaitRequestSchema,
  type MessageInitShape,
} from '@quicprochat/proto/messages';
import { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import { inboxLog } from '../store/inbox-rows.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { testRuntime } from '../test-runtime.ts';
import { Sync, type SyncParts } from './sync.ts';

test('a gap at which the device dies is told again, until it has what it asks for on its disk', async () => {
  const store = openMemoryStore();
  const storeId = systemRandom.bytes(8);
  const seqOf = (): number => store.inbox.cursor(inboxLog)?.seq ?? 0;
  store.transaction(() => store.inbox.putCursor(inboxLog, { storeId, seq: 0 }));
  const cursors: number[] = [];
  for (const dies of [true, true, false]) {
    const over = new AbortController();
    const done = Promise.withResolvers<void>();
    over.signal.addEventListener('abort', () => done.resolve());
    const receiver: Partial<SyncParts['receiver']> = {
      async passGap(_from, to) {
        store.transaction(() => store.inbox.putCursor(inboxLog, { storeId, seq: to }));
      },
    };
    const parts = {
      ...{ store, runtime: testRuntime, events: new EventBus(), receiver },
      outbox: { open: () => undefined },
      async onRowsLost() {
        cursors.push(seqOf());
        if (dies) throw new Error('the process dies here');
      },
    };
    const session = {
      hello: { capabilities: [] },
      signal: over.signal,
      connection: { onPushStream: () => undefined },
      end: () => over.abort(new Error('ended')),
      async call(method: unknown, request: unknown): Promise<unknown> {
        if (method === methods.subscribe) throw new UnimplementedError('no push here');
        if (method === methods.fetch) return create(FetchResponseSchema, { storeId });
        if (method !== methods.fetchWait) return {};
        const { cursors: [at] = [] } = request as MessageInitShape<typeof FetchWaitRequestSchema>;
        if (at?.after === 7n) over.abort(new Error('all is told'));
        over.signal.throwIfAborted();
        const fetched = { storeId, gap: { from: 1n, to: 7n }, head: 7n };
        return create(FetchWaitResponseSchema, { logs: [{ log: {}, fetched }] });
      },
    };
    new Sync(parts as unknown as SyncParts).attach(session as unknown as Session);
    await done.promise;
    assert.equal(seqOf(), dies ? 0 : 7);
  }
  assert.deepEqual(cursors, [0, 0, 0]);
});
