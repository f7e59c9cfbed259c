/** What a device publishes, against a node that says what a test wants it to say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  deviceIdOf,
  methods,
  signingKeyFromSeed,
  silentLog,
  systemClock,
  systemRandom,
  type Clock,
} from '@quicprochat/proto';
import { create, type MessageInitShape } from '@quicprochat/proto/messages';
import { KeyPublisher, publisherLimits } from './key-publisher.ts';
import type { Caller } from '../dial.ts';
import { createMls, mandatorySuite, xwingSuite } from '../mls/index.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';

test('a used last resort is replaced, but not as fast as a stranger can use it', async () => {
  let laterMs = 0;
  const clock: Clock = { ...systemClock, now: () => systemClock.now() + laterMs };
  const runtime = { clock, random: systemRandom, log: silentLog };
  const store = openMemoryStore();
  const seed = systemRandom.bytes(32);
  const identityKey = signingKeyFromSeed(seed);
  const uploads: number[] = [];
  const caller: Caller = {
    async call(method, request) {
      if (method.id === methods.uploadKeyPackage.id) {
        const { keyPackages = [] } = request as { keyPackages?: readonly Uint8Array[] };
        uploads.push(keyPackages.length);
      }
      const used = { singleUse: 50, hasLastResort: true, lastResortUsed: true };
      const counts = [xwingSuite, mandatorySuite].map((suite) => ({ suite, ...used }));
      const answer: unknown = method.id === methods.keyPackageCount.id ? { counts } : {};
      return create(method.response, answer as MessageInitShape<typeof method.response>);
    },
  };
  const publisher = new KeyPublisher({
    store,
    runtime,
    mls: createMls({ ...runtime, manifests: () => undefined }),
    identity: { userId: 'bob@blue.example', deviceId: deviceIdOf(identityKey.publicKey) },
    identityKey,
    signatureKey: { publicKey: identityKey.publicKey, seed },
  });
  for (let asked = 0; asked < 5; asked += 1) await publisher.publish(caller);
  assert.deepEqual(uploads, [1, 1]);
  laterMs = publisherLimits.lastResortReplaceMs;
  for (let asked = 0; asked < 5; asked += 1) await publisher.publish(caller);
  assert.deepEqual(uploads, [1, 1, 1, 1]);
});
