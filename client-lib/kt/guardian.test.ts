/** The watch over logs where the own one has contradicted itself: nothing new, but life goes on. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { firstManifest, methods, signingKeyFromSeed, type Clock } from '@quicprochat/proto';
import { EventBus } from '../events.ts';
import type { Session } from '../session.ts';
import { TestDevice } from '../test-devices.ts';
import { TestDirectory } from '../test-directory.ts';
import { testRuntime } from '../test-runtime.ts';
import { Guardian, guardianLimits } from './guardian.ts';
import { labelOf } from './logs.ts';

const times = { reasonableMonitoringWindowMs: 1 };

async function pass(directory: TestDirectory, name: string): Promise<void> {
  await testRuntime.clock.sleep(5);
  const { publicKey } = signingKeyFromSeed(testRuntime.random.bytes(32));
  const accountKey = signingKeyFromSeed(testRuntime.random.bytes(32));
  const userId = `${name}@red.example`;
  directory.logVersion(userId, firstManifest(userId, accountKey, publicKey, 0));
  await testRuntime.clock.sleep(5);
}

function guardianOf(device: TestDevice): Guardian {
  const { store, logs, contacts, userId } = device;
  const events = new EventBus();
  return new Guardian({ store, runtime: testRuntime, events, logs, contacts, userId });
}

describe('a device whose own log is convicted', () => {
  test('begins with what it knows of itself; one that knows nothing does not', async () => {
    const [one, other] = [new TestDirectory(times), new TestDirectory(times)];
    const [alice, late] = [
      new TestDevice('alice@red.example', one),
      new TestDevice('late@red.example', one),
    ];
    const bob = new TestDevice('bob@red.example', other);
    await guardianOf(alice).begin(one);
    for (const [device, directory] of [
      [alice, one],
      [bob, other],
    ] as const) {
      await pass(directory, 'somebody');
      await pass(directory, 'else');
      const log = await device.logs.of('red.example', directory);
      await log.client.distinguished(log.transport(directory));
    }
    const theirs = (await bob.logs.of('red.example', other)).client.headsMessage();
    assert.ok(theirs !== undefined);
    const log = await alice.logs.of('red.example', one);
    assert.throws(() => log.client.compareHeads(theirs), { reason: 'FORK' });
    assert.ok(log.client.evidence().length > 0);
    await guardianOf(alice).begin(one);
    assert.equal(alice.contacts.get(alice.userId)?.version, 0);
    const lateLog = await late.logs.of('red.example', one);
    await lateLog.client.owner.start(lateLog.transport(one), labelOf(late.userId));
    await lateLog.client.distinguished(lateLog.transport(one));
    assert.throws(() => lateLog.client.compareHeads(theirs), { reason: 'FORK' });
    await assert.rejects(guardianOf(late).begin(one), { reason: 'LOG_CONVICTED' });
  });
});

describe('a device that starts again and again', () => {
  /** Watches over a session until it has nothing more to do, as a device does between two starts. */
  async function watchOnce(device: TestDevice, directory: TestDirectory, clock: Clock) {
    const ending = new AbortController();
    const call: Session['call'] = (method, request) => directory.call(method, request);
    const session = { call, signal: ending.signal } as Session;
    const { store, logs, contacts, userId } = device;
    const runtime = {
      ...testRuntime,
      clock: {
        ...clock,
        now: () => clock.now(),
        sleep: async () => ending.abort(),
      } as Clock,
    };
    const events = new EventBus();
    await new Guardian({ store, runtime, events, logs, contacts, userId }).watch(session);
  }
  const asked = (directory: TestDirectory): number =>
    directory.calls.filter((name) => name === methods.getNodeRecord.name).length;

  test('asks for the record of a node once a day, and not at each start', async () => {
    const directory = new TestDirectory(times);
    const device = new TestDevice('alice@red.example', directory);
    const { clock } = testRuntime;
    await guardianOf(device).begin(directory);
    assert.equal(asked(directory), 1);
    await watchOnce(device, directory, clock);
    await watchOnce(device, directory, clock);
    assert.equal(asked(directory), 1);
    const nextDay = { ...clock, now: () => clock.now() + guardianLimits.renewMs };
    await watchOnce(device, directory, nextDay);
    assert.equal(asked(directory), 2);
    // It was asked at a time that this clock has yet to see.
    const before = { ...clock, now: () => clock.now() - 1000 };
    await watchOnce(device, directory, before);
    assert.equal(asked(directory), 3);
  });
});
