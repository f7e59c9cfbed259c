/** The schedule of a client's duties, and the events that come of honest, absent and lying logs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TransportError } from '@quicprochat/proto/status';
import { auditorOf, device, pass, put, transportOf, twoFaces } from './client-fixture.ts';
import type { Face } from './client-fixture.ts';
import type { LogTransport } from './client-transport.ts';
import { LogClient } from './log-client.ts';
import type { MonitorEvent } from './monitor.ts';
import { defaultMonitorLimits, LogMonitor } from './monitor.ts';
import { nativeSuite } from './native-suite.ts';
import { parsePolicy, type Policy } from './policy.ts';
import { labelOf, testLog } from './test-log.ts';

const alice = labelOf('alice@red.example');
const bob = labelOf('bob@red.example');
const typesOf = (events: readonly MonitorEvent[]): string[] => events.map((one) => one.type);

/** A transport that counts its calls by method. */
function counting(transport: LogTransport) {
  const calls = new Map<string, number>();
  const counted = Object.fromEntries(
    Object.entries(transport).map(([name, call]: [string, (...args: never[]) => unknown]) => [
      name,
      (...args: never[]) => {
        calls.set(name, (calls.get(name) ?? 0) + 1);
        return call(...args);
      },
    ]),
  ) as unknown as LogTransport;
  return { transport: counted, calls };
}

/** Every method fails as it does without a network. */
function unreachable(transport: LogTransport): LogTransport {
  const fail = (): Promise<never> => Promise.reject(new TransportError('unreachable', 'no route'));
  return Object.fromEntries(
    Object.keys(transport).map((name) => [name, fail]),
  ) as unknown as LogTransport;
}

/** Runs the monitor whenever it is due while the log grows; returns all events. */
async function follow(
  face: Face,
  monitor: LogMonitor,
  transport: LogTransport,
  steps: number,
): Promise<MonitorEvent[]> {
  const events: MonitorEvent[] = [];
  for (let i = 0; i < steps; i++) {
    await pass(face, 1);
    if (monitor.next() <= face.clock.now()) events.push(...(await monitor.run(transport)));
  }
  return events;
}

async function ownerOf(face: Face) {
  await pass(face, 5);
  const { client, store } = device(face);
  const transport = transportOf(face);
  await client.owner.start(transport, alice);
  await client.owner.update(transport, alice, [labelOf('mine')]);
  return { client, store, transport };
}

test('an honest log makes no events, and every duty is done in time', async () => {
  const face = await testLog();
  const { client, transport } = await ownerOf(face);
  await put(face, 'bob@red.example', 'his');
  await client.search(transport, bob);
  const counted = counting(transport);
  // A day of this log is as short as its window.
  const monitor = new LogMonitor(client, { dailyMs: 60_000 });
  assert.ok(monitor.next() <= face.clock.now());
  assert.deepEqual(await follow(face, monitor, counted.transport, 24), []);
  // 24 steps of 20 s with a window of 60 s: a round at least every 40 s.
  const owned = counted.calls.get('ownerMonitor') ?? 0;
  assert.ok(owned >= 10 && owned <= 24, `${owned} rounds`);
  assert.ok((counted.calls.get('distinguished') ?? 0) >= 6);
  assert.ok((counted.calls.get('credential') ?? 0) >= 6);
  assert.ok((counted.calls.get('contactMonitor') ?? 0) >= 1);
  assert.deepEqual(client.watched(), []);
  assert.ok(client.credentials.own(alice) !== undefined);
  assert.ok(monitor.next() > face.clock.now());
  assert.deepEqual(await monitor.run(counted.transport), []);
});

test('a version made by somebody else is told again until it is acknowledged', async () => {
  const face = await testLog();
  const { client, store, options, transport } = { ...(await ownerOf(face)), options: {} };
  const monitor = new LogMonitor(client);
  await monitor.run(transport);
  await put(face, 'alice@red.example', 'planted', 0);
  const events = await follow(face, monitor, transport, 3);
  const [event] = events;
  assert.ok(event?.type === 'UnexpectedKey');
  assert.deepEqual([event.version, event.value], [1, labelOf('planted')]);
  // The process ends before anybody has seen it.
  const { client: restarted } = device(face, { ...options, store });
  const later = await follow(face, new LogMonitor(restarted), transport, 3);
  assert.ok(typesOf(later).includes('UnexpectedKey'));
  restarted.owner.acknowledge(alice, 1);
  assert.deepEqual(await follow(face, new LogMonitor(restarted), transport, 3), []);
});

test('what is done once a day is done no sooner by a program that starts anew', async () => {
  const face = await testLog();
  const { client, store, transport } = await ownerOf(face);
  await new LogMonitor(client).run(transport);
  const restart = () => device(face, { store }).client;
  const counted = counting(transport);
  assert.deepEqual(await new LogMonitor(restart()).run(counted.transport), []);
  assert.equal(counted.calls.get('distinguished'), undefined);
  assert.equal(counted.calls.get('credential'), undefined);
  // A new version made in another run does not wait for the day to end.
  await restart().owner.update(transport, alice, [labelOf('mine again')]);
  await new LogMonitor(restart()).run(counted.transport);
  assert.equal(counted.calls.get('credential'), 1);
  // And the day ends, whatever was started and ended in it.
  const before = counted.calls.get('distinguished') ?? 0;
  const { dailyMs } = defaultMonitorLimits;
  face.clock.advance(dailyMs);
  await new LogMonitor(restart()).run(counted.transport);
  assert.ok((counted.calls.get('distinguished') ?? 0) > before);
});

test('a clock that was ahead puts off nothing of what is done once a day', async () => {
  const face = await testLog();
  const { client, store } = await ownerOf(face);
  const dailyMs = 3_600_000;
  const farMs = face.clock.now() + 1000 * dailyMs;
  client.keepDaily({ distinguishedMs: farMs, credentials: [] });
  const { client: restarted } = device(face, { store });
  assert.ok(new LogMonitor(restarted, { dailyMs }).next() <= face.clock.now());
});

test('one’s own new version needs a new credential at once', async () => {
  const face = await testLog();
  const { client, transport } = await ownerOf(face);
  const monitor = new LogMonitor(client);
  await monitor.run(transport);
  const first = client.credentials.own(alice);
  await client.owner.update(transport, alice, [labelOf('mine again')]);
  assert.ok(monitor.next() <= face.clock.now());
  await monitor.run(transport);
  assert.notDeepEqual(client.credentials.own(alice), first);
  const opened = client.credentials.open(client.credentials.own(alice) ?? assert.fail());
  assert.equal(opened.version, 1);
});

test('a hint about a contact leads to a look, and a new version to an event', async () => {
  const face = await testLog();
  const { client, transport } = await ownerOf(face);
  const monitor = new LogMonitor(client);
  await put(face, 'bob@red.example', 'his');
  await client.search(transport, bob);
  await monitor.run(transport);
  monitor.touch(bob);
  assert.deepEqual(await monitor.run(transport), []);
  await put(face, 'bob@red.example', 'his second', 0);
  monitor.touch(bob);
  const [event, ...more] = await monitor.run(transport);
  assert.equal(more.length, 0);
  assert.deepEqual(event, {
    type: 'KeyChange',
    label: bob,
    version: 1,
    value: labelOf('his second'),
    previousVersion: 0,
  });
});

test('no answer: longer and longer waits, and an alarm when it lasts', async () => {
  const face = await testLog();
  const { client, transport } = await ownerOf(face);
  const monitor = new LogMonitor(client, { staleMs: 7_200_000 });
  const counted = counting(unreachable(transport));
  const waits: number[] = [];
  const events: MonitorEvent[] = [];
  while (waits.length < 12) {
    events.push(...(await monitor.run(counted.transport)));
    const waitMs = monitor.next() - face.clock.now();
    waits.push(waitMs);
    face.clock.advance(waitMs);
  }
  // One call per attempt: the other duties wait with the first.
  assert.equal(
    [...counted.calls.values()].reduce((a, b) => a + b),
    12,
  );
  assert.ok((waits[0] ?? 0) >= 52_000 && (waits[0] ?? 0) <= 60_000, `${waits[0]} ms`);
  assert.ok((waits[3] ?? 0) > 4 * (waits[0] ?? 0));
  assert.ok(Math.max(...waits) <= 3_600_000);
  assert.ok(events.length >= 1 && events.length <= 3, `${events.length} alarms`);
  assert.deepEqual(new Set(typesOf(events)), new Set(['Stale']));
  const [stale] = events;
  assert.ok(stale?.type === 'Stale' && stale.answeredMs === client.head()?.answeredMs);
  // It comes back, with a log that went on meanwhile.
  await pass(face, 1);
  assert.deepEqual(await monitor.run(transport), []);
});

test('a quorum is asked for after seconds, then less and less often', async () => {
  const face = await testLog();
  const auditor = auditorOf('blue.example', 90);
  const text = `witness blue ${auditor.vkey}\nquorum blue\n`;
  const { client } = device(face, { policy: parsePolicy(nativeSuite.sha256, text) });
  const transport = transportOf(face);
  await pass(face, 3);
  await client.search(transport, labelOf('filler-0-0'));
  const monitor = new LogMonitor(client, { witnessMinMs: 2_000, witnessRetryMs: 60_000 });
  const sinceMs = client.head()?.unwitnessedSinceMs ?? assert.fail();
  await monitor.run(transport);
  const waits: number[] = [];
  let lastMs = sinceMs;
  for (let count = 0; count < 8; count += 1) {
    const dueMs = monitor.next();
    waits.push(dueMs - lastMs);
    face.clock.advance(Math.max(0, dueMs - face.clock.now()));
    lastMs = face.clock.now();
    await monitor.run(transport);
  }
  assert.equal(waits[0], 2_000);
  assert.ok((waits[1] ?? 0) > 3_000 && (waits[1] ?? 0) <= 4_000, waits.join());
  assert.ok(Math.max(...waits) <= 60_000 && (waits.at(-1) ?? 0) > 30_000, waits.join());
});

test('auditors that are heard of after the newest head are asked for it', async () => {
  const face = await testLog();
  const auditor = auditorOf('blue.example', 90);
  const known: { policy?: Policy } = {};
  const client = new LogClient({
    ...device(face).options,
    get policy() {
      return known.policy;
    },
  });
  const transport = transportOf(face);
  await pass(face, 3);
  await client.search(transport, labelOf('filler-0-0'));
  const monitor = new LogMonitor(client, { witnessMinMs: 2_000 });
  await monitor.run(transport);
  const idleMs = monitor.next() - face.clock.now();
  assert.ok(idleMs > 60_000, `${idleMs}`);

  known.policy = parsePolicy(nativeSuite.sha256, `witness blue ${auditor.vkey}\nquorum blue\n`);
  const dueMs = monitor.next() - face.clock.now();
  assert.ok(dueMs <= 2_000, `${dueMs}`);
  face.clock.advance(Math.max(0, dueMs));
  const distinguished: LogTransport['distinguished'] = async (request, call) => {
    const answer = await transport.distinguished(request, call);
    return { ...answer, checkpoint: auditor.cosigned(answer.checkpoint) };
  };
  assert.deepEqual(await monitor.run({ ...transport, distinguished }), []);
  assert.equal(client.head()?.witnessedSize, client.head()?.size);
});

test('no quorum for too long is an alarm, once a day', async () => {
  const face = await testLog();
  const auditor = auditorOf('blue.example', 90);
  const text = `witness blue ${auditor.vkey}\nquorum blue\n`;
  const { client } = device(face, { policy: parsePolicy(nativeSuite.sha256, text) });
  const transport = transportOf(face);
  await pass(face, 3);
  await client.search(transport, labelOf('filler-0-0'));
  const monitor = new LogMonitor(client, { unwitnessedMs: 100_000, witnessRetryMs: 10_000 });
  const sinceMs = client.head()?.unwitnessedSinceMs ?? assert.fail();
  const events = await follow(face, monitor, transport, 12);
  assert.deepEqual(events, [
    { type: 'Unwitnessed', sinceMs },
    { type: 'Unwitnessed', sinceMs },
  ]);
  const signed: LogTransport = {
    ...transport,
    async distinguished(request, call) {
      const answer = await transport.distinguished(request, call);
      return { ...answer, checkpoint: auditor.cosigned(answer.checkpoint) };
    },
  };
  // Asking for a quorum again is a duty, which finds it.
  assert.deepEqual(await follow(face, monitor, signed, 1), []);
  assert.equal(client.head()?.unwitnessedSinceMs, undefined);
});

test('a fork is told as a lie with its evidence, every time it is met', async () => {
  const { honest, liar } = await twoFaces(5);
  const { client } = device(honest);
  const transport = transportOf(honest);
  await put(honest, 'alice@red.example', 'mine');
  await put(liar, 'alice@red.example', 'the key of somebody else');
  await client.search(transport, alice);
  await client.owner.start(transport, bob);
  await pass(liar, 4);
  honest.clock.advance(80_000);
  const monitor = new LogMonitor(client, { backoffMinMs: 10_000, backoffMaxMs: 20_000 });
  for (let meeting = 0; meeting < 2; meeting++) {
    const events = await monitor.run(transportOf(liar));
    const types = new Set(typesOf(events));
    assert.ok(types.has('Lie') && types.has('Fork'), [...types].join());
    const fork = events.find((one) => one.type === 'Fork');
    assert.deepEqual(fork?.evidence, client.evidence()[0]);
    honest.clock.advance(monitor.next() - honest.clock.now());
  }
  assert.equal(client.evidence().length, 1);
});

test('a log that denies a label, and a store that is damaged', async () => {
  const face = await testLog();
  const { client, store, transport } = await ownerOf(face);
  const monitor = new LogMonitor(client);
  monitor.touch(bob);
  const events = await monitor.run(transport);
  assert.deepEqual(typesOf(events), ['Refused']);
  const key = `label/${Buffer.from(alice).toString('hex')}`;
  const label = store.blobs.get(key) ?? assert.fail();
  store.blobs.set(key, label.slice(1));
  face.clock.advance(60_000);
  await pass(face, 1);
  const [damaged] = await monitor.run(transport);
  assert.ok(damaged?.type === 'Damaged' && damaged.duty === 'owner');
  store.blobs.set(key, label);
  const owner = [...store.blobs].find(([key]) => key.startsWith('owner/')) ?? assert.fail();
  store.blobs.set(owner[0], owner[1].slice(1));
  face.clock.advance(60_000);
  await pass(face, 1);
  assert.throws(() => monitor.next(), { reason: 'STORE_CHANGED' });
  await assert.rejects(monitor.run(transport), { reason: 'STORE_CHANGED' });
});
