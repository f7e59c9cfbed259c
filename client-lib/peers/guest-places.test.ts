/** When a device has done with looking for places at relays, and what it says of itself need not wait any more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NotFoundError } from '@quicprochat/proto';
import { create, SignedEndpointRecordSchema } from '@quicprochat/proto/messages';
import type { Session } from '../session.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { testRuntime } from '../test-runtime.ts';
import { GuestPlaces } from './guest-places.ts';

function rig() {
  const asked: string[] = [];
  const session = {
    signal: new AbortController().signal,
    call: (_method: unknown, { domain }: { readonly domain: string }) => {
      asked.push(domain);
      return Promise.reject(new NotFoundError('UNKNOWN_USER', 'no record of it'));
    },
  } as unknown as Session;
  const places = new GuestPlaces({
    store: openMemoryStore(),
    runtime: testRuntime,
    // No node is dialed: none has a record.
    transport: {} as never,
    ownDomain: 'red.example',
    rid: new Uint8Array(32),
    rules: () => undefined,
    credential: () => undefined,
    renewCredential: () => Promise.resolve(),
    record: () => create(SignedEndpointRecordSchema),
    isReserved: () => false,
    onChange: () => undefined,
  });
  places.start();
  return { places, session, asked };
}

const settled = async (places: GuestPlaces): Promise<void> => {
  const untilMs = testRuntime.clock.monotonic() + 5_000;
  while (places.isSettling) {
    assert.ok(testRuntime.clock.monotonic() < untilMs, 'it is still looking');
    await testRuntime.clock.sleep(5);
  }
};

test('where the own node names no peers nobody is waited for', async () => {
  const { places, session } = rig();
  assert.equal(places.isSettling, true);
  places.offered([], session);
  await settled(places);
  await places.stop();
});

test('a peer that has no place is asked, and not waited for', async () => {
  const { places, session, asked } = rig();
  await testRuntime.clock.sleep(5);
  places.offered(['blue.example', 'green.example'], session);
  await settled(places);
  assert.deepEqual(asked.toSorted(), ['blue.example', 'green.example']);
  await places.stop();
});
