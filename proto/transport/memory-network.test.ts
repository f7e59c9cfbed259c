/** What only the memory network can: a clock of its own, delays, cuts, crashes, torn writes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog, systemRandom, type Clock, type Runtime } from '../runtime.ts';
import { makeIdentity } from './certificate.ts';
import { echo, rejectsWith } from './contract-rig.ts';
import { memoryNetwork, type MemoryNetworkOptions } from './memory.ts';
import { defaultLimits, type Connection } from './transport.ts';

/** Time that moves when the test says so; timers run in order of time, then of their making. */
function virtualClock() {
  let nowMs = 0;
  const timers = new Set<{ readonly at: number; readonly run: () => void }>();
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  const clock: Clock = {
    now: () => nowMs,
    monotonic: () => nowMs,
    sleep: (ms) => new Promise((resolve) => void clock.timer(ms, resolve)),
    timer(ms, run) {
      const timer = { at: nowMs + ms, run };
      timers.add(timer);
      return { cancel: () => void timers.delete(timer) };
    },
  };
  async function advance(ms: number): Promise<void> {
    const untilMs = nowMs + ms;
    for (;;) {
      await settle();
      const [next] = [...timers].filter(({ at }) => at <= untilMs).toSorted((a, b) => a.at - b.at);
      if (!next) break;
      timers.delete(next);
      nowMs = next.at;
      next.run();
    }
    nowMs = untilMs;
  }
  return { clock, advance, pending: () => timers.size };
}

/** Two hosts, red listening, blue connected to it. */
async function twoHosts(options: MemoryNetworkOptions = {}) {
  const time = virtualClock();
  const runtime: Runtime = { clock: time.clock, random: systemRandom, log: silentLog };
  const network = memoryNetwork(runtime, options);
  const [redIdentity, blueIdentity] = [
    await makeIdentity(systemRandom),
    await makeIdentity(systemRandom),
  ];
  const common = { limits: defaultLimits, maxRequestBytes: () => 1024 };
  const accepted: Connection[] = [];
  const listener = await network.transport('red').listen({
    ...common,
    endpoint: { host: '::', port: 5001 },
    identity: redIdentity,
    onConnection(connection) {
      connection.onCall(echo);
      accepted.push(connection);
    },
  });
  const dial = () =>
    network
      .transport('blue')
      .dial(
        { host: 'red', port: 5001 },
        { ...common, identity: blueIdentity, pins: [redIdentity.spkiSha256] },
      );
  const dialing = dial();
  await time.advance(100);
  return { ...time, network, listener, connection: await dialing, accepted, dial };
}

function call(connection: Connection, requestId = 1): Promise<number> {
  const request = { methodId: 1, requestId, payload: Buffer.from('abc') };
  const options = { deadlineMs: 120_000, maxResponseBytes: 1024 };
  return connection.call(request, options).then((response) => response.requestId);
}

function isOpen(connection: Connection | undefined): Promise<boolean> {
  const closed = connection?.closed.then(() => false) ?? Promise.resolve(false);
  return Promise.race([closed, Promise.resolve(true)]);
}

test('hosts have names, loopback is the host itself', async () => {
  const { connection, accepted, network, advance } = await twoHosts();
  assert.deepEqual([connection.peer.host, accepted[0]?.peer.host], ['red', 'blue']);
  const lost = network.transport('blue').dial(
    { host: '127.0.0.1', port: 5001 },
    {
      identity: await makeIdentity(systemRandom),
      limits: defaultLimits,
      maxRequestBytes: () => 1,
    },
  );
  const refused = rejectsWith(lost, 'unreachable');
  await advance(0);
  await refused;
});

test('a message takes its delay each way, and streams overtake each other', async () => {
  const delays = [10, 10, 10, 500, 20];
  let next = 0;
  const { connection, advance } = await twoHosts({ delayMs: () => delays[next++] ?? 5 });
  const order: number[] = [];
  const calls = [1, 2].map(async (id) => order.push(await call(connection, id)));
  await advance(200);
  assert.deepEqual(order, [2]);
  await advance(1000);
  await Promise.all(calls);
  assert.deepEqual(order, [2, 1]);
});

test('a cut holds what is sent until it heals', async () => {
  const { connection, network, advance } = await twoHosts({ delayMs: () => 5 });
  network.cut('red', 'blue');
  let answered = 0;
  const done = call(connection).then(() => (answered += 1));
  await advance(20_000);
  assert.equal(answered, 0);
  network.heal('red', 'blue');
  await advance(100);
  await done;
  await advance(60_000);
  assert.ok(await isOpen(connection));
});

test('a cut that lasts ends both sides by their idle time-outs', async () => {
  const { connection, accepted, network, advance, pending } = await twoHosts({ delayMs: () => 5 });
  const failed = rejectsWith(call(connection), 'closed');
  network.cut('blue', 'red');
  await advance(defaultLimits.idleMs - 1);
  assert.ok(await isOpen(accepted[0]));
  await advance(2);
  assert.equal((await accepted[0]?.closed)?.reason, 'idle time-out');
  await advance(defaultLimits.idleMs);
  await failed;
  assert.equal((await connection.closed).reason, 'idle time-out');
  // The last words of the cancelled call are still under way.
  await advance(10);
  assert.equal(pending(), 0);
});

test('a dial into a cut times out, one after healing works', async () => {
  const { network, advance, dial } = await twoHosts();
  network.cut('red', 'blue');
  const failed = rejectsWith(dial(), 'timeout');
  await advance(defaultLimits.handshakeMs);
  await failed;
  network.heal('red', 'blue');
  const dialing = dial();
  await advance(10);
  const done = call(await dialing);
  await advance(10);
  assert.equal(await done, 1);
});

test('a crashed host says nothing: the other side idles out, a new listener may take its place', async () => {
  const { connection, accepted, network, advance } = await twoHosts();
  network.crash('red');
  assert.equal((await accepted[0]?.closed)?.reason, 'process ended');
  const failed = rejectsWith(call(connection), 'closed');
  await advance(defaultLimits.idleMs);
  await failed;
  const again = await network.transport('red').listen({
    endpoint: { host: '::', port: 5001 },
    identity: await makeIdentity(systemRandom),
    limits: defaultLimits,
    maxRequestBytes: () => 1,
    onConnection() {},
  });
  await again.close(0, '');
});

test('a broken path ends every connection of two hosts at once', async () => {
  const { connection, accepted, network, advance, dial } = await twoHosts();
  const dialing = dial();
  await advance(10);
  const second = await dialing;
  const failed = rejectsWith(call(connection), 'closed');
  assert.equal(network.breakConnections('blue', 'red'), 2);
  await failed;
  assert.equal((await second.closed).reason, 'path lost');
  assert.equal((await accepted[1]?.closed)?.local, true);
  assert.equal(network.breakConnections('blue', 'red'), 0);
});

test('writes torn to single bytes make the same calls', async () => {
  const { connection, advance } = await twoHosts({ chunkBytes: 1, delayMs: () => 1 });
  const done = Promise.all([1, 2, 3].map((id) => call(connection, id)));
  await advance(1000);
  assert.deepEqual(await done, [1, 2, 3]);
});
