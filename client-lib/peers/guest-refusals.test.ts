/** What a place at a relay comes to when its node refuses the device: for good, or only for now. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeSwarmKey, parseSwarmAddress } from '@quicprochat/p2p';
import {
  createServer,
  maxRequestBytes,
  methods,
  PermissionDeniedError,
  FailedPreconditionError,
  InternalError,
  ResourceExhaustedError,
  signingKeyFromSeed,
  signNodeRecord,
  silentLog,
  systemClock,
  systemRandom,
  UnavailableError,
  UnimplementedError,
  type Clock,
  type Handlers,
  type Runtime,
} from '@quicprochat/proto';
import {
  create,
  SignedEndpointRecordSchema,
  SignedNodeRecordSchema,
  toBinary,
} from '@quicprochat/proto/messages';
import {
  CloseCode,
  defaultLimits,
  makeIdentity,
  memoryNetwork,
} from '@quicprochat/proto/transport';
import type { Session } from '../session.ts';
import { openMemoryStore } from '../store/sqlite-store.ts';
import { GuestPlaces, guestPlaceLimits } from './guest-places.ts';

const domain = 'blue.example';
const endpoint = { host: domain, port: 5001 };
const relayKey = makeSwarmKey(systemRandom);
const relay = `/ip4/192.0.2.1/tcp/5002/p2p/${relayKey.peerId}`;

/** The wall clock and durations of the system, and timers that run when the test says so. */
class HeldClock implements Clock {
  aheadMs = 0;
  readonly #held = new Set<() => void>();
  now = (): number => systemClock.now() + this.aheadMs;
  monotonic = (): number => systemClock.monotonic() + this.aheadMs;
  sleep = (ms: number, signal?: AbortSignal): Promise<void> => systemClock.sleep(ms, signal);
  timer(_ms: number, callback: () => void): { cancel(): void } {
    this.#held.add(callback);
    return { cancel: () => this.#held.delete(callback) };
  }
}

/** A device with a place at a node that answers each time what `answers` says next. */
async function rig(answers: readonly (Error | 'yes')[], isReserved: boolean) {
  const clock = new HeldClock();
  const runtime: Runtime = { clock, random: systemRandom, log: silentLog };
  const network = memoryNetwork({ ...runtime, clock: systemClock });
  const identity = await makeIdentity(systemRandom);
  let asked = 0;
  /** The credential of now, and those that it was asked with. */
  let credential = 1;
  const shown: number[] = [];
  const renewals = { count: 0, isFruitful: true };
  const unbuilt = Object.fromEntries(
    Object.keys(methods).map((name) => [name, () => Promise.reject(new UnimplementedError(name))]),
  );
  const handlers: Partial<Handlers> = {
    hello: async () => ({ version: 1, domain, callerClass: 'anyone' }),
    async publishEndpoint(request) {
      shown.push(request.credential[0] ?? 0);
      const answer = answers[asked] ?? 'yes';
      asked += 1;
      if (answer !== 'yes') throw answer;
      return { relays: [relay] };
    },
  };
  const server = createServer({
    handlers: { ...unbuilt, ...handlers } as Handlers,
    middleware: [],
    identify: async () => ({ class: 'anyone' }),
    runtime: { ...runtime, clock: systemClock },
  });
  const listener = await network.transport(domain).listen({
    ...{ endpoint, identity, limits: defaultLimits, maxRequestBytes },
    onConnection: (connection) => server.serve(connection),
  });
  const signing = signingKeyFromSeed(systemRandom.bytes(32));
  const signed = signNodeRecord({
    ...{ domain, endpoints: [endpoint], seq: 1, versionMin: 1, versionMax: 1, capabilities: [] },
    keys: [{ spkiSha256: identity.spkiSha256, signing, fromMs: 0, toMs: 0 }],
    swarm: { swarmKey: relayKey.publicKey, addresses: [] },
  });
  const record = toBinary(SignedNodeRecordSchema, signed);
  const store = openMemoryStore();
  store.transaction(() => store.endpoints.putPlace({ domain, record, relay }));
  const places = new GuestPlaces({
    ...{ store, runtime, transport: network.transport('device') },
    ownDomain: 'red.example',
    rid: new Uint8Array(32),
    rules: () => ({
      reach: [parseSwarmAddress(relay).reach],
      ownPeerId: makeSwarmKey(systemRandom).peerId,
    }),
    credential: () => Uint8Array.of(credential),
    renewCredential: async () => {
      renewals.count += 1;
      if (renewals.isFruitful) credential += 1;
    },
    record: () => create(SignedEndpointRecordSchema),
    isReserved: () => isReserved,
    onChange: () => undefined,
  });
  /** Until one round is through; returns how often the node has been asked by then. */
  const round = async (): Promise<number> => {
    await places.look();
    return asked;
  };
  return {
    ...{ clock, places, store, round, shown, renewals },
    async [Symbol.asyncDispose]() {
      await places.stop();
      await listener.close(CloseCode.Draining, 'done');
      store.close();
    },
  };
}

const busy = (retryAfterMs?: number): Error =>
  new ResourceExhaustedError('RATE_LIMITED', 'later', retryAfterMs ? { retryAfterMs } : {});

test('a node that refuses for now keeps its guest, and is asked again when it says', async () => {
  for (const answer of [
    busy(),
    new ResourceExhaustedError('OVERLOADED', 'later'),
    new UnavailableError('DRAINING', 'later'),
    new InternalError('a bug'),
  ]) {
    await using one = await rig([answer], false);
    one.places.start();
    assert.equal(await one.round(), 1, answer.message);
    assert.deepEqual(one.places.relays, [relay], String(answer));
    assert.equal(one.store.endpoints.places().length, 1);
    one.clock.aheadMs += guestPlaceLimits.heldRetryMs * 2;
    assert.equal(await one.round(), 2, 'asked again');
    assert.deepEqual(one.places.relays, [relay]);
  }
});

test('a node that refuses for good has no guest any more', async () => {
  for (const answer of [
    new PermissionDeniedError('BLOCKED', 'no'),
    new FailedPreconditionError('FEATURE_OFF', 'no'),
    new ResourceExhaustedError('QUOTA', 'full'),
  ]) {
    await using one = await rig([answer], false);
    one.places.start();
    assert.equal(await one.round(), 1);
    assert.deepEqual([one.places.relays, one.store.endpoints.places()], [[], []], String(answer));
  }
});

test('a node that does not know the credential yet is shown a new one, if the own node makes it', async () => {
  const blocked = new PermissionDeniedError('BLOCKED', 'what is this');
  const session = { signal: new AbortController().signal } as Session;
  await using one = await rig([blocked, 'yes'], true);
  one.places.start();
  one.places.offered([], session);
  assert.equal(await one.round(), 2);
  assert.deepEqual([one.shown, one.places.relays, one.renewals.count], [[1, 2], [relay], 1]);
  // The same once more helps nobody, and one that wants no device gets two questions.
  await using same = await rig([blocked, 'yes'], true);
  same.renewals.isFruitful = false;
  same.places.start();
  same.places.offered([], session);
  assert.equal(await same.round(), 1);
  await using no = await rig([blocked, blocked, 'yes'], true);
  no.places.start();
  no.places.offered([], session);
  assert.equal(await no.round(), 2);
  for (const { places, store } of [same, no]) {
    assert.deepEqual([places.relays, store.endpoints.places()], [[], []]);
  }
  // With the own node away nobody is waited for.
  await using dark = await rig([blocked], true);
  dark.places.start();
  assert.deepEqual([await dark.round(), dark.renewals.count], [1, 0]);
});

test('a place that stands is not asked for before its node wants to be asked, nor for ever later', async () => {
  await using one = await rig([busy(600_000), busy(Number.MAX_SAFE_INTEGER)], true);
  one.places.start();
  assert.equal(await one.round(), 1);
  one.clock.aheadMs += 500_000;
  assert.equal(await one.round(), 1, 'it said ten minutes');
  one.clock.aheadMs += 200_000;
  assert.equal(await one.round(), 2);
  one.clock.aheadMs += guestPlaceLimits.retryMaxMs * 2;
  assert.equal(await one.round(), 3);
  assert.deepEqual(one.places.relays, [relay]);
});
